"""The MLflow client of this package's own calls, and lists of servers that end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from dbx_aml._common.errors import ServiceError
from dbx_aml._common.http import MAX_PAGES, bound_client, paged
from dbx_aml._common.paths import check_relative_path
from dbx_aml._common.text import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo, Metric

_POINTS_PER_PAGE = 25_000


def create_client(tracking_uri: str | None = None, registry_uri: str | None = None) -> MlflowClient:
    """Return a client whose requests end after DBX_AML_RETRY_TIMEOUT_S seconds (120 unless set).

    MLflow's own retries wait for minutes, and as long as a server asks.

    Args:
        tracking_uri: MLflow tracking URI; by default MLflow's own.
        registry_uri: MLflow registry URI; by default the one that belongs to the tracking URI.
    """
    from mlflow import MlflowClient

    return bound_client(MlflowClient(tracking_uri, registry_uri))


def get_metric_history(client: MlflowClient, run_id: str, key: str) -> list[Metric]:
    """Return all points of a metric; MLflow's own function would read endless pages.

    Raises:
        ServiceError: The server's pages do not end.
    """
    store = bound_client(client._tracking_client.store)

    def fetch_page(token: str | None) -> tuple[list[Metric], str | None]:
        page = store.get_metric_history(run_id, key, _POINTS_PER_PAGE, token)
        return page, page.token

    return list(paged(fetch_page, "metrics/get-history"))


def list_all_artifacts(
    list_folder: Callable[[str | None], list[FileInfo]], folder: str | None = None
) -> Iterator[FileInfo]:
    """Yield the files of a folder and of all folders in it.

    Args:
        list_folder: Function that lists one folder; None is the root of the artifacts.
        folder: Folder to start at; by default the root.

    Raises:
        ServiceError: A folder lies in itself, or there are more folders than could be: the list
            would never end.
        UnsafePathError: A path leads out of the root.
    """
    folders: list[str | None] = [folder]
    known_folders = {folder}
    while folders:
        for info in list_folder(folders.pop()):
            check_relative_path(info.path)
            if not info.is_dir:
                yield info
                continue
            if info.path in known_folders or len(known_folders) > MAX_PAGES:
                raise ServiceError(
                    f"folders of artifacts must end: got {one_line(info.path, 60)!r} after "
                    f"{len(known_folders):,} folders; report it to the owner of the service"
                )
            known_folders.add(info.path)
            folders.append(info.path)
