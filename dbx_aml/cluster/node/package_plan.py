"""Plan which packages to add to a node, before any package changes."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import parse_wheel_filename

from dbx_aml._common.errors import ClusterError
from dbx_aml._common.paths import sha256_of_file
from dbx_aml.cluster.node.installed_packages import installed_packages, wheel_of
from dbx_aml.cluster.node.marker import KeptPackage
from dbx_aml.cluster.node.pip import run_pip
from dbx_aml.cluster.node.requirements import (
    PLUGIN,
    REQUIREMENTS_FILE,
    Wheel,
    constraints,
    missing_requirements,
    read_pins,
)


@dataclass(frozen=True, kw_only=True)
class PackagePlan:
    """The packages to add to a node.

    Args:
        pins: Version by name of each package to add.
        files: Wheel of each package, on the node's own disk. Its hash was right.
        kept_packages: Packages of the runtime that are newer than an added package allows.
        arguments: Arguments of "pip install" that name the packages, without a package index.
    """

    pins: Mapping[str, str]
    files: tuple[Path, ...]
    kept_packages: tuple[KeptPackage, ...]
    arguments: tuple[str, ...]


def plan_from_wheelhouse(
    wheelhouse: Path, runtime_packages: Mapping[str, str], wheel: Path, work_folder: Path
) -> PackagePlan:
    """Return the plan that adds from a wheelhouse the packages that the runtime lacks.

    Args:
        wheelhouse: Folder that 'dbx-aml cluster wheelhouse' filled.
        runtime_packages: Version by name of each package of the runtime.
        wheel: Wheel of this package.
        work_folder: Folder for files that pip reads.

    Raises:
        ClusterError: The wheelhouse lacks a package or has one with another hash, or a package of
            the runtime is too old.
    """
    own_wheel = Wheel.from_file(wheel)
    lines = (wheelhouse / REQUIREMENTS_FILE).read_text(encoding="utf-8").splitlines()
    missing = [line for line in lines if not read_pins(line).keys() & runtime_packages.keys()]
    pins = read_pins("\n".join(missing))
    folder = work_folder / "wheels"
    folder.mkdir(exist_ok=True)
    files = {
        name: _copy_verified(_wheel_file(wheelhouse, name, version), line, folder)
        for line in missing
        for name, version in read_pins(line).items()
    }
    plugin = [Wheel.from_file(files[PLUGIN])] if PLUGIN in files else []
    versions = {**runtime_packages, **{wheel.name: wheel.version for wheel in plugin}}
    requirements_file = work_folder / REQUIREMENTS_FILE
    requirements_file.write_text("".join(f"{line}\n" for line in missing), encoding="utf-8")
    return PackagePlan(
        pins=pins,
        files=tuple(files.values()),
        kept_packages=missing_requirements([*plugin, own_wheel], versions).kept_packages,
        arguments=(
            *("--find-links", str(folder), "--require-hashes"),
            *("--requirement", str(requirements_file)),
        ),
    )


def plan_from_index(
    runtime_packages: Mapping[str, str], wheel: Path, work_folder: Path, path: list[str]
) -> PackagePlan:
    """Return the plan that adds from the package index the packages that the runtime lacks.

    Args:
        runtime_packages: Version by name of each package of the runtime.
        wheel: Wheel of this package.
        work_folder: Folder for files that pip reads and writes.
        path: Folders in which Python finds packages.

    Raises:
        ClusterError: The index does not answer or has no fitting packages, or a package of the
            runtime is too old.
    """
    folder = work_folder / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    own_wheel = Wheel.from_file(Path(shutil.copy(wheel, folder)))
    if PLUGIN in runtime_packages:
        wheels = [wheel_of(installed_packages(path)[PLUGIN]), own_wheel]
    else:
        _download_wheels(folder, str(own_wheel.requirement(PLUGIN)))
        wheels = [Wheel.from_file(file) for file in folder.iterdir()]
    versions = {**runtime_packages, **{wheel.name: wheel.version for wheel in wheels}}
    requirements = missing_requirements(wheels, versions)
    pins = _resolve(requirements.to_add, runtime_packages, work_folder)
    if pins:
        _download_wheels(folder, *(f"{name}=={version}" for name, version in pins.items()))
    files = tuple(folder.iterdir())
    return PackagePlan(
        pins={wheel.name: wheel.version for wheel in map(Wheel.from_file, files)},
        files=files,
        kept_packages=requirements.kept_packages,
        arguments=tuple(map(str, files)),
    )


def _download_wheels(folder: Path, *requirements: str) -> None:
    run_pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), *requirements)


def _resolve(
    requirements: tuple[str, ...], runtime_packages: Mapping[str, str], work_folder: Path
) -> dict[str, str]:
    """Return version by name of what pip would add without changing the runtime's packages."""
    if not requirements:
        return {}
    constraints_file, report = work_folder / "constraints.txt", work_folder / "report.json"
    constraints_file.write_text(constraints(runtime_packages), encoding="utf-8")
    run_pip(
        *("install", "--dry-run", "--report", str(report), "--only-binary", ":all:"),
        *("--constraint", str(constraints_file), *requirements),
    )
    entries = json.loads(report.read_text(encoding="utf-8"))["install"]
    lines = [f"{entry['metadata']['name']}=={entry['metadata']['version']}" for entry in entries]
    pins = read_pins("\n".join(lines))
    changed = sorted(pins.keys() & runtime_packages.keys())
    if changed:
        raise ClusterError(
            f"added packages must leave the runtime's packages unchanged: {changed} would change; "
            "use a wheelhouse"
        )
    return pins


def _wheel_file(wheelhouse: Path, name: str, version: str) -> Path:
    for file in wheelhouse.glob("*.whl"):
        file_name, file_version, *_ = parse_wheel_filename(file.name)
        if file_name == name and str(file_version) == version:
            return file
    raise ClusterError(
        f"wheelhouse must hold {name} {version}: {wheelhouse} does not; fill it again with "
        "'dbx-aml cluster wheelhouse'"
    )


def _copy_verified(wheel: Path, line: str, folder: Path) -> Path:
    """Copy a wheel to the node, where nobody else can change it; return the copy.

    Args:
        wheel: File in the wheelhouse.
        line: Line of the requirements file with the wheel's hashes.
        folder: Folder for the copy.

    Raises:
        ClusterError: The copy has another hash.
    """
    copy = Path(shutil.copy(wheel, folder))
    if f"--hash=sha256:{sha256_of_file(copy)}" not in line.split():
        raise ClusterError(
            f"wheel must have the hash in {REQUIREMENTS_FILE}: {wheel} has another; fill the "
            "wheelhouse again with 'dbx-aml cluster wheelhouse'"
        )
    return copy
