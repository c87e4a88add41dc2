"""Upload the files of a folder to Azure ML as a version of code, once for each content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from azure.core.exceptions import ResourceExistsError
from mlflow.exceptions import MlflowException

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import ServiceError
from dbx_aml._common.http import Transfer
from dbx_aml._common.paths import check_relative_path, sha256_of_files
from dbx_aml._common.text import first_line
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.tracking.azureml.blob_upload import call_blob, open_blob, upload_blob

# A signed URL ends after a time; a large folder on a slow network may need some.
_MAX_SIGNED_URLS = 5


def upload_code(
    resources: AmlResources,
    files: Mapping[str, Path],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Return the ARM id of a code version with these files, which is made if it is missing.

    Args:
        resources: Workspace.
        files: File on this machine by its path in the code.
        report: Function that is called with the number of uploaded files, and of all files.

    Raises:
        ServiceError: The storage account refuses the files.

    Source:
        Azure REST API, "Code Versions - Create Or Get Start Pending Upload", version 2025-12-01;
        seen 2026-11.
    """
    path = f"/codes/{sha256_of_files(files)[:32]}/versions/1"
    if resources.find(path) is None:
        blob_uri = _upload_files(resources, path, files, report)
        code = {"codeUri": blob_uri, "isAnonymous": True, "tags": creation_tags()}
        resources.put(path, {"properties": code})
    return resources.arm_id(path)


def _upload_files(
    resources: AmlResources,
    path: str,
    files: Mapping[str, Path],
    report: Callable[[int, int], None],
) -> str:
    """Return the URI of the uploaded files; a signed URL that has ended is replaced."""
    missing = list(files)
    for attempt in range(1, _MAX_SIGNED_URLS + 1):
        upload = resources.client.post(
            resources.url(f"{path}/startPendingUpload"),
            {"pendingUploadType": "TemporaryBlobReference"},
        )
        reference = upload.get("blobReferenceForConsumption") or {}
        signed_url = str((reference.get("credential") or {}).get("sasUri") or "")
        left = len(missing)
        try:
            while missing:
                report(len(files) - len(missing), len(files))
                _put_file(signed_url, missing[0], files[missing[0]], resources)
                del missing[0]
        except MlflowException as err:
            has_ended = "storage answered 403" in str(err) and len(missing) < left
            if not has_ended or attempt == _MAX_SIGNED_URLS:
                raise ServiceError(
                    f"file {missing[0]!r} must be uploaded: got {first_line(err)}"
                ) from err
            continue
        break
    return str(reference.get("blobUri") or "")


def _put_file(signed_url: str, name: str, file: Path, resources: AmlResources) -> None:
    """Upload a file into the container of a signed URL, in blocks where it is large."""
    parts = urlsplit(signed_url)
    blob_path = f"{parts.path}/{quote(check_relative_path(name))}"
    blob_url = urlunsplit(parts._replace(path=blob_path))
    service_url = f"https://{resources.tracking_uri.partition('://')[2]}"

    def upload(transfer: Transfer) -> bool:
        return upload_blob(open_blob(blob_url, service_url), file, transfer)

    # The version is named by its content: what an earlier call has uploaded is the same file.
    with suppress(ResourceExistsError):
        call_blob(f"PUT {name}", upload)
