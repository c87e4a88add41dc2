"""The MLflow client of this package's own calls, and lists of servers that end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dbx_aml._common.deadline import call_within
from dbx_aml._common.errors import ArgumentError, LinkError, ServiceError
from dbx_aml._common.http import (
    MAX_PAGES,
    TRANSFER_START_S,
    Transfer,
    bound_client,
    paged,
    send_within,
)
from dbx_aml._common.paths import check_relative_path
from dbx_aml._common.redact import redact, redact_uri
from dbx_aml._common.retry import retry_timeout_s, service_policy
from dbx_aml._common.text import first_line, one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo, Metric

Result = TypeVar("Result")

_POINTS_PER_PAGE = 25_000
_HOST_TIMEOUT_S = 5.0
_MAX_ERROR_CHARS = 240


def create_client(tracking_uri: str | None = None, registry_uri: str | None = None) -> MlflowClient:
    """Return a client whose requests end after DBX_AML_RETRY_TIMEOUT_S seconds (120 unless set).

    MLflow's own retries wait for minutes, and as long as a server asks.

    Args:
        tracking_uri: MLflow tracking URI; by default MLflow's own.
        registry_uri: MLflow registry URI; by default the one that belongs to the tracking URI.

    Raises:
        ArgumentError: MLflow knows no server with the scheme of the tracking URI.
    """
    from mlflow import MlflowClient
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

    try:
        return bound_client(MlflowClient(tracking_uri, registry_uri))
    except UnsupportedModelRegistryStoreURIException as err:
        raise ArgumentError(
            "tracking URI must have a scheme that MLflow knows: got "
            f"{redact_uri(tracking_uri or '')!r}; use for example 'databricks' or "
            "'https://mlflow.contoso.com'"
        ) from err


def databricks_host(uri: str | None, timeout_s: float = _HOST_TIMEOUT_S) -> str:
    """Return the URL of the Databricks workspace that MLflow calls for a URI.

    Args:
        uri: "databricks", "databricks-uc", or either with "://<profile>".
        timeout_s: Longest time: MLflow may ask the host for its kind.

    Raises:
        LinkError: Databricks is not configured on this machine, or the host does not answer.
    """
    from mlflow.utils.databricks_utils import get_databricks_host_creds

    # The import takes seconds that are not the host's.
    with suppress(ImportError):
        import_module("databricks.sdk")
    try:
        host_creds = call_within(lambda: get_databricks_host_creds(uri), timeout_s)
    except TimeoutError:
        problem = f"no answer from its host in {timeout_s:.1f} s"
    except Exception as err:  # noqa: BLE001 - MLflow and databricks-sdk raise many classes
        problem = redact(one_line(err, _MAX_ERROR_CHARS))
    else:
        return str(host_creds.host)
    raise LinkError(
        f"Databricks must be set up for MLflow's {uri!r}: got {problem}; compare DATABRICKS_HOST "
        "and DATABRICKS_TOKEN, or set another MLflow URI as databricks_tracking_uri"
    )


def get_metric_history(client: MlflowClient, run_id: str, key: str) -> list[Metric]:
    """Return all points of a metric; MLflow's own function would read endless pages.

    Raises:
        ServiceError: The server's pages do not end.
    """
    store = bound_client(client._tracking_client.store)
    read_history = partial(store.get_metric_history, run_id, key, _POINTS_PER_PAGE)
    return list(read_pages(read_history, "metrics/get-history"))


def read_pages(fetch_page: Callable[[str | None], Any], operation: str) -> Iterator[Any]:
    """Yield the items of all pages of an MLflow search.

    Args:
        fetch_page: Call that returns MLflow's `PagedList` for a page token; None is the first page.
        operation: Name of the call for error messages, for example "runs/search".

    Raises:
        ServiceError: The server's pages do not end.
    """

    def fetch_items(token: str | None) -> tuple[Any, str | None]:
        page = fetch_page(token)
        return page, page.token

    return paged(fetch_items, operation)


def list_all_artifacts(
    list_folder: Callable[[str | None], list[FileInfo]], folder: str | None = None
) -> Iterator[FileInfo]:
    """Yield the files of a folder and of all folders in it; each request ends in time.

    Args:
        list_folder: Function that lists one folder; None is the root of the artifacts.
        folder: Folder to start at; by default the root.

    Raises:
        ServiceError: A folder lies in itself, or there are more folders than could be: the list
            would never end. Or MLflow lacks the package of the storage.
        UnsafePathError: A path leads out of the root.
    """
    folders: list[str | None] = [folder]
    known_folders = {folder}
    while folders:
        try:
            with send_within(service_policy(), is_idempotent=True):
                infos = list(list_folder(folders.pop()))
        except ImportError as err:
            raise ServiceError(
                f"package of the artifacts' storage must be installed: got {first_line(err)!r}; "
                "install it beside MLflow"
            ) from err
        for info in infos:
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


def transfer_files(call: Callable[[], Result], folder: Path) -> Result:
    """Return the result of a call of MLflow that downloads to a folder, or uploads what is in it.

    MLflow's repositories use many clients, whose timeouts count from packet to packet. Whatever
    they do, the files must come or go at the lowest rate.

    Args:
        call: Function without arguments.
        folder: Folder of the files.

    Raises:
        TimeoutError: The transfer is slower than the lowest rate.
    """
    start_s = max(TRANSFER_START_S, retry_timeout_s())
    return Transfer(start_s=start_s, measure_size=lambda: size_of_folder(folder)).run(call)


def size_of_folder(folder: Path) -> int:
    """Return the bytes of all files in a folder, at any depth."""
    size = 0
    for file in folder.rglob("*"):
        # MLflow renames and deletes its temporary files on the way.
        with suppress(OSError):
            size += file.stat().st_size
    return size
