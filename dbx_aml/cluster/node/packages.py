"""Add the packages of a list to the running Python with one call of pip, and remove them again."""

import os
import re
import shutil
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from dbx_aml._common.errors import ClusterError, ProgramError, UnsafePathError
from dbx_aml._common.log import get_logger
from dbx_aml._common.paths import check_relative_path
from dbx_aml._common.programs import run_program
from dbx_aml._common.redact import redact
from dbx_aml._common.text import one_line
from dbx_aml.cluster.node.requirements import ENTRY_POINT_GROUPS, REQUIREMENTS_FILE, WheelHash

log = get_logger(__name__)

# The script ends this process, and all that it has started, when the script's time is over.
_TIMEOUT_S = 3600
_SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
_PIP_OPTIONS = ("--disable-pip-version-check", "--no-input", "--quiet", "--isolated")
_LOAD_PLUGIN = f"""
from importlib.metadata import entry_points
for group in {ENTRY_POINT_GROUPS!r}:
    plugins = [plugin for plugin in entry_points(group=group) if plugin.name == "azureml"]
    assert plugins, f"no entry point azureml in {{group}}"
    for plugin in plugins:
        plugin.load()
"""


def installed_packages(names: Iterable[str]) -> dict[str, Distribution]:
    """Return those packages of a list that are installed, also those whose files are incomplete."""
    wanted = set(names)
    # The wheel that this code runs from is on the path, too.
    path = [entry for entry in sys.path if not entry.endswith(".whl")]
    packages: dict[str, Distribution] = {}
    for package in distributions(path=path):
        # A folder whose files were deleted may have no metadata left.
        name = package.metadata["Name"] if package.metadata else ""
        name = re.sub(r"[-_.]+", "-", name or "").lower()
        if name in wanted:
            packages.setdefault(name, package)
    return packages


def install_packages(
    entries: Sequence[WheelHash], folder: Path, before_change: Callable[[], None]
) -> None:
    """Install wheels from a folder without their dependencies.

    Args:
        entries: Name, version and hash of each wheel.
        folder: Folder of the wheels, into which a file for pip is written.
        before_change: Called once all is checked, right before pip runs.

    Raises:
        ClusterError: A package is installed already, a wheel is missing or has a wrong hash, or pip
            failed.
    """
    present = installed_packages(entry.name for entry in entries)
    if present:
        names = [f"{name} {package.version}" for name, package in sorted(present.items())]
        raise ClusterError(
            f"packages to add must not be on the node yet: got {names}; remove them from the "
            "image, the libraries or the other init script, or make a wheelhouse with --constraints"
        )
    if not os.access(_SITE_PACKAGES, os.W_OK):
        raise ClusterError(f"{_SITE_PACKAGES} must be writable: it is not; run the script as root")
    requirements_file = folder / REQUIREMENTS_FILE
    requirements_file.write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    before_change()
    _run_pip(
        *("install", "--no-index", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
        *("--find-links", str(folder), "--requirement", str(requirements_file)),
        *("--no-warn-script-location", "--root-user-action", "ignore"),
    )


def check_plugin() -> None:
    """Check in a new process that MLflow can load the plugins for "azureml://".

    Raises:
        ClusterError: A plugin cannot be loaded with the packages of this node.
    """
    try:
        _run(["-W", "ignore", "-c", _LOAD_PLUGIN], dict(os.environ))
    except ProgramError as err:
        log.warning("%s", err.stderr.strip())
        last_line = (err.stderr.strip() or "no output").splitlines()[-1]
        raise ClusterError(
            f"added packages must work: got {one_line(redact(last_line), 300)!r}; make the "
            "wheelhouse for this runtime, plain and ML apart"
        ) from err


def remove_packages(names: Iterable[str], wheels: Iterable[Path]) -> None:
    """Remove packages, and what an interrupted installation has left of them.

    Args:
        names: Names of the packages.
        wheels: Those wheels of the packages that the node could fetch.

    Raises:
        ClusterError: pip could not remove a package.
    """
    packages = installed_packages(names)
    # pip cannot remove a package without its list of files.
    complete = [name for name, package in packages.items() if package.files is not None]
    for name in packages.keys() - set(complete):
        shutil.rmtree(str(getattr(packages[name], "_path", "")), ignore_errors=True)
    if complete:
        log.info("removing %s", complete)
        _run_pip("uninstall", "--yes", "--root-user-action", "ignore", *complete)
    files = {file for wheel in wheels for file in _installed_files(wheel) if file.is_file()}
    for package in distributions() if files else ():
        files -= {Path(str(package.locate_file(file))) for file in package.files or ()}
    for file in files:
        file.unlink()
    for folder in sorted({parent for file in files for parent in file.parents}, reverse=True):
        is_inside = folder.is_relative_to(_SITE_PACKAGES) and folder != _SITE_PACKAGES
        if is_inside and not any(
            file.is_file() and file.suffix != ".pyc" for file in folder.rglob("*")
        ):
            shutil.rmtree(folder)


def _installed_files(wheel: Path) -> list[Path]:
    """Return the paths of a wheel's modules after installation; none of a broken wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [
                check_relative_path(entry.filename.rstrip("/")) for entry in archive.infolist()
            ]
    except (OSError, zipfile.BadZipFile, UnsafePathError):
        return []
    return [_SITE_PACKAGES / name for name in names if ".data/" not in name]


def _run_pip(command: str, *arguments: str) -> None:
    """Run a command of pip, without its variables and configuration files."""
    # Never in the home folder of root, which other users do not have on their path.
    environment = {**os.environ, "PIP_USER": "0"}
    try:
        _run(["-m", "pip", command, *_PIP_OPTIONS, *arguments], environment)
    except ProgramError as err:
        raise ClusterError(f"pip {command} must succeed: {pip_errors(err.stderr)}") from err


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    # In the group of the script: it ends this process, and all that it has started, in time.
    run_program(
        [sys.executable, "-P", *arguments],
        _TIMEOUT_S,
        environment=environment,
        has_own_group=False,
    )


def pip_errors(stderr: str) -> str:
    """Return the errors in pip's output, on one line and without credentials."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors, is_error = [], False
    for line in lines:
        # An error may go on over several lines.
        is_error = line.startswith("ERROR: ") or (
            is_error and not line.startswith(("WARNING", "DEPRECATION", "Traceback"))
        )
        errors += [line.removeprefix("ERROR: ")] if is_error else []
    return redact(" ".join(errors or lines[-1:] or ["no output"]))[:600]
