"""Versions of installed packages."""

from importlib.metadata import PackageNotFoundError, version


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, None for any other package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
