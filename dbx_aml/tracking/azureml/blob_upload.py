"""One blob: what is tried again when a storage account refuses, and what an error may show."""

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

from dbx_aml.tracking.azureml.mlflow_calls import Attempts

_MIB = 2**20
# Refusals of a storage account that end by themselves: a role or a network rule that is new.
_TRIES_WHEN_REFUSED = 3
_SIGNATURE = re.compile(r"\?[^\s'\")]+")


def open_blob(uri: str) -> BlobClient:
    """Return a client of the blob, without retries of its own."""
    return BlobClient.from_blob_url(
        uri,
        retry_total=0,
        max_single_put_size=16 * _MIB,
        max_block_size=8 * _MIB,
        connection_timeout=30,
        read_timeout=120,
    )


def upload(blob: BlobClient, stream: BinaryIO, size: int) -> bool:
    """Upload a file's content from its start."""
    stream.seek(0, os.SEEK_SET)
    blob.upload_blob(stream, length=size, max_concurrency=4)
    return True


def tried(what: str, attempt: Callable[[], Any]) -> Any:
    """Return what an attempt at a blob returns; None where there is no blob.

    Raises:
        ResourceExistsError: The blob is there already.
        MlflowException: It failed until the end of the bound.
    """
    attempts = Attempts(what)
    refused = 0
    while True:
        try:
            return attempt()
        except ResourceNotFoundError:
            return None
        except ResourceExistsError:
            raise
        except HttpResponseError as error:
            status = error.status_code or 0
            refused += status < 500 and status not in (408, 429)
            code = getattr(error, "error_code", None) or error.reason
            problem = f"storage answered {status} {code}"
            after = getattr(error.response, "headers", {}).get("Retry-After")
        except (AzureError, OSError) as error:
            problem, after = f"{type(error).__name__}: {_SIGNATURE.sub('?...', str(error))}", None
        # Outside of the handlers: what they caught may show the signature that opens the blob.
        if refused >= _TRIES_WHEN_REFUSED:
            raise MlflowException(f"{what} failed: {problem}")
        attempts.wait(problem, float(after) if after and after.isdigit() else None)
