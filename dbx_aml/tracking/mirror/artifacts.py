"""Artifacts, copied from server to server through files on disk, so none is whole in memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow.exceptions import MlflowException

from dbx_aml._common.errors import is_not_found
from dbx_aml._common.http import bound_client
from dbx_aml._common.paths import check_relative_path, resolve_inside
from dbx_aml.models.mlflow_client import list_all_artifacts, transfer_files

_FILES_PER_CALL = 100
_BYTES_PER_CALL = 64 * 2**20
# By path, the size in bytes; None for a server that does not tell the size.
FileSizes = dict[str, int | None]


def list_files(repository: Any) -> FileSizes:
    """Return every file below a repository's root with its size.

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
        return {check_relative_path(info.path): info.file_size for info in files if not info.is_dir}
    except MlflowException as error:
        # A run without artifacts may have no folder.
        if is_not_found(error):
            return {}
        raise


def missing_files(source_files: FileSizes, existing_files: FileSizes) -> FileSizes:
    """Return the source files that the destination lacks, or has with another size."""
    return {
        path: size
        for path, size in source_files.items()
        if path not in existing_files
        or (size is not None and existing_files[path] not in (None, size))
    }


def copy_missing_files(
    source: Any,
    destination: Any,
    files: FileSizes,
    *,
    on_written: Callable[[int], None],
) -> list[str]:
    """Copy the files that a repository lacks.

    Args:
        source: Artifact repository of the source.
        destination: Artifact repository of the destination.
        files: Files of the source, by their path.
        on_written: Function that gets the number of bytes after each call.

    Returns:
        Paths that the destination lacks even after the copy.

    Raises:
        UnsafePathError: A path leads out of the folder of its copy.
    """
    if not files:
        return []
    missing = missing_files(files, list_files(destination))
    if not missing:
        return []
    for paths in _paths_per_call(missing):
        with tempfile.TemporaryDirectory(prefix="dbx-aml-mirror-") as root:
            size = 0
            for path in paths:
                file = resolve_inside(root, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                transfer_files(partial(source._download_file, path, str(file)), Path(root))
                size += file.stat().st_size
            if len(paths) == 1:
                folder = str(PurePosixPath(paths[0]).parent)
                upload = partial(
                    destination.log_artifact, str(file), None if folder == "." else folder
                )
            else:
                upload = partial(destination.log_artifacts, root, None)
            transfer_files(upload, Path(root))
            on_written(size)
    return sorted(missing_files(files, list_files(destination)))


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


def file_digest(repository: Any, path: str) -> str:
    """Return the SHA-256 of a file's content."""
    with tempfile.TemporaryDirectory(prefix="dbx-aml-mirror-") as root:
        file = Path(root, "file")
        transfer_files(partial(repository._download_file, path, str(file)), file.parent)
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
