"""A blob: its transfer, failures of the account that are retried, errors without a signature."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient
from mlflow.exceptions import MlflowException

from dbx_aml._common.errors import TemporaryError
from dbx_aml._common.fork_gate import is_background
from dbx_aml._common.http import Transfer
from dbx_aml._common.retry import parse_retry_after
from dbx_aml._common.text import one_line
from dbx_aml.link.clouds import check_storage_url, cloud_and_region
from dbx_aml.tracking.azureml.mlflow_calls import mlflow_errors, with_retries

_MIB = 2**20
_BLOCK_BYTES = 4 * _MIB
_CONNECTIONS = 4
# A new role assignment or network rule is refused for a while; then it works.
_MAX_REFUSALS = 3


def open_blob(uri: str, service_url: str) -> BlobClient:
    """Return a client of a blob that neither retries nor follows a redirect by itself.

    Args:
        uri: URI of the blob, as the service sent it.
        service_url: URL of the service, for example "https://westeurope.api.azureml.ms".

    Raises:
        MlflowException: The URI is not of the cloud's storage; nothing was sent there.
    """
    with mlflow_errors():
        check_storage_url(uri, cloud_and_region(service_url.partition("://")[2])[0])
    return BlobClient.from_blob_url(
        uri,
        retry_total=0,
        permit_redirects=False,
        max_single_put_size=16 * _MIB,
        max_block_size=8 * _MIB,
        # Each block that has come shows that the transfer goes on.
        max_single_get_size=_BLOCK_BYTES,
        max_chunk_get_size=_BLOCK_BYTES,
        connection_timeout=30,
        read_timeout=120,
    )


def upload_blob(blob: BlobClient, file: Path, transfer: Transfer) -> bool:
    """Upload the content of a file; return True."""
    size = file.stat().st_size
    transfer.expect(size)

    def upload(connections: int) -> None:
        # A stream of its own for each attempt: an attempt that was left may still read.
        with file.open("rb") as stream:
            blob.upload_blob(stream, length=size, max_concurrency=connections)

    _transfer_in_threads(upload)
    return True


def download_blob(blob: BlobClient, file: Path, transfer: Transfer) -> bool:
    """Write the content of a blob to a file; return True."""

    def allow_time(received: int, _size: int | None) -> None:
        transfer.expect(received + _CONNECTIONS * _BLOCK_BYTES)

    def download(connections: int) -> None:
        transfer.expect(_BLOCK_BYTES)
        downloader = blob.download_blob(max_concurrency=connections, progress_hook=allow_time)
        allow_time(_BLOCK_BYTES, None)
        with file.open("wb") as stream:
            downloader.readinto(stream)

    _transfer_in_threads(download)
    return True


def _transfer_in_threads(transfer: Callable[[int], None]) -> None:
    """Transfer a blob over several connections where a program may wait for their threads.

    The end of a program waits for the threads of Azure's client without a limit.

    Args:
        transfer: Function that transfers the blob over a number of connections.
    """
    if is_background():
        transfer(1)
        return
    try:
        transfer(_CONNECTIONS)
    except RuntimeError:
        # The interpreter is ending: no thread can start.
        transfer(1)


def has_content(blob: BlobClient, file: Path, transfer: Transfer) -> bool:
    """Tell whether a blob has the same content as a file."""
    received = 0
    transfer.expect(_BLOCK_BYTES)
    with file.open("rb") as stream:
        for chunk in blob.download_blob().chunks():
            received += len(chunk)
            transfer.expect(received + _BLOCK_BYTES)
            if chunk != stream.read(len(chunk)):
                return False
        return not stream.read(1)


def call_blob(operation: str, call: Callable[[Transfer], Any]) -> Any:
    """Return the result of a call to the storage account; None where the blob does not exist.

    Args:
        operation: Name of the call in the error, for example "PUT model/MLmodel".
        call: Function that makes the call; it tells the transfer how many bytes to expect.

    Raises:
        ResourceExistsError: The blob exists already.
        MlflowException: The call failed until the end of the retry limit.
    """
    refusals = 0

    def attempt(_seconds_left: float) -> Any:
        nonlocal refusals
        retry_after_s = None
        try:
            transfer = Transfer()
            return transfer.run(lambda: call(transfer))
        except ResourceNotFoundError:
            return None
        except ResourceExistsError:
            raise
        except HttpResponseError as error:
            status = error.status_code or 0
            refusals += status < 500 and status not in (408, 429)
            code = getattr(error, "error_code", None) or error.reason
            problem = f"storage answered {status} {code}"
            headers = getattr(error.response, "headers", {})
            retry_after_s = parse_retry_after(headers.get("Retry-After"))
        except (AzureError, OSError) as error:
            problem = f"{type(error).__name__}: {one_line(error)}"
        # Outside of the handlers: a caught error may show the signature that opens the blob.
        if refusals >= _MAX_REFUSALS:
            raise MlflowException(f"{operation} failed: {problem}")
        raise TemporaryError(problem, retry_after_s=retry_after_s)

    return with_retries(attempt, TemporaryError, operation)
