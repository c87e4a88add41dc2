"""A blob: which failures of a storage account are retried, and an error without a signature."""

import os
import re
from collections.abc import Callable
from typing import Any, BinaryIO

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from dbx_aml._common.errors import TemporaryError, UntrustedHostError
from dbx_aml._common.retry import parse_retry_after
from dbx_aml.link.clouds import check_storage_url, cloud_and_region
from dbx_aml.tracking.azureml.mlflow_calls import with_retries

_MIB = 2**20
# A new role assignment or network rule is refused for a while; then it works.
_MAX_REFUSALS = 3
_SIGNATURE = re.compile(r"\?[^\s'\")]+")


def open_blob(uri: str, service_url: str) -> BlobClient:
    """Return a client of a blob that neither retries nor follows a redirect by itself.

    Args:
        uri: URI of the blob, as the service sent it.
        service_url: URL of the service, for example "https://westeurope.api.azureml.ms".

    Raises:
        MlflowException: The URI is not of the cloud's storage; nothing was sent there.
    """
    try:
        check_storage_url(uri, cloud_and_region(service_url.partition("://")[2])[0])
    except UntrustedHostError as error:
        raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from error
    return BlobClient.from_blob_url(
        uri,
        retry_total=0,
        permit_redirects=False,
        max_single_put_size=16 * _MIB,
        max_block_size=8 * _MIB,
        connection_timeout=30,
        read_timeout=120,
    )


def upload_blob(blob: BlobClient, stream: BinaryIO, size: int) -> bool:
    """Upload the content of a file from its start; return True."""
    stream.seek(0, os.SEEK_SET)
    blob.upload_blob(stream, length=size, max_concurrency=4)
    return True


def call_blob(operation: str, call: Callable[[], Any]) -> Any:
    """Return the result of a call to the storage account; None where the blob does not exist.

    Args:
        operation: Name of the call in the error, for example "PUT model/MLmodel".
        call: Function that makes the call.

    Raises:
        ResourceExistsError: The blob exists already.
        MlflowException: The call failed until the end of the retry limit.
    """
    refusals = 0

    def attempt(_seconds_left: float) -> Any:
        nonlocal refusals
        retry_after_s = None
        try:
            return call()
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
            problem = f"{type(error).__name__}: {_SIGNATURE.sub('?...', str(error))}"
        # Outside of the handlers: a caught error may show the signature that opens the blob.
        if refusals >= _MAX_REFUSALS:
            raise MlflowException(f"{operation} failed: {problem}")
        raise TemporaryError(problem, retry_after_s=retry_after_s)

    return with_retries(attempt, TemporaryError, operation)
