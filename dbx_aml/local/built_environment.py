"""Environments that are installed on this machine: each once, in the user's cache folder."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from dbx_aml._common.errors import PackagesError, ProgramError
from dbx_aml._common.paths import size_of_folder, write_atomically
from dbx_aml._common.uv import run_uv, uv_error_line
from dbx_aml.local.pinned_environment import PinnedEnvironment, environments_folder

_BUILD_TIMEOUT_S = 1800.0
# The file that is written last into an environment. Its time is the one of the last use.
_PINS_FILE = "requirements.txt"
# Size of all environments beyond which a build removes those that were used longest ago.
_MOST_BYTES = 5 * 2**30
# Files of an interpreter that run no model.
_LEFT_OUT = ("__pycache__", "include", "share", "site-packages", "test")

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BuiltEnvironment:
    """An environment that is installed on this machine. It stays while this object lives.

    Args:
        environment: Its Python and packages.
        folder: Its folder.
        python_version: Full version of its Python, for example "3.12.7".
        python_folder: Folder that its Python is installed in, outside of the environment.
    """

    environment: PinnedEnvironment
    folder: Path
    python_version: str
    python_folder: Path
    _lock: IO[str] = field(repr=False, compare=False)

    @property
    def interpreter(self) -> Path:
        """Path of its Python program."""
        return self.folder / "bin" / "python"

    @property
    def packages_folder(self) -> Path:
        """Folder of its packages."""
        return self.folder / "lib" / f"python{self.environment.python}" / "site-packages"

    def pack(self) -> Path:
        """Return the archive for the nodes of a cluster, which is made the first time.

        It has the folder "packages". It also has the folder "python" if this process has another
        Python: the nodes have the Python of this process.

        Raises:
            PackagesError: The interpreter cannot be packed, or the folder cannot be written.
        """
        archive = self.folder / f"{self.environment.hash}.tar.gz"
        if archive.is_file():
            return archive
        folders = {"packages": self.packages_folder}
        if self.environment.python != minor_version(platform.python_version()):
            folders["python"] = self.python_folder
        if folders.get("python") in (Path("/usr"), Path("/usr/local")):
            raise PackagesError(
                f"Python of the model must be in a folder of its own: got {folders['python']}, "
                f"which the nodes cannot be sent; run: uv python install {self.environment.python}"
            )
        draft = archive.with_name(f"draft_{os.getpid()}")
        try:
            with tarfile.open(draft, "w:gz", compresslevel=1) as tar:
                for name, folder in folders.items():
                    left_out = _LEFT_OUT if name == "python" else _LEFT_OUT[:1]
                    tar.add(folder, name, filter=partial(_keep, left_out))
            draft.replace(archive)
        except OSError as err:
            raise _folder_error(archive.parent, err) from err
        finally:
            draft.unlink(missing_ok=True)
        return archive


def build_environment(
    environment: PinnedEnvironment, report: Report = lambda step: None
) -> BuiltEnvironment:
    """Install an environment into the cache folder, unless the folder has it already.

    The folder has the hash of the environment as its name. A second process waits for the first.
    Beyond 5 GB, the environments that were used longest ago are removed; none that is in use.

    Args:
        environment: Python and packages.
        report: Function that is called with the name of each step.

    Raises:
        PackagesError: There is no interpreter of this version of Python and none can be downloaded,
            or a package cannot be installed, or the cache folder cannot be written.
        ProgramError: uv is not installed.
    """
    folder = environments_folder() / environment.hash
    pins_file = folder / _PINS_FILE
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock_file(folder)
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not pins_file.is_file():
            # Another process may get the lock in between, and build.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not pins_file.is_file():
                shutil.rmtree(folder, ignore_errors=True)
                report("Building the environment")
                _install(environment, folder)
                write_atomically(pins_file, environment.requirements_file)
                _remove_oldest(folder)
            fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(pins_file)
        settings = (folder / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError as err:
        raise _folder_error(folder.parent, err) from err
    values = dict(line.split(" = ", 1) for line in settings.splitlines() if " = " in line)
    return BuiltEnvironment(
        environment=environment,
        folder=folder,
        python_version=values.get("version_info", environment.python),
        python_folder=Path(values.get("home", "")).parent,
        _lock=lock,
    )


def minor_version(python: str) -> str:
    """Return the first two numbers of a version of Python, for example "3.12" of "3.12.7"."""
    return ".".join(python.split(".")[:2])


def _lock_file(folder: Path) -> IO[str]:
    return folder.with_suffix(".lock").open("w")


def _remove_oldest(newest: Path) -> None:
    """Remove the environments that were used longest ago, beyond the largest size of all."""
    sizes = {
        file.parent: size_of_folder(file.parent)
        for file in sorted(
            environments_folder().glob(f"*/{_PINS_FILE}"), key=lambda file: file.stat().st_mtime
        )
    }
    size = sum(sizes.values())
    for folder in sizes:
        if size <= _MOST_BYTES:
            return
        if folder == newest:
            continue
        with _lock_file(folder) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            (folder / _PINS_FILE).unlink()
            shutil.rmtree(folder, ignore_errors=True)
        size -= sizes[folder]


def _keep(left_out: tuple[str, ...], item: tarfile.TarInfo) -> tarfile.TarInfo | None:
    is_left_out = item.name.endswith(".a") or not set(left_out).isdisjoint(item.name.split("/"))
    return None if is_left_out else item


def _folder_error(folder: Path, err: OSError) -> PackagesError:
    return PackagesError(
        f"cache folder must be writable: got '{folder}': {err.strerror}; "
        "set XDG_CACHE_HOME to another folder"
    )


def _install(environment: PinnedEnvironment, folder: Path) -> None:
    own_python = minor_version(platform.python_version())
    # uv looks for an interpreter of another version and else downloads one, unless
    # UV_PYTHON_DOWNLOADS forbids it.
    python = sys.executable if environment.python == own_python else environment.python
    try:
        run_uv(("venv", "--quiet", "--python", python, str(folder)), _BUILD_TIMEOUT_S)
    except ProgramError as err:
        if not err.stderr:
            raise
        raise PackagesError(
            f"Python of the model must be on this machine: got {environment.python}, and uv finds "
            f"and downloads none: {uv_error_line(err)!r}; install Python {environment.python}"
        ) from err
    arguments = ("pip", "install", "--quiet", "--python", str(folder), "--requirements", "-")
    try:
        run_uv(arguments, _BUILD_TIMEOUT_S, input_text=environment.requirements_file)
    except ProgramError as err:
        raise PackagesError(
            f"packages of the model must install on this machine: {uv_error_line(err)!r}; "
            "compare the index's settings"
        ) from err
