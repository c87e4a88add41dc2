"""Artifacts, from server to server by way of files on disk: never one whole in memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow.exceptions import MlflowException

from dbx_aml.tracking.mirror.errors import is_missing

_FILES_AT_ONCE = 100
_BYTES_AT_ONCE = 64 * 2**20
_CHUNK = 2**20
# By path, the size in bytes; None where the server does not say.
Sizes = dict[str, int | None]


def sizes(repository: Any) -> Sizes:
    """Return every file below a repository's root."""
    # One listing where there is a way, for example of Azure ML; else one of each folder.
    walk = getattr(repository, "_iter_artifacts_recursive", None) or (
        lambda path: _walk(repository, path)
    )
    try:
        return {info.path: info.file_size for info in walk("") if not info.is_dir}
    except MlflowException as error:
        # A run to which nothing was logged may have no folder yet.
        if is_missing(error):
            return {}
        raise


def _walk(repository: Any, path: str) -> Iterator[Any]:
    for info in repository.list_artifacts(path or None):
        if info.is_dir:
            yield from _walk(repository, info.path)
        else:
            yield info


def missing(wanted: Sizes, has: Sizes) -> Sizes:
    """Return the files that are not there, or not as long."""
    return {path: size for path, size in wanted.items() if not _is_there(path, size, has)}


def _is_there(path: str, size: int | None, has: Sizes) -> bool:
    return path in has and (size is None or has[path] is None or has[path] == size)


def copy(
    src: Any, dst: Any, files: Sizes, *, folder: str = "", wrote: Callable[[int], None]
) -> None:
    """Copy files from one repository to another.

    Args:
        src: Repository of the source.
        dst: Repository of the destination.
        files: Which, by their paths in the source.
        folder: Where they go below the destination's root.
        wrote: Called with the number of bytes after each call.
    """
    for batch in _batches(files):
        with tempfile.TemporaryDirectory(prefix="dbx-aml-mirror-") as root:
            size = 0
            for path in batch:
                local = Path(root, path)
                local.parent.mkdir(parents=True, exist_ok=True)
                src._download_file(path, str(local))
                size += local.stat().st_size
            if len(batch) == 1:
                inside = "/".join(filter(None, [folder, _folder_of(batch[0])]))
                dst.log_artifact(str(Path(root, batch[0])), inside or None)
            else:
                dst.log_artifacts(root, folder or None)
            wrote(size)


def _folder_of(path: str) -> str:
    folder = str(PurePosixPath(path).parent)
    return "" if folder == "." else folder


def _batches(files: Sizes) -> Iterator[list[str]]:
    """Yield paths that go together: a large file alone, small ones as many as a call takes."""
    batch: list[str] = []
    room = _BYTES_AT_ONCE
    for path in sorted(files):
        # One whose size nobody knows may be large.
        size = files[path]
        size = _BYTES_AT_ONCE if size is None or size < 0 else size
        if batch and (len(batch) == _FILES_AT_ONCE or size > room):
            yield batch
            batch, room = [], _BYTES_AT_ONCE
        batch.append(path)
        room -= size
    if batch:
        yield batch


def digest(repository: Any, path: str) -> str:
    """Return the SHA-256 of a file's content, by way of a file on disk."""
    found = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix="dbx-aml-mirror-") as root:
        local = Path(root, "file")
        repository._download_file(path, str(local))
        with local.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                found.update(chunk)
    return found.hexdigest()
