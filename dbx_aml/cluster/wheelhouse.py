"""Build a wheelhouse: a folder with every wheel that the init script adds to a runtime's nodes."""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from dbx_aml._common.errors import ArgumentError, ClusterError
from dbx_aml._common.json_content import check_types, parse_json
from dbx_aml._common.own_wheel import write_own_wheel
from dbx_aml._common.paths import sha256_of_file
from dbx_aml._common.text import one_line
from dbx_aml.cluster.node.requirements import (
    PACKAGE,
    REQUIREMENTS_FILE,
    WheelHash,
    read_hashes,
)
from dbx_aml.cluster.resolve import (
    Wheel,
    check_requirements,
    download_wheels,
    node_requirements,
    resolve,
)
from dbx_aml.cluster.runtimes import Runtime, known_runtimes, supported_runtimes

WHEELHOUSE_FILE = "wheelhouse.json"


@dataclass(frozen=True, kw_only=True)
class Wheelhouse:
    """A folder of wheels.

    Args:
        folder: Path of the folder.
        runtime: Name of the runtime, for example "17.3", or of a file of constraints.
        python: Minor version of the runtime's Python, for example "3.12".
        packages: Version by name of each wheel.
        newer_packages: A message for each package of the runtime that is newer than a wheel in
            the folder allows.
    """

    folder: Path
    runtime: str
    python: str
    packages: Mapping[str, str]
    newer_packages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class WheelhouseFiles:
    """The files of a local wheelhouse; each wheel has a hash in the list.

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
    runtimes = known_runtimes()
    if name is not None and constraints_file is None:
        refusal = runtimes[name].refusal if name in runtimes else "it is not known"
        if refusal:
            raise ArgumentError(
                f"runtime must be one of {supported_runtimes()}: got {name!r}: {refusal}; or give "
                "'pip freeze' of a cluster as constraints"
            )
        return runtimes[name]
    if name is not None or constraints_file is None:
        raise ArgumentError(
            "wheelhouse must be for one runtime: give either a runtime or constraints; "
            f"runtimes are {supported_runtimes()}"
        )
    try:
        packages = _read_pins(constraints_file.read_text(encoding="utf-8-sig"))
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


def build_wheelhouse(folder: Path, runtime: Runtime) -> Wheelhouse:
    """Fill a folder with this package, azureml-mlflow and the dependencies that a runtime lacks.

    The list of hashes is written last: a node that reads meanwhile gets the old or the new list.

    Args:
        folder: Folder to fill. It is created if missing, and its other wheels are removed.
        runtime: Runtime of the nodes; the wheelhouse has none of its packages.

    Raises:
        ClusterError: The package index lacks a package, or the runtime is too old.
    """
    with tempfile.TemporaryDirectory() as temporary:
        work_folder = Path(temporary)
        newer_packages = _download_wheels(work_folder, runtime)
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
        newer_packages=newer_packages,
    )


def index_requirements(runtime: Runtime, wheel: Path | None) -> str:
    """Return the list of hashes of everything that a node of a runtime gets from a package index.

    Args:
        runtime: Supported runtime.
        wheel: Wheel of this package that the index has.

    Raises:
        ArgumentError: There is no wheel, or it is of another package.
    """
    if wheel is None:
        raise ArgumentError(
            f"wheel must be the one of {PACKAGE} on the package index of the nodes: got none; "
            "pass for example --wheel dist/dbx_aml-0.2.0-py3-none-any.whl"
        )
    own_wheel = Wheel.from_file(wheel)
    if own_wheel.name != PACKAGE:
        raise ArgumentError(f"wheel must be of {PACKAGE}: got '{wheel}'; run: make build")
    entry = WheelHash(name=own_wheel.name, version=own_wheel.version, sha256=sha256_of_file(wheel))
    return f"{runtime.requirements}{entry}\n"


def read_wheelhouse(folder: Path | None) -> WheelhouseFiles:
    """Return the files of a wheelhouse.

    Args:
        folder: Local folder that 'dbx-aml cluster wheelhouse' has filled.

    Raises:
        ArgumentError: There is no folder, or a wheel and the list differ.
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


def _download_wheels(work_folder: Path, runtime: Runtime) -> tuple[str, ...]:
    """Download every wheel that the runtime lacks; return a message for each newer package."""
    # On a package index another person may own the name dbx-aml: the index is never asked for it.
    write_own_wheel(work_folder)
    if runtime.requirements:
        download_wheels(runtime.requirements.splitlines(), runtime.python, work_folder)
    else:
        resolve(runtime, node_requirements(runtime), work_folder)
    wheels = [Wheel.from_file(file) for file in sorted(work_folder.glob("*.whl"))]
    versions = {**runtime.packages, **{wheel.name: wheel.version for wheel in wheels}}
    requirements = check_requirements(wheels, versions, runtime.python)
    if requirements.missing:
        raise ClusterError(
            f"list of runtime {runtime.name} must have what dbx-aml requires: it lacks "
            f"{', '.join(requirements.missing)}; install a release of dbx-aml"
        )
    return requirements.newer


def _read_pins(text: str) -> dict[str, str]:
    """Return version by name of the lines `name==version` of a freeze; others are ignored."""
    pairs = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;#]+)", text, re.MULTILINE)
    return {str(canonicalize_name(name)): version for name, version in pairs}
