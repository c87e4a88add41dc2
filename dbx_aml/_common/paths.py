"""Files: written whole, kept inside their folder, identified by their content."""

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from dbx_aml._common.errors import UnsafePathError
from dbx_aml._common.text import one_line

_DRIVE = re.compile(r"[A-Za-z]:")
# A backslash, control characters, and halves of characters, which no file name and no URL can hold.
_UNSAFE_CHARACTER = re.compile(r"[\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Characters of a refused path in its error.
_MAX_SHOWN = 300


def write_atomically(file: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a file so that each reader sees the old content or the new one, never a part.

    Args:
        file: Path of the file; its folder is created.
        content: Whole content; text is written as UTF-8.
        mode: Permissions of the file. By default every user of the machine may read it.

    Raises:
        OSError: The folder or the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode("utf-8") if isinstance(content, str) else content)
        Path(draft).chmod(mode)
        Path(draft).replace(file)
    finally:
        Path(draft).unlink(missing_ok=True)


def check_relative_path(name: Any) -> str:
    """Return a relative path from elsewhere if it stays below any folder that it is joined to.

    Everything from another service, a record, a listing or a wheel passes this check before it
    becomes part of a path or of a request: clients of HTTP and of files fold "..".

    Args:
        name: Path with "/" between folders, for example "model/MLmodel".

    Raises:
        UnsafePathError: The path is empty or absolute, or has "..", a drive, a backslash or a
            control character.
    """
    path = PurePosixPath(name if isinstance(name, str) else "")
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or _DRIVE.match(name)
        or _UNSAFE_CHARACTER.search(name)
    ):
        raise _unsafe_path(name)
    return str(name)


def resolve_inside(root: str | Path, name: str) -> Path:
    """Return the path on this machine of a file below a folder, with all links resolved.

    Args:
        root: Folder that the file belongs in.
        name: Relative path from elsewhere, for example "model/MLmodel".

    Raises:
        UnsafePathError: The name leads out of the folder, by itself (see `check_relative_path`) or
            through a symbolic link.
    """
    folder = Path(root).resolve()
    path = folder / check_relative_path(name)
    try:
        path = path.resolve()
    except (OSError, RuntimeError) as err:
        # Links that lead to each other.
        raise _unsafe_path(name) from err
    if path == folder or not path.is_relative_to(folder):
        raise _unsafe_path(name)
    return path


def join_inside(root: str, name: str) -> str:
    """Return the path in another service of a file below a folder.

    Args:
        root: Absolute path of the folder, for example "/Volumes/main/ml/files".
        name: Relative path from elsewhere, for example "wheelhouse/a-1-py3-none-any.whl".

    Raises:
        UnsafePathError: The name leads out of the folder, see `check_relative_path`.
    """
    return f"{root.rstrip('/')}/{check_relative_path(name)}"


def quote_segment(name: str) -> str:
    """Return a name from elsewhere as one segment of a URL's path.

    Args:
        name: Name that is no path, for example the id of a run.

    Raises:
        UnsafePathError: The name has "/", or is none that `check_relative_path` takes.
    """
    if "/" in check_relative_path(name):
        raise _unsafe_path(name)
    return quote(name, safe="")


def _unsafe_path(name: object) -> UnsafePathError:
    return UnsafePathError(
        f"path must stay inside its folder: got {one_line(repr(name), _MAX_SHOWN)}; "
        "report it to the owner of the file or service that has it"
    )


def sha256_of_file(file: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_folder(folder: Path, *, skipped_folder: str | None = None) -> str:
    """Return one SHA-256 over the names and contents of all files in a folder, at any depth.

    Args:
        folder: Folder.
        skipped_folder: Name of the folders inside it that are left out.
    """
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    return sha256_of_files(
        {name: file for name, file in files.items() if skipped_folder not in name.split("/")}
    )


def size_of_folder(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def sha256_of_files(files: Mapping[str, Path]) -> str:
    """Return one SHA-256 over the names and contents of files.

    Args:
        files: File on this machine by its name, for example {"model/MLmodel": Path("MLmodel")}.
    """
    digest = hashlib.sha256()
    # In the order of the paths: "a/b" comes before "a-b".
    for name in sorted(files, key=lambda name: name.split("/")):
        digest.update(f"{name}\0{sha256_of_file(files[name])}\n".encode())
    return digest.hexdigest()
