"""The packages of the running Python: list, compile and remove their files."""

import compileall
import importlib
import shutil
import sys
import sysconfig
import zipfile
from collections.abc import Collection, Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from dbx_aml._common.errors import ClusterError, UnsafePathError
from dbx_aml._common.log import get_logger
from dbx_aml._common.paths import check_relative_path, resolve_inside
from dbx_aml.cluster.node.requirements import Wheel

log = get_logger(__name__)
_SITE_PACKAGES = Path(sysconfig.get_path("purelib"))


def search_path(wheel: Path) -> list[str]:
    """Return the folders in which Python finds packages, without the wheel of the running code."""
    return [entry for entry in sys.path if entry != str(wheel)]


def installed_packages(path: list[str]) -> dict[str, Distribution]:
    """Return every installed package by its normalized name; the first one on the path is used."""
    importlib.invalidate_caches()
    packages: dict[str, Distribution] = {}
    for package in distributions(path=path):
        # A folder whose files were deleted may have no metadata left.
        name = package.metadata["Name"] if package.metadata else None
        if name and package.version:
            packages.setdefault(canonicalize_name(name), package)
    return packages


def installed_versions(path: list[str]) -> dict[str, str]:
    """Return the version of every installed package by its normalized name."""
    return {name: package.version for name, package in installed_packages(path).items()}


def wheel_of(package: Distribution) -> Wheel:
    """Return name, version and requirements of an installed package."""
    return Wheel(
        name=canonicalize_name(package.metadata["Name"]),
        version=package.version,
        requires=package.requires or (),
    )


def compile_files(names: Iterable[str], path: list[str]) -> None:
    """Compile packages as pip would: other users of the node may not write to their folders."""
    packages = installed_packages(path)
    for name in names:
        for file in packages[name].files or ():
            if file.suffix == ".py":
                compileall.compile_file(str(packages[name].locate_file(file)), quiet=2)


def remove_broken_metadata(names: Iterable[str], path: list[str]) -> None:
    """Remove the metadata of packages whose installation was interrupted.

    pip can neither remove nor replace a package without its list of files. The next installation
    overwrites the other files of the package.
    """
    packages = installed_packages(path)
    for name in names:
        package = packages.get(name)
        # There is no public attribute for the folder of the metadata.
        folder = getattr(package, "_path", None)
        if package is not None and folder is not None and package.files is None:
            shutil.rmtree(folder)


def refuse_overwriting(
    wheels: Iterable[Path], protected_packages: Collection[str], path: list[str]
) -> None:
    """Refuse wheels with a file of a protected package, or outside of the packages' folder.

    Args:
        wheels: Files of the wheels.
        protected_packages: Names of the packages that must not change.
        path: Folders in which Python finds packages.

    Raises:
        ClusterError: A wheel would overwrite a file, or a file in it leads elsewhere.
    """
    existing = {file for wheel in wheels for file in _installed_paths(wheel) if file.exists()}
    for name, package in installed_packages(path).items() if existing else ():
        package_files = {Path(str(package.locate_file(file))) for file in package.files or ()}
        # Several packages may contain the same empty file.
        overwritten = [file for file in sorted(package_files & existing) if file.stat().st_size]
        if overwritten and name in protected_packages:
            raise ClusterError(
                "added packages must leave the runtime's files unchanged: "
                f"{overwritten[0]} belongs to {name}; report it with the runtime's name"
            )


def remove_files(wheels: Iterable[Path], path: list[str]) -> None:
    """Remove the files of wheels, except those that an installed package lists.

    Args:
        wheels: Wheels whose hashes were right: the names in them decide which files are removed.
        path: Folders in which Python finds packages.
    """
    files: set[Path] = set()
    for wheel in wheels:
        try:
            files |= {file for file in _installed_paths(wheel) if file.is_file()}
        except ClusterError as err:
            log.warning("%s", err)
    for package in installed_packages(path).values() if files else ():
        files -= {Path(str(package.locate_file(file))) for file in package.files or ()}
    for file in files:
        file.unlink()
    for folder in sorted({parent for file in files for parent in file.parents}, reverse=True):
        is_inside = folder.is_relative_to(_SITE_PACKAGES) and folder != _SITE_PACKAGES
        if is_inside and not _has_source_files(folder):
            shutil.rmtree(folder)


def _installed_paths(wheel: Path) -> list[Path]:
    """Return the paths of a wheel's modules after installation.

    Raises:
        ClusterError: The file is no wheel, or a file in it leads out of the packages' folder.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        # A member may also be a path below a link; to look at each folder once is much faster.
        for folder in {PurePosixPath(check_relative_path(name)).parent for name in names}:
            if folder.parts:
                resolve_inside(_SITE_PACKAGES, str(folder))
    except (OSError, zipfile.BadZipFile, UnsafePathError) as err:
        raise ClusterError(
            f"{wheel.name} must hold files of a package only: {err}; get it from its owner again"
        ) from err
    return [_SITE_PACKAGES / name for name in names if ".data/" not in name]


def _has_source_files(folder: Path) -> bool:
    return any(file.is_file() and file.suffix != ".pyc" for file in folder.rglob("*"))
