"""What is installed in the Python that runs this."""

import compileall
import importlib
import shutil
import sys
import sysconfig
import zipfile
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.node.requirements import Wheel


def search_path(wheel: Path) -> list[str]:
    """Return where this Python finds its packages, without the wheel that this code runs from."""
    return [entry for entry in sys.path if entry != str(wheel)]


def installed(path: list[str]) -> dict[str, Distribution]:
    """Return what is installed, by its normal name; the first on the path counts."""
    importlib.invalidate_caches()
    found: dict[str, Distribution] = {}
    for one in distributions(path=path):
        # A folder that something was deleted from may have no metadata left.
        name = one.metadata["Name"] if one.metadata else None
        if name and one.version:
            found.setdefault(canonicalize_name(name), one)
    return found


def versions(path: list[str]) -> dict[str, str]:
    """Return the version of everything that is installed, by its normal name."""
    return {name: one.version for name, one in installed(path).items()}


def wheel_of(one: Distribution) -> Wheel:
    """Return the name, version and requirements of what is installed."""
    return Wheel(
        name=canonicalize_name(one.metadata["Name"]),
        version=one.version,
        requires=one.requires or (),
    )


def compile_files(names: Iterable[str], path: list[str]) -> None:
    """Compile packages as pip would: other users of the node may not write beside them."""
    there = installed(path)
    for name in names:
        for file in there[name].files or ():
            if file.suffix == ".py":
                compileall.compile_file(str(there[name].locate_file(file)), quiet=2)


def forget_halves(names: Iterable[str], path: list[str]) -> None:
    """Remove the metadata of packages whose installation was cut off.

    Without its list of files pip can neither remove nor replace such a package. Its other files
    are written over by the next installation.
    """
    there = installed(path)
    for name in names:
        one = there.get(name)
        # There is no public name for where the metadata is.
        folder = getattr(one, "_path", None)
        if one is not None and folder is not None and one.files is None:
            shutil.rmtree(folder)


def refuse_overwriting(wheels: Iterable[Path], stays: Collection[str], path: list[str]) -> None:
    """Refuse wheels with a file that belongs to a package which stays.

    Args:
        wheels: The files.
        stays: Names of the packages that may not be written over.
        path: Where this Python finds its packages.

    Raises:
        ClusterError: There is one.
    """
    there = {file for file in _places(wheels) if file.exists()}
    for name, one in installed(path).items() if there else ():
        owned = {Path(str(one.locate_file(file))) for file in one.files or ()}
        # Several packages may have the same file, as long as it is empty.
        same = [file for file in sorted(owned & there) if file.stat().st_size]
        if same and name in stays:
            raise ClusterError(
                f"what is added must leave the runtime's files as they are: {same[0]} is "
                f"{name}'s; report it with the runtime's name"
            )


def remove_files(wheels: Iterable[Path], path: list[str]) -> None:
    """Remove the files of wheels that no package which is there has in its list."""
    left = {file for file in _places(wheels) if file.is_file()}
    for one in installed(path).values() if left else ():
        left -= {Path(str(one.locate_file(file))) for file in one.files or ()}
    for file in left:
        file.unlink()
    for folder in sorted({parent for file in left for parent in file.parents}, reverse=True):
        if folder.is_relative_to(_PLACE) and folder != _PLACE and not _has_files(folder):
            shutil.rmtree(folder)


_PLACE = Path(sysconfig.get_path("purelib"))


def _places(wheels: Iterable[Path]) -> Iterator[Path]:
    """Yield where the files of wheels go; those of other places than packages are left out."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = [one.filename for one in archive.infolist() if not one.is_dir()]
        yield from (_PLACE / name for name in names if ".data/" not in name)


def _has_files(folder: Path) -> bool:
    """Tell whether there is anything but compiled files."""
    return any(file.is_file() and file.suffix != ".pyc" for file in folder.rglob("*"))
