"""A wheelhouse: everything that the init script adds to one runtime, as wheels with hashes."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dbx_aml._common.errors import ArgumentError, ClusterError
from dbx_aml.cluster.node.marker import KeptPackage
from dbx_aml.cluster.node.requirements import (
    PACKAGE,
    PLUGIN,
    Requirements,
    Wheel,
    constraints,
    missing_requirements,
    read_pins,
)
from dbx_aml.cluster.runtime_packages import RuntimePackages, runtime_packages

REQUIREMENTS = "requirements.txt"
WHEELHOUSE_FILE = "wheelhouse.json"
# The oldest that a runtime's system has; wheels for it run on all later ones.
_PLATFORM = "manylinux_2_28_x86_64"
_UV_PLATFORM = "x86_64-manylinux_2_28"


@dataclass(frozen=True, kw_only=True)
class Wheelhouse:
    """A filled wheelhouse.

    Args:
        folder: Where it is.
        runtime: What it was made for, for example "17.3", or a file of constraints.
        python: Minor version, for example "3.12".
        packages: Version by name of each wheel.
        kept_packages: Packages of the runtime that are newer than ours allow, and stay.
    """

    folder: Path
    runtime: str
    python: str
    packages: Mapping[str, str]
    kept_packages: tuple[KeptPackage, ...]


def runtime_packages_for(
    runtime: str | None = None, freeze: Path | None = None, python: str = "3.12"
) -> RuntimePackages:
    """Return the packages to resolve against.

    Args:
        runtime: A known one, for example "17.3" or "17.3-ml".
        freeze: What `pip freeze` says on a cluster, instead.
        python: Minor version that goes with the constraints.

    Raises:
        ArgumentError: The runtime is unknown, or the file names no package.
    """
    known = runtime_packages()
    if runtime is not None and freeze is None:
        if runtime not in known:
            raise ArgumentError(
                f"runtime must be a known one: got {runtime!r}; use one of {list(known)}, or "
                "'pip freeze' of a cluster as constraints"
            )
        return known[runtime]
    if runtime is not None or freeze is None:
        raise ArgumentError(
            "wheelhouse must be for one machine: give either a runtime or constraints; "
            f"runtimes are {list(known)}"
        )
    try:
        pins = read_pins(freeze.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ArgumentError(
            f"constraints must be a readable text: got '{freeze}'; write it on a cluster "
            "with '%pip freeze'"
        ) from err
    if not pins:
        raise ArgumentError(
            f"constraints must have lines 'name==version': got none in '{freeze}'; "
            "write it on a cluster with '%pip freeze'"
        )
    return RuntimePackages(runtime=freeze.name, python=python, versions=pins)


def build_wheelhouse(
    folder: Path, machine: RuntimePackages, wheel: Path | None = None
) -> Wheelhouse:
    """Fill a folder with this package, azureml-mlflow and what they need beside a runtime.

    The list of hashes is written last, so a node that reads meanwhile sees the old or the new one.

    Args:
        folder: Made where missing; wheels that are no longer listed are removed from it.
        machine: What the runtime brings; none of it is put there.
        wheel: This package's wheel; by default this release is taken from the package index.

    Raises:
        ClusterError: The index does not have it, or the runtime is too old.
    """
    for module in ("pip", "uv"):
        if importlib.util.find_spec(module) is None:
            raise ClusterError(
                f"wheelhouse needs {module}: it is not installed; "
                "run: pip install 'dbx-aml[wheelhouse]'"
            )
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        found = _download(work, machine, wheel)
        files = sorted(work.glob("*.whl"))
        wheels = {file: Wheel.from_file(file) for file in files}
        lines = [
            f"{one.name}=={one.version} --hash=sha256:{_sha256(file)}\n"
            for file, one in wheels.items()
        ]
        packages = {one.name: one.version for one in wheels.values()}
        about = {"runtime": machine.runtime, "python": machine.python, "packages": packages}
        (work / WHEELHOUSE_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        (work / REQUIREMENTS).write_text("".join(lines), encoding="utf-8")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in [*files, work / WHEELHOUSE_FILE, work / REQUIREMENTS]:
                shutil.copyfile(file, folder / file.name)
            for file in folder.glob("*.whl"):
                if file.name not in {one.name for one in files}:
                    file.unlink()
        except OSError as err:
            raise ClusterError(
                f"wheelhouse must be writable: {folder}: {err.strerror}; choose another folder"
            ) from err
    return Wheelhouse(
        folder=folder,
        runtime=machine.runtime,
        python=machine.python,
        packages=packages,
        kept_packages=found.kept_packages,
    )


def _download(work: Path, machine: RuntimePackages, wheel: Path | None) -> Requirements:
    """Put every wheel into `work`; return what ours needed."""
    if wheel is None:
        _pip(machine, work, f"{PACKAGE}=={version(PACKAGE)}")
        wheel = next(work.glob("dbx_aml-*.whl"))
    elif not wheel.is_file():
        raise ClusterError(f"wheel must be a file: got '{wheel}'; run: make build")
    else:
        wheel = Path(shutil.copy(wheel, work))
    ours = Wheel.from_file(wheel)
    _pip(machine, work, str(ours.requirement(PLUGIN)))
    both = [Wheel.from_file(file) for file in sorted(work.glob("*.whl"))]
    there = {**machine.versions, **{one.name: one.version for one in both}}
    environment = {
        "python_version": machine.python,
        "python_full_version": f"{machine.python}.0",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    found = missing_requirements(both, there, environment)
    pins = _resolved(found.to_add, machine, work)
    if pins:
        _pip(machine, work, *(f"{name}=={pin}" for name, pin in pins.items()))
    return found


def _resolved(to_add: tuple[str, ...], machine: RuntimePackages, work: Path) -> dict[str, str]:
    fixed = work / "constraints.txt"
    fixed.write_text(constraints(machine.versions), encoding="utf-8")
    # Any interpreter will do, as the target is named: uv would try each one on the machine.
    command = [
        *("uv", "pip", "compile", "--python", sys.executable),
        *("-", "--quiet", "--no-header", "--no-annotate"),
        *("--constraint", str(fixed), "--python-version", machine.python),
        *("--python-platform", _UV_PLATFORM, "--only-binary", ":all:"),
    ]
    said = _run(command, "\n".join(to_add))
    return {name: pin for name, pin in read_pins(said).items() if name not in machine.versions}


def _pip(machine: RuntimePackages, work: Path, *wanted: str) -> None:
    _run(
        [
            *("pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
            *("--no-deps", "--only-binary", ":all:", "--dest", str(work)),
            *("--python-version", machine.python, "--platform", _PLATFORM, *wanted),
        ]
    )


def _run(words: list[str], text: str = "") -> str:
    command = [sys.executable, "-P", "-m", *words]
    environment = dict(os.environ)
    if "PIP_INDEX_URL" in environment:
        # uv has variables of its own; whoever set only pip's means both.
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    try:
        done = subprocess.run(
            command, input=text, env=environment, capture_output=True, text=True, check=True
        )
    except subprocess.CalledProcessError as err:
        lines = [line.strip() for line in err.stderr.splitlines() if line.strip()]
        said = " ".join(lines)[-600:].rpartition("ERROR: ")[2]
        raise ClusterError(
            f"package index must have what is added: {words[0]} said {said!r}; "
            "look at the index's settings, or give --wheel for dbx-aml itself"
        ) from err
    return done.stdout


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
