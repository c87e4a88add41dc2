"""The artifacts of one run, or of one upload, as Azure ML keeps them: registered, then uploaded.

An entry that is listed may have no bytes: its upload failed, or is under way. Such an entry's path
can never be written again. So an entry counts as present only once its blob was seen, and what was
seen is remembered, for what is present never changes.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST
from mlflow.utils.rest_utils import MlflowHostCreds, verify_rest_response

from dbx_aml.tracking.azureml_http import Attempts, send

log = logging.getLogger(__name__)
# Of what the store keeps in a run that a run does not take.
OWN_FOLDER = "dbx_aml/"
_BATCH = 100
_THREADS = 8
_MIB = 2**20
# Refusals of a storage account that end by themselves: a role or a network rule that is new.
_TRIES_WHEN_REFUSED = 3
_SIGNATURE = re.compile(r"\?[^\s'\")]+")
_PARTS = re.compile(r"/experiments/([^/]+)/runs/([^/]+)/artifacts(?:/(.*))?$")


class ArtifactContainer:
    """One container of artifacts.

    Args:
        context: Service context of the workspace.
        endpoint: Path of the service's calls for this container.
    """

    def __init__(self, context: Any, endpoint: str) -> None:
        self._context = context
        self._endpoint = endpoint
        self._sizes: dict[str, int] = {}

    @classmethod
    def of_run(cls, context: Any, experiment: str, run_id: str) -> "ArtifactContainer":
        """Return the artifacts of a run, by its experiment's identifier or name."""
        scope = context._get_scope()
        rest = f"/experiments/{quote(experiment)}/runs/{quote(run_id)}/artifacts"
        return cls(context, f"/history/v1.0{scope}{rest}")

    @classmethod
    def of_upload(cls, context: Any, origin: str, container: str) -> "ArtifactContainer":
        """Return the artifacts of an upload without a run, for example of a registered model."""
        rest = f"/artifacts/{quote(origin)}/{quote(container)}"
        return cls(context, f"/artifact/v2.0{context._get_scope()}{rest}")

    def paths(self, folder: str = "") -> list[str]:
        """Return every path that is registered in a folder, present or not, at any depth."""
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        found: list[str] = []
        page: dict[str, str] = {}
        while True:
            answer = self._call("GET", "", params=page)
            found += [entry["path"] for entry in answer.get("value") or []]
            token = answer.get("continuationToken")
            if not token or not answer.get("nextLink"):
                return [path for path in found if path.startswith(prefix)]
            page = {"continuationToken": token}

    def size(self, path: str) -> int | None:
        """Return an artifact's size in bytes; None where its bytes, or even its entry, are not."""
        if path not in self._sizes:
            with self._blob(self._content_uri(path)) as blob:
                size = _tried(f"HEAD {path}", blob.get_blob_properties) if blob else None
            if size is None:
                return None
            self._sizes[path] = int(size.size)
        return self._sizes[path]

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Return the sizes of those that are present."""
        paths = list(paths)
        with ThreadPoolExecutor(_THREADS) as pool:
            found = zip(paths, pool.map(self.size, paths), strict=True)
            return {path: size for path, size in found if size is not None}

    def download(self, path: str, file: str | Path) -> None:
        """Write an artifact to a file.

        Raises:
            MlflowException: It is not there, or was registered and never uploaded.
        """
        uri = self._content_uri(path)
        target = Path(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._blob(uri) as blob:

            def read() -> bool:
                with target.open("wb") as stream:
                    blob.download_blob(max_concurrency=4).readinto(stream)
                return True

            if blob and _tried(f"GET {path}", read):
                return
        target.unlink(missing_ok=True)
        reason = "was registered but never uploaded" if uri else "does not exist"
        raise MlflowException(f"artifact {path!r} {reason}", RESOURCE_DOES_NOT_EXIST)

    def read(self, path: str, folder: Path) -> bytes:
        """Return the bytes of a small artifact, by way of a folder."""
        file = folder / hashlib.sha256(path.encode()).hexdigest()
        self.download(path, file)
        return file.read_bytes()

    def upload(self, files: dict[str, Path]) -> None:
        """Upload files to their paths; what is there already with the same content is fine.

        Args:
            files: By the path that each one gets.

        Raises:
            MlflowException: A path has other content, or lost its upload earlier, or no upload
                worked within the bound on tries. The other files are uploaded nevertheless.
        """
        paths = list(files)
        for first in range(0, len(paths), _BATCH):
            batch = paths[first : first + _BATCH]
            uris = self._register(batch)
            with ThreadPoolExecutor(_THREADS) as pool:
                done = [pool.submit(self._put, path, files[path], uris.get(path)) for path in batch]
            problems = [error for one in done if (error := one.exception())]
            if problems:
                raise problems[0]

    def upload_new(self, path: str, file: Path) -> bool:
        """Upload a file to a path of its own; False where the path is taken, by whatever it is."""
        uri = self._register([path]).get(path)
        if uri is None:
            return False
        self._put(path, file, uri)
        return True

    def _register(self, paths: list[str]) -> dict[str, str]:
        """Return where to upload each path to; those that are taken are left out."""
        body = {"paths": [{"path": path} for path in paths]}
        answer = self._call("POST", "/batch/metadata", json=body)
        found = answer.get("artifactContentInformation") or {}
        for path, problem in (answer.get("errors") or {}).items():
            message = str((problem.get("error") or {}).get("message"))
            if "already exists" not in message and "Conflict" not in message:
                raise MlflowException(f"artifact {path!r} was refused: {message}")
        return {path: content["contentUri"] for path, content in found.items()}

    def _put(self, path: str, file: Path, uri: str | None) -> None:
        size = file.stat().st_size
        if uri is None:
            self._expect_same(path, file)
            return
        with self._blob(uri) as blob, file.open("rb") as stream:
            try:
                if not _tried(f"PUT {path}", lambda: _upload(blob, stream, size)):
                    raise MlflowException(f"artifact {path!r} has no storage container to go to")
            except ResourceExistsError:
                # The answer to an earlier try was lost, or somebody else was faster.
                self._expect_same(path, file)
        self._sizes[path] = size

    def _expect_same(self, path: str, file: Path) -> None:
        size = self.size(path)
        if size is None:
            raise MlflowException(
                f"artifact {path!r} was registered by an upload that failed, and Azure ML takes no "
                "second one; log it under another name",
                RESOURCE_ALREADY_EXISTS,
            )
        if size != file.stat().st_size or not self._has_content(path, file):
            raise MlflowException(
                f"artifact {path!r} exists with other content, and Azure ML never changes an "
                "artifact; log it under another name",
                RESOURCE_ALREADY_EXISTS,
            )

    def _has_content(self, path: str, file: Path) -> bool:
        with self._blob(self._content_uri(path)) as blob, file.open("rb") as stream:

            def same() -> bool:
                stream.seek(0)
                chunks = blob.download_blob().chunks()
                return all(chunk == stream.read(len(chunk)) for chunk in chunks)

            return bool(_tried(f"GET {path}", same))

    def _content_uri(self, path: str) -> str | None:
        answer = self._call("GET", "/contentinfo", params={"path": path}, missing_ok=True)
        return str(answer["contentUri"]) if answer.get("contentUri") else None

    def _call(
        self, method: str, rest: str, *, missing_ok: bool = False, **content: Any
    ) -> dict[str, Any]:
        endpoint = f"{self._endpoint}{rest}"
        answer = send(self._creds, method, endpoint, **content)
        if missing_ok and answer.status_code == 404:
            return {}
        if answer.status_code >= 400:
            # Its own errors are nested, which MLflow does not read.
            try:
                message = answer.json()["error"]["message"]
            except (ValueError, KeyError, TypeError):
                message = answer.text
            code = RESOURCE_DOES_NOT_EXIST if answer.status_code == 404 else None
            text = f"Azure ML refused {method} artifacts{rest} ({answer.status_code}): {message}"
            raise MlflowException(text, code) if code else MlflowException(text)
        found: dict[str, Any] = verify_rest_response(answer, endpoint).json()
        return found

    def _creds(self) -> MlflowHostCreds:
        token = self._context.auth.get_token(self._context.cloud._get_default_scope()).token
        return MlflowHostCreds(self._context.host_url, token=token)

    def _blob(self, uri: str | None) -> Any:
        """Return a client of the blob, without retries of its own; a stand-in for no URI."""
        if uri is None:
            return _NoBlob()
        return BlobClient.from_blob_url(
            uri,
            retry_total=0,
            max_single_put_size=16 * _MIB,
            max_block_size=8 * _MIB,
            connection_timeout=30,
            read_timeout=120,
        )


class _NoBlob:
    """Stands where no blob is, so that both are used in a `with`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


def _upload(blob: BlobClient, stream: BinaryIO, size: int) -> bool:
    stream.seek(0, os.SEEK_SET)
    blob.upload_blob(stream, length=size, max_concurrency=4)
    return True


def _tried(what: str, attempt: Callable[[], Any]) -> Any:
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


def run_parts(artifact_uri: str) -> tuple[str, str, str] | None:
    """Return experiment, run and path below the run's artifacts; None for another URI."""
    found = _PARTS.search(artifact_uri.split("?")[0])
    return (found[1], found[2], found[3] or "") if found else None
