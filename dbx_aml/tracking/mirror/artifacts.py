"""Artifacts, copied from server to server through files on disk, so none is whole in memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow.exceptions import MlflowException

from dbx_aml._common.errors import UnsafePathError, is_not_found, is_outage
from dbx_aml._common.http import bound_client
from dbx_aml._common.paths import check_relative_path, resolve_inside
from dbx_aml._common.text import first_line
from dbx_aml.models.mlflow_client import list_all_artifacts, transfer_files

_FILES_PER_CALL = 100
_BYTES_PER_CALL = 64 * 2**20
# Each file of an outage takes the whole retry timeout, so the rest is not tried.
_MAX_OUTAGES = 3
# By path, the size in bytes; None for a server that does not tell the size.
FileSizes = dict[str, int | None]


def list_files(repository: Any, skipped_folders: tuple[str, ...] = ()) -> FileSizes:
    """Return every file below a repository's root with its size.

    Args:
        repository: Artifact repository.
        skipped_folders: Folders to leave out, each with a slash at its end.

    Raises:
        UnsafePathError: A file's path leads out of the root.
    """
    # Azure ML has one listing of everything; other repositories have one listing a folder, and
    # MLflow's own way through the folders does not end where a folder lies in itself.
    has_own_list = "_iter_artifacts_recursive" in vars(type(repository))
    files = (
        repository._iter_artifacts_recursive("")
        if has_own_list
        else list_all_artifacts(bound_client(repository).list_artifacts)
    )
    try:
        return {
            check_relative_path(info.path): info.file_size
            for info in files
            if not info.is_dir and not info.path.startswith(skipped_folders)
        }
    except MlflowException as error:
        # A run without artifacts may have no folder.
        if is_not_found(error):
            return {}
        raise


def different_files(
    source: Any, destination: Any, source_files: FileSizes, *, compares_content: bool
) -> dict[str, tuple[str, str | None]]:
    """Return the files of the source that the destination lacks or has otherwise.

    Args:
        source: Artifact repository of the source.
        destination: Artifact repository of the destination.
        source_files: Files of the source to compare, by their path.
        compares_content: Whether files of one size, or of unknown size, are compared by content.

    Returns:
        By path, the size or the content's hash on both sides as text; None for no file.
    """
    if not source_files:
        return {}
    existing_files = list_files(destination)
    differences: dict[str, tuple[str, str | None]] = {}
    for path, size in sorted(source_files.items()):
        if path not in existing_files:
            differences[path] = f"{size} bytes", None
            continue
        existing_size = existing_files[path]
        if None not in (size, existing_size) and size != existing_size:
            differences[path] = f"{size} bytes", f"{existing_size} bytes"
        elif compares_content:
            texts = _content_text(source, path), _content_text(destination, path)
            if texts[0] != texts[1]:
                differences[path] = texts
    return differences


def copy_files(
    source: Any,
    destination: Any,
    files: FileSizes,
    *,
    on_written: Callable[[int], None],
    compares_content: bool = False,
) -> list[str]:
    """Copy the files that a repository lacks or has otherwise; one bad file stops no other file.

    Args:
        source: Artifact repository of the source.
        destination: Artifact repository of the destination.
        files: Files of the source, by their path.
        on_written: Function that gets the number of bytes after each call.
        compares_content: Whether files of one size are compared by content.

    Returns:
        The files that could not be copied, each with the reason, one text a file.

    Raises:
        UnsafePathError: A path leads out of the folder of its copy.
        Exception: No file could be copied, because a server does not answer.
    """
    different = different_files(source, destination, files, compares_content=compares_content)
    errors: dict[str, Exception] = {}
    for paths in _paths_per_call({path: files[path] for path in different}):
        try:
            on_written(_copy(source, destination, paths))
            continue
        except UnsafePathError:
            raise
        except Exception as error:  # noqa: BLE001 - the repositories of MLflow raise anything
            if len(paths) == 1:
                errors[paths[0]] = error
                continue
        for path in paths:
            try:
                on_written(_copy(source, destination, [path]))
            except Exception as error:
                errors[path] = error
                if len(errors) == _MAX_OUTAGES and all(map(is_outage, errors.values())):
                    raise
    if errors and len(errors) == len(different) and all(map(is_outage, errors.values())):
        raise next(iter(errors.values()))
    return [
        f"file {path!r} must be copied: got {first_line(e)[:200]}" for path, e in errors.items()
    ]


def _copy(source: Any, destination: Any, paths: list[str]) -> int:
    """Copy files in one call; return their size."""
    with tempfile.TemporaryDirectory(prefix="dbx-aml-mirror-") as root:
        size = 0
        for path in paths:
            file = resolve_inside(root, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            transfer_files(partial(source._download_file, path, str(file)), Path(root))
            size += file.stat().st_size
        if len(paths) == 1:
            folder = str(PurePosixPath(paths[0]).parent)
            upload = partial(destination.log_artifact, str(file), None if folder == "." else folder)
        else:
            upload = partial(destination.log_artifacts, root, None)
        transfer_files(upload, Path(root))
        return size


def _paths_per_call(files: FileSizes) -> Iterator[list[str]]:
    """Yield the paths of each upload: a large file alone, small files together."""
    paths: list[str] = []
    free_bytes = _BYTES_PER_CALL
    for path in sorted(files):
        # A file of unknown size may be large.
        size = files[path]
        size = _BYTES_PER_CALL if size is None or size < 0 else size
        if paths and (len(paths) == _FILES_PER_CALL or size > free_bytes):
            yield paths
            paths, free_bytes = [], _BYTES_PER_CALL
        paths.append(path)
        free_bytes -= size
    if paths:
        yield paths


def _content_text(repository: Any, path: str) -> str:
    """Return the SHA-256 of a file's content, or why it cannot be read."""
    with tempfile.TemporaryDirectory(prefix="dbx-aml-mirror-") as root:
        file = Path(root, "file")
        try:
            transfer_files(partial(repository._download_file, path, str(file)), file.parent)
        except Exception as error:
            if is_outage(error):
                raise
            return f"unreadable: {first_line(error)[:200]}"
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
