"""Files: written whole, kept inside their folder, identified by their content."""

import hashlib
import os
import tempfile
from pathlib import Path, PurePosixPath

from dbx_aml._common.errors import UnsafePathError


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


def resolve_inside(root: str | Path, relative_name: str) -> Path:
    """Return the path of a file below a folder, for a name that another service sent.

    Args:
        root: Folder that the file belongs in.
        relative_name: Name with "/" between folders, for example "model/MLmodel".

    Raises:
        UnsafePathError: The name is absolute or empty, or it leads out of the folder, directly or
            through a symbolic link.
    """
    name = PurePosixPath(relative_name)
    folder = Path(root).resolve()
    if not name.is_absolute() and "\0" not in relative_name:
        path = folder.joinpath(name).resolve()
        if path != folder and path.is_relative_to(folder):
            return path
    raise UnsafePathError(
        f"path must stay inside its folder: got {relative_name!r}; "
        "report it to the owner of the service"
    )


def sha256_of_file(file: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """Return one SHA-256 over the names and contents of all files in a folder, at any depth."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        digest.update(f"{name}\0{sha256_of_file(file)}\n".encode())
    return digest.hexdigest()
