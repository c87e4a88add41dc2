"""What is installed in the Python that runs this."""

import importlib
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from dbx_aml.pins import Wheel


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


def forget_halves(names: Iterable[str], path: list[str]) -> None:
    """Remove the metadata of packages whose installation was cut off.

    Without its list of files pip can neither remove nor replace such a package. The files that
    are there are written over by the next installation.
    """
    there = installed(path)
    for name in names:
        one = there.get(name)
        # There is no public name for where the metadata is.
        folder = getattr(one, "_path", None)
        if one is not None and folder is not None and one.files is None:
            shutil.rmtree(folder)
