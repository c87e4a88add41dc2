"""Plan which packages to add to a node, before any package changes."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from dbx_aml._common.errors import ClusterError
from dbx_aml._common.paths import sha256_of_file
from dbx_aml.cluster.node.marker import KeptPackage
from dbx_aml.cluster.node.requirements import (
    PLUGIN,
    REQUIREMENTS_FILE,
    Wheel,
    WheelHash,
    missing_requirements,
    read_hashes,
)


@dataclass(frozen=True, kw_only=True)
class PackagePlan:
    """The packages to add to a node.

    Args:
        pins: Version by name of each package to add.
        files: Wheel of each package, a copy whose hash is right.
        kept_packages: Packages of the runtime that are newer than an added package allows.
        requirements_file: List of the packages and their hashes, for pip.
    """

    pins: Mapping[str, str]
    files: tuple[Path, ...]
    kept_packages: tuple[KeptPackage, ...]
    requirements_file: Path


def plan_packages(
    wheelhouse: Path, runtime_packages: Mapping[str, str], wheel: Path, work_folder: Path
) -> PackagePlan:
    """Return the plan that adds from a wheelhouse the packages that the runtime lacks.

    Args:
        wheelhouse: Folder that 'dbx-aml cluster wheelhouse' filled.
        runtime_packages: Version by name of each package of the runtime.
        wheel: Wheel of this package.
        work_folder: Folder with the list of hashes that the script has checked.

    Raises:
        ClusterError: The wheelhouse lacks a package or has another wheel of it, or a package of
            the runtime is too old.
    """
    text = (work_folder / REQUIREMENTS_FILE).read_text(encoding="utf-8")
    missing = [entry for entry in read_hashes(text) if entry.name not in runtime_packages]
    folder = work_folder / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = {entry.name: _copy_wheel(wheelhouse, entry, folder) for entry in missing}
    own_wheel = Wheel.from_file(wheel)
    plugin = [Wheel.from_file(files[PLUGIN])] if PLUGIN in files else []
    versions = {**runtime_packages, **{wheel.name: wheel.version for wheel in plugin}}
    requirements_file = folder / REQUIREMENTS_FILE
    requirements_file.write_text("".join(f"{entry}\n" for entry in missing), encoding="utf-8")
    return PackagePlan(
        pins={entry.name: entry.version for entry in missing},
        files=tuple(files.values()),
        kept_packages=missing_requirements([*plugin, own_wheel], versions).kept_packages,
        requirements_file=requirements_file,
    )


def _copy_wheel(wheelhouse: Path, entry: WheelHash, folder: Path) -> Path:
    """Copy the wheel with a hash into a folder; return the copy.

    Another user could change a wheel of the wheelhouse between its check and its use.

    Raises:
        ClusterError: No wheel of this package and version has the hash.
    """
    for file in wheelhouse.glob("*.whl"):
        try:
            name, version, *_ = parse_wheel_filename(file.name)
        except InvalidWheelFilename:
            continue
        if (name, str(version)) == (entry.name, entry.version):
            copy = Path(shutil.copyfile(file, folder / file.name))
            if sha256_of_file(copy) == entry.sha256:
                return copy
            copy.unlink()
    raise ClusterError(
        f"wheelhouse must hold {entry.name} {entry.version} with the hash in its "
        f"{REQUIREMENTS_FILE}: {wheelhouse} does not; fill it again with 'dbx-aml cluster "
        "wheelhouse'"
    )
