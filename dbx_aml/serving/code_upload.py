"""Upload the files of a folder to Azure ML as a version of code, once for each content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import ServiceError
from dbx_aml._common.http import send
from dbx_aml._common.paths import check_relative_path, sha256_of_files
from dbx_aml._common.retry import service_policy
from dbx_aml.azure.client import error_of_answer
from dbx_aml.link.clouds import check_storage_url
from dbx_aml.serving.aml_resources import AmlResources


def upload_code(resources: AmlResources, files: Mapping[str, Path]) -> str:
    """Return the ARM id of a code version with these files, which is made if it is missing.

    Args:
        resources: Workspace.
        files: File on this machine by its path in the code.

    Source:
        Azure REST API, "Code Versions - Create Or Get Start Pending Upload", version 2025-12-01;
        seen 2026-11.
    """
    path = f"/codes/{sha256_of_files(files)[:32]}/versions/1"
    if resources.find(path) is None:
        upload = resources.client.post(
            resources.url(f"{path}/startPendingUpload"),
            {"pendingUploadType": "TemporaryBlobReference"},
        )
        reference = upload.get("blobReferenceForConsumption") or {}
        signed_url = str((reference.get("credential") or {}).get("sasUri") or "")
        for name, file in files.items():
            _put_blob(signed_url, name, file.read_bytes(), resources.workspace.cloud)
        code = {"codeUri": reference.get("blobUri"), "isAnonymous": True, "tags": creation_tags()}
        resources.put(path, {"properties": code})
    return resources.arm_id(path)


def _put_blob(signed_url: str, name: str, content: bytes, cloud: str) -> None:
    """Upload a file into the container of a signed URL.

    Source:
        Azure REST API, "Put Blob"; seen 2026-11.
    """
    check_relative_path(name)
    check_storage_url(signed_url, cloud)
    parts = urlsplit(signed_url)
    url = urlunsplit(parts._replace(path=f"{parts.path}/{quote(name)}"))
    response = send(
        "PUT", url, service_policy(), headers={"x-ms-blob-type": "BlockBlob"}, data=content
    )
    if response.status_code >= 300:
        error = error_of_answer(response, parts.netloc)
        raise ServiceError(f"file {name!r} must be uploaded: {error}")
