"""Download the files of a model so that a killed download goes on where it stopped.

Each file is written beside its final name and renamed when it is whole. The folder belongs to the
source version, so a second call finds the files of the first one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from dbx_aml._common.deadline import start_in_thread
from dbx_aml._common.errors import RegistryError
from dbx_aml._common.paths import resolve_inside
from dbx_aml.models.mlflow_client import list_all_artifacts, size_of_folder, transfer_files
from dbx_aml.models.model_files import ModelLocation

if TYPE_CHECKING:
    from mlflow.entities import FileInfo

# Function that takes the name of a step, and the bytes that are done and that are expected.
ReportBytes = Callable[[str, int, int], None]

_PARTIAL = ".partial"
_POLL_S = 0.5


@dataclass(frozen=True)
class DownloadedModel:
    """The files of a model on this machine.

    Args:
        folder: Folder of the MLmodel file.
        size: Bytes of all files.
    """

    folder: Path
    size: int


@contextmanager
def locked_folder(key: str) -> Iterator[Path]:
    """Yield a folder of this user for a key, which no other process has at the same time.

    The folder outlives a killed process. The caller deletes the folder at the end of the copy.

    Args:
        key: Text that names the source, for example registry, model and version.
    """
    root = Path(tempfile.gettempdir()) / f"dbx_aml_copies_{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    status = root.lstat()
    if root.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise RegistryError(
            f"folder for copied models must be this user's alone: got {str(root)!r}; "
            "delete it, or set TMPDIR to another folder"
        )
    folder = root / hashlib.sha256(key.encode()).hexdigest()[:24]
    with folder.with_suffix(".lock").open("w") as lock:
        # The second of two processes waits, and then finds the copy of the first.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def download_model(location: ModelLocation, folder: Path, report: ReportBytes) -> DownloadedModel:
    """Download the files that are not there yet; files on this machine stay where they are.

    Args:
        location: Model on its server.
        folder: Folder that may have files of a stopped download.
        report: Function that is called with the progress.

    Raises:
        RegistryError: The model has no files, or a file has another size than its server says.
        TimeoutError: The transfer is slower than the lowest rate.
    """
    local_folder = _local_folder(location)
    if local_folder is not None:
        return DownloadedModel(local_folder, size_of_folder(local_folder))
    repository = file_repository(location)
    infos = list(list_all_artifacts(repository.list_artifacts, location.path or None))
    expected_size = sum(info.file_size or 0 for info in infos)
    missing = [info for info in infos if not _is_complete(resolve_inside(folder, info.path), info)]
    folder.mkdir(parents=True, exist_ok=True)

    def download_missing() -> None:
        futures = [
            repository.thread_pool.submit(_download_file, repository, info, folder)
            for info in missing
        ]
        for future in futures:
            future.result()

    download = start_in_thread(lambda: transfer_files(download_missing, folder))
    while True:
        try:
            download.result(_POLL_S)
            break
        except FutureTimeoutError:
            if download.done():
                raise
            report("Downloading", size_of_folder(folder), expected_size)
    report("Downloading", expected_size, expected_size)
    root = folder / PurePosixPath(location.path) if location.path else folder
    if not (root / "MLmodel").is_file():
        raise RegistryError(
            f"source must be a model with an MLmodel file: got {str(location.uri)!r} with "
            f"{len(infos)} files and none of that name"
        )
    return DownloadedModel(root, size_of_folder(root))


def _download_file(repository: Any, info: FileInfo, folder: Path) -> None:
    path = resolve_inside(folder, info.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}{_PARTIAL}")
    repository._download_file(info.path, str(partial))
    if info.file_size is not None and partial.stat().st_size != info.file_size:
        raise RegistryError(
            f"file {info.path!r} must have {info.file_size:,} bytes: got "
            f"{partial.stat().st_size:,}; run the copy again"
        )
    partial.replace(path)


def _is_complete(path: Path, info: FileInfo) -> bool:
    if not path.is_file():
        return False
    return info.file_size is None or path.stat().st_size == info.file_size


def _local_folder(location: ModelLocation) -> Path | None:
    """Return the folder of a model whose files are on this machine already."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    if not isinstance(location.repository, LocalArtifactRepository):
        return None
    url = urlsplit(str(location.repository.artifact_uri))
    root = Path(unquote(url.path)) if url.scheme == "file" else Path(str(url.path))
    folder = resolve_inside(root, location.path) if location.path else root
    return folder if (folder / "MLmodel").is_file() else None


def file_repository(location: ModelLocation) -> Any:
    """Return a repository that downloads single files.

    Unity Catalog's repository asks for new credentials at each call; the repository that it makes
    keeps them.
    """
    find_repository = getattr(location.repository, "_get_artifact_repo", None)
    return find_repository() if find_repository else location.repository
