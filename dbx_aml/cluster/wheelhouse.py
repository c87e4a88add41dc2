"""Build a wheelhouse: a folder with every wheel that the init script adds to a runtime's nodes."""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zipfile import BadZipFile, ZipFile

from dbx_aml._common.errors import ArgumentError, ClusterError, ProgramError
from dbx_aml._common.json_content import check_types, parse_json
from dbx_aml._common.paths import sha256_of_file
from dbx_aml._common.programs import run_program
from dbx_aml._common.text import install_command, one_line
from dbx_aml.cluster.node.marker import KeptPackage
from dbx_aml.cluster.node.requirements import (
    PACKAGE,
    PLUGIN,
    REQUIREMENTS_FILE,
    Requirements,
    Wheel,
    WheelHash,
    constraints,
    missing_requirements,
    read_hashes,
    read_pins,
)
from dbx_aml.cluster.runtimes import Runtime, known_runtimes

WHEELHOUSE_FILE = "wheelhouse.json"
# For one call of pip or uv.
_TIMEOUT_S = 900.0
# Operating system of the oldest supported runtime; wheels for it run on all newer ones.
_PLATFORM = "manylinux_2_28_x86_64"
_UV_PLATFORM = "x86_64-manylinux_2_28"


@dataclass(frozen=True, kw_only=True)
class Wheelhouse:
    """A folder of wheels.

    Args:
        folder: Path of the folder.
        runtime: Name of the runtime, for example "17.3", or of a file of constraints.
        python: Minor version of the runtime's Python, for example "3.12".
        packages: Version by name of each wheel.
        kept_packages: Packages of the runtime that are newer than a wheel in the folder allows.
    """

    folder: Path
    runtime: str
    python: str
    packages: Mapping[str, str]
    kept_packages: tuple[KeptPackage, ...]


@dataclass(frozen=True, kw_only=True)
class WheelhouseFiles:
    """The files of a local wheelhouse, whose wheels are those of its list of hashes.

    Args:
        runtime: Name of the runtime, for example "17.3", or of a file of constraints.
        wheels: Wheels in the order of their names.
        description: Content of `wheelhouse.json`.
        hashes: Content of the list of hashes. It is read once, so a cluster gets the list that the
            wheels were compared with.
    """

    runtime: str
    wheels: tuple[Path, ...]
    description: bytes
    hashes: bytes

    @property
    def content(self) -> Mapping[str, bytes | Path]:
        """Content, or local file, of each file by its name, the wheels first."""
        wheels = {wheel.name: wheel for wheel in self.wheels}
        return {**wheels, WHEELHOUSE_FILE: self.description, REQUIREMENTS_FILE: self.hashes}

    @property
    def sha256(self) -> str:
        """SHA-256 of the list of hashes, which an init script carries."""
        return hashlib.sha256(self.hashes).hexdigest()


def select_runtime(
    name: str | None = None, constraints_file: Path | None = None, python: str = "3.12"
) -> Runtime:
    """Return the runtime to resolve for.

    Args:
        name: Name of a known runtime, for example "17.3" or "17.3-ml".
        constraints_file: Output of `pip freeze` on a cluster, instead of a name.
        python: Minor version of that cluster's Python.

    Raises:
        ArgumentError: The runtime is unknown, or the file has no package.
    """
    runtimes = {name: one for name, one in known_runtimes().items() if one.is_complete}
    if name is not None and constraints_file is None:
        if name not in runtimes:
            raise ArgumentError(
                f"runtime must be a known one: got {name!r}; use one of {list(runtimes)}, or "
                "'pip freeze' of a cluster as constraints"
            )
        return runtimes[name]
    if name is not None or constraints_file is None:
        raise ArgumentError(
            "wheelhouse must be for one runtime: give either a runtime or constraints; "
            f"runtimes are {list(runtimes)}"
        )
    try:
        packages = read_pins(constraints_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ArgumentError(
            f"constraints must be a readable text: got '{constraints_file}'; write it on a cluster "
            "with '%pip freeze'"
        ) from err
    if not packages:
        raise ArgumentError(
            f"constraints must have lines 'name==version': got none in '{constraints_file}'; "
            "write it on a cluster with '%pip freeze'"
        )
    return Runtime(name=constraints_file.name, python=python, packages=packages)


def build_wheelhouse(folder: Path, runtime: Runtime, wheel: Path | None = None) -> Wheelhouse:
    """Fill a folder with this package, azureml-mlflow and the dependencies that a runtime lacks.

    The list of hashes is written last: a node that reads meanwhile gets the old or the new list.

    Args:
        folder: Folder to fill. It is created if missing, and its other wheels are removed.
        runtime: Runtime of the nodes; the wheelhouse has none of its packages.
        wheel: Wheel of this package; by default the one that it was installed from.

    Raises:
        ClusterError: The package index lacks a package, or the runtime is too old, or this package
            was not installed from a wheel.
    """
    for module in ("pip", "uv"):
        if importlib.util.find_spec(module) is None:
            raise ClusterError(
                f"wheelhouse needs {module}: it is not installed; "
                f"run: {install_command('wheelhouse')}"
            )
    # Anybody may own the name of this package on a package index: the index is never asked for it.
    wheel = wheel or installed_wheel()
    with tempfile.TemporaryDirectory() as temporary:
        work_folder = Path(temporary)
        requirements = _download_wheels(work_folder, runtime, wheel)
        files = sorted(work_folder.glob("*.whl"))
        wheels = {file: Wheel.from_file(file) for file in files}
        packages = {wheel.name: wheel.version for wheel in wheels.values()}
        content = {"runtime": runtime.name, "python": runtime.python, "packages": packages}
        (work_folder / WHEELHOUSE_FILE).write_text(
            json.dumps(content, indent=2) + "\n", encoding="utf-8"
        )
        hashes = [
            WheelHash(name=wheel.name, version=wheel.version, sha256=sha256_of_file(file))
            for file, wheel in wheels.items()
        ]
        (work_folder / REQUIREMENTS_FILE).write_text(
            "".join(f"{entry}\n" for entry in hashes), encoding="utf-8"
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in [*files, work_folder / WHEELHOUSE_FILE, work_folder / REQUIREMENTS_FILE]:
                shutil.copyfile(file, folder / file.name)
            for file in folder.glob("*.whl"):
                if file.name not in {file.name for file in files}:
                    file.unlink()
        except OSError as err:
            raise ClusterError(
                f"wheelhouse must be writable: {folder}: {err.strerror}; choose another folder"
            ) from err
    return Wheelhouse(
        folder=folder,
        runtime=runtime.name,
        python=runtime.python,
        packages=packages,
        kept_packages=requirements.kept_packages,
    )


def read_wheelhouse(folder: Path | None) -> WheelhouseFiles:
    """Return the files of a wheelhouse.

    Args:
        folder: Local folder that 'dbx-aml cluster wheelhouse' has filled.

    Raises:
        ArgumentError: There is no folder, or its wheels are not those of its list.
    """
    if folder is None:
        raise ArgumentError(
            "packages must come from a wheelhouse: got none; run 'dbx-aml cluster wheelhouse "
            "--runtime <runtime> --folder wheelhouse', and give --wheelhouse wheelhouse"
        )
    wheels = tuple(sorted(folder.glob("*.whl")))
    try:
        description = (folder / WHEELHOUSE_FILE).read_bytes()
        hashes = (folder / REQUIREMENTS_FILE).read_bytes()
        listed = read_hashes(hashes.decode())
        if {sha256_of_file(wheel) for wheel in wheels} != {entry.sha256 for entry in listed}:
            raise ClusterError(f"its wheels are not those of its {REQUIREMENTS_FILE}")
        if PACKAGE not in {entry.name for entry in listed}:
            raise ClusterError(f"it has no {PACKAGE}")
        values = parse_json(description)
        check_types(values, {"runtime": str})
    except (OSError, ValueError, ClusterError) as err:
        reason = f"{err.filename}: {err.strerror}" if isinstance(err, OSError) else one_line(err)
        raise ArgumentError(
            f"wheelhouse must hold wheels and their hashes: got {str(folder)!r}: {reason}; fill it "
            "with 'dbx-aml cluster wheelhouse'"
        ) from err
    return WheelhouseFiles(
        runtime=values.get("runtime", ""),
        wheels=wheels,
        description=description,
        hashes=hashes,
    )


def installed_wheel() -> Path:
    """Return the wheel that this package was installed from.

    Raises:
        ClusterError: It was installed in another way, or the wheel has changed or is gone.
    """
    try:
        package = distribution(PACKAGE)
        url = json.loads(package.read_text("direct_url.json") or "{}").get("url", "")
        file = Path(unquote(urlsplit(url).path))
        if _recorded_files(file) <= set((package.read_text("RECORD") or "").splitlines()):
            return file
    except (PackageNotFoundError, OSError, BadZipFile, StopIteration):
        pass
    raise ClusterError(
        "wheel of dbx-aml must be given: it was not installed from a wheel that is still there; "
        "run 'make build', and 'dbx-aml cluster wheelhouse' with --wheel dist/dbx_aml-*.whl"
    )


def _recorded_files(wheel: Path) -> set[str]:
    """Return the lines of a wheel's RECORD, each with the name and the hash of a file."""
    with ZipFile(wheel) as archive:
        record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        lines = archive.read(record).decode().splitlines()
    return {line for line in lines if not line.startswith(record)}


def _download_wheels(work_folder: Path, runtime: Runtime, wheel: Path) -> Requirements:
    """Download every wheel that the runtime lacks; return the added packages' requirements."""
    own_wheel = Wheel.from_file(wheel)
    if own_wheel.name != PACKAGE:
        raise ClusterError(f"wheel must be of {PACKAGE}: got '{wheel}'; run: make build")
    shutil.copy(wheel, work_folder)
    _pip_download(runtime, work_folder, str(own_wheel.requirement(PLUGIN)))
    wheels = [Wheel.from_file(file) for file in sorted(work_folder.glob("*.whl"))]
    packages = {**runtime.packages, **{wheel.name: wheel.version for wheel in wheels}}
    environment = {
        "python_version": runtime.python,
        "python_full_version": f"{runtime.python}.0",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    requirements = missing_requirements(wheels, packages, environment)
    pins = _resolve(requirements.to_add, runtime, work_folder)
    if pins:
        _pip_download(runtime, work_folder, *(f"{name}=={pin}" for name, pin in pins.items()))
    return requirements


def _resolve(requirements: tuple[str, ...], runtime: Runtime, work_folder: Path) -> dict[str, str]:
    """Return version by name of what the requirements add to a runtime."""
    constraints_file = work_folder / "constraints.txt"
    constraints_file.write_text(constraints(runtime.packages), encoding="utf-8")
    # With the Python version and platform given, uv needs no matching interpreter. Without one
    # it would try each interpreter of the machine.
    arguments = [
        *("uv", "pip", "compile", "--python", sys.executable),
        *("-", "--quiet", "--no-header", "--no-annotate"),
        *("--constraint", str(constraints_file), "--python-version", runtime.python),
        *("--python-platform", _UV_PLATFORM, "--only-binary", ":all:"),
    ]
    pins = read_pins(_run_module(arguments, "\n".join(requirements)))
    return {name: pin for name, pin in pins.items() if name not in runtime.packages}


def _pip_download(runtime: Runtime, folder: Path, *requirements: str) -> None:
    _run_module(
        [
            *("pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
            *("--no-deps", "--only-binary", ":all:", "--dest", str(folder)),
            *("--python-version", runtime.python, "--platform", _PLATFORM, *requirements),
        ]
    )


def _run_module(arguments: list[str], stdin: str = "") -> str:
    """Run a Python module with its arguments; return its standard output."""
    environment = dict(os.environ)
    if "PIP_INDEX_URL" in environment:
        # uv does not read pip's variables.
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    command = [sys.executable, "-P", "-m", *arguments]
    try:
        return run_program(command, _TIMEOUT_S, environment=environment, input_text=stdin)
    except ProgramError as err:
        message = one_line(err.stderr)[-600:].rpartition("ERROR: ")[2]
        raise ClusterError(
            f"package index must have what is added: got {message!r} from {arguments[0]}; "
            "compare the index's settings"
        ) from err
