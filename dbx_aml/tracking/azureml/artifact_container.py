"""The artifacts of one run, or of one upload: Azure ML registers a path before its upload.

A registered path may have no bytes: the upload failed, or still runs. Azure ML never accepts
another upload to a path, so other content and the next attempt go to `dbx_aml/again/1/<path>`, then
to `dbx_aml/again/2/<path>`. The highest number that has bytes counts. A path counts as present only
after a read of its blob. The size of a present artifact is kept in memory until a list of the
artifacts shows a higher number.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from azure.core.exceptions import ResourceExistsError
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    RESOURCE_DOES_NOT_EXIST,
)
from mlflow.utils.rest_utils import MlflowHostCreds, verify_rest_response

from dbx_aml._common.chunks import split_chunks
from dbx_aml._common.daemon_threads import DaemonThreadPool
from dbx_aml._common.http import Transfer, paged
from dbx_aml._common.log import get_logger
from dbx_aml._common.paths import check_relative_path, quote_segment
from dbx_aml.tracking.azureml.blob_upload import (
    call_blob,
    download_blob,
    has_content,
    open_blob,
    upload_blob,
)
from dbx_aml.tracking.azureml.mlflow_calls import mlflow_errors, send_request

log = get_logger(__name__)
# Folder of files that the store keeps in a run; they are not artifacts of the user.
INTERNAL_FOLDER = "dbx_aml/"
_RETRY_FOLDER = f"{INTERNAL_FOLDER}again/"
_AGAIN_PATH = re.compile(re.escape(_RETRY_FOLDER) + r"([1-9][0-9]{0,3})/(.+)")
# Uploads of one artifact after the first.
_MAX_UPLOADS = 9_999
# Failed uploads of one artifact after which a read ends; each costs two requests.
_MAX_FAILED_UPLOADS = 50
_PATHS_PER_CALL = 100
_THREADS = 8
Result = TypeVar("Result")


class ArtifactContainer:
    """The artifacts of a run or of an upload, by path.

    Args:
        context: Service context of the workspace.
        endpoint: Path of the service's calls for this container.
    """

    def __init__(self, context: Any, endpoint: str) -> None:
        self._context = context
        self._endpoint = endpoint
        self._sizes: dict[str, int] = {}
        # Highest number of an upload by artifact path, as the newest list has it.
        self._last_numbers: dict[str, int] = {}

    @classmethod
    def from_run(cls, context: Any, experiment: str, run_id: str) -> "ArtifactContainer":
        """Return the artifacts of a run, by the identifier or the name of its experiment."""
        scope = context._get_scope()
        with mlflow_errors():
            names = f"{quote_segment(experiment)}/runs/{quote_segment(run_id)}"
        path = f"/experiments/{names}/artifacts"
        return cls(context, f"/history/v1.0{scope}{path}")

    @classmethod
    def from_upload(cls, context: Any, origin: str, container: str) -> "ArtifactContainer":
        """Return the artifacts of an upload without a run, for example of a registered model."""
        with mlflow_errors():
            path = f"/artifacts/{quote_segment(origin)}/{quote_segment(container)}"
        return cls(context, f"/artifact/v2.0{context._get_scope()}{path}")

    def list_paths(self, folder: str = "") -> list[str]:
        """Return every registered path in a folder, present or not, at any depth.

        Raises:
            MlflowException: A path leads out of the folder that it would be downloaded to.
        """
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""

        def fetch_page(token: str | None) -> tuple[list[str], str | None]:
            params = {"continuationToken": token} if token else {}
            page = self._call("GET", "", params=params)
            next_token = page.get("continuationToken") if page.get("nextLink") else None
            return [artifact["path"] for artifact in page.get("value") or []], next_token

        all_paths = list(paged(fetch_page, "artifacts"))
        self._set_last_numbers(map(str, all_paths))
        paths = [path for path in all_paths if str(path).startswith(prefix)]
        with mlflow_errors():
            return [check_relative_path(path) for path in paths]

    def _set_last_numbers(self, all_paths: Iterable[str]) -> None:
        for match in filter(None, map(_AGAIN_PATH.fullmatch, all_paths)):
            number, path = int(match[1]), match[2]
            if number > self._last_numbers.get(path, 0):
                self._last_numbers[path] = number
                self._sizes.pop(path, None)

    def has_newer_content(self, folder: str) -> bool:
        """Tell whether a folder has files whose content is not at their own path."""
        self.list_paths()
        return any(path.startswith(f"{folder}/") for path in self._last_numbers)

    def size(self, path: str) -> int | None:
        """Return the size of an artifact in bytes; None without bytes or without an entry."""
        if path not in self._sizes:
            properties = self._read_blob(
                f"HEAD {path}", path, lambda blob, _transfer: blob.get_blob_properties()
            )
            if properties is None:
                return None
            self._sizes[path] = int(properties.size)
        return self._sizes[path]

    def is_registered(self, path: str) -> bool:
        """Tell whether an artifact has an entry, with or without bytes."""
        return self._content_uri(path) is not None

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Return the sizes of the artifacts that are present."""
        paths = list(paths)
        sizes = zip(paths, _map_in_threads(self.size, paths), strict=True)
        return {path: size for path, size in sizes if size is not None}

    def download(self, path: str, file: str | Path) -> None:
        """Write an artifact to a file.

        Raises:
            MlflowException: The artifact does not exist, was registered but never uploaded, or its
                path leads out of its run.
        """
        with mlflow_errors():
            check_relative_path(path)
        target = Path(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._read_blob(
            f"GET {path}", path, lambda blob, transfer: download_blob(blob, target, transfer)
        ):
            return
        target.unlink(missing_ok=True)
        is_registered = self.is_registered(path)
        reason = "was registered but never uploaded" if is_registered else "does not exist"
        raise MlflowException(f"artifact {path!r} {reason}", RESOURCE_DOES_NOT_EXIST)

    def read(self, path: str, folder: Path) -> bytes:
        """Return the bytes of a small artifact, which is downloaded into a folder."""
        file = folder / hashlib.sha256(path.encode()).hexdigest()
        self.download(path, file)
        return file.read_bytes()

    def upload(self, files: dict[str, Path]) -> None:
        """Upload files; a path that exists gets the new content, unless it has this content.

        Args:
            files: Files by artifact path.

        Raises:
            MlflowException: No upload worked within the retry limit. The other files are uploaded
                nevertheless.
        """
        for batch in split_chunks(list(files), _PATHS_PER_CALL):
            uris = self._register(batch)
            if len(uris) < len(batch):
                self.list_paths()

            def upload_file(path: str, uris: dict[str, str] = uris) -> Exception | None:
                try:
                    self._upload_file(path, files[path], uris.get(path))
                except Exception as failure:  # noqa: BLE001 - raised after the other uploads
                    return failure
                return None

            errors = [error for error in _map_in_threads(upload_file, batch) if error]
            if errors:
                raise errors[0]

    def upload_new(self, path: str, file: Path) -> bool:
        """Upload a file to a new path; return False if the path exists, whatever its content."""
        uri = self._register([path]).get(path)
        if uri is None:
            return False
        self._upload_file(path, file, uri)
        return True

    def _register(self, paths: list[str]) -> dict[str, str]:
        """Return the upload URI of each path; existing paths are left out."""
        body = {"paths": [{"path": path} for path in paths]}
        answer = self._call("POST", "/batch/metadata", json=body)
        contents = answer.get("artifactContentInformation") or {}
        for path, problem in (answer.get("errors") or {}).items():
            message = str((problem.get("error") or {}).get("message"))
            if "already exists" not in message and "Conflict" not in message:
                raise MlflowException(f"artifact {path!r} was refused: {message}")
        return {path: content["contentUri"] for path, content in contents.items()}

    def _upload_file(self, path: str, file: Path, uri: str | None) -> None:
        """Upload a file to its registered path, or to the next number of a path that exists."""
        number = 0
        if uri is None:
            if self.size(path) == file.stat().st_size and self._has_content(path, file):
                return
            number = self._last_numbers.get(path, 0)
        while uri is None:
            number += 1
            if number > _MAX_UPLOADS:
                raise MlflowException(
                    f"artifact {path!r} must be written at most {_MAX_UPLOADS + 1:,} times in a "
                    "run; log it in a new run"
                )
            upload_path = _retry_path(path, number)
            uri = self._register([upload_path]).get(upload_path)
        with open_blob(uri, self._context.host_url) as blob:
            try:
                if not call_blob(f"PUT {path}", partial(upload_blob, blob, file)):
                    raise MlflowException(f"artifact {path!r} has no storage container to go to")
            except ResourceExistsError:
                # An earlier attempt worked, but its answer was lost.
                if not call_blob(f"GET {path}", partial(has_content, blob, file)):
                    raise
        if number:
            self._last_numbers[path] = number
        self._sizes[path] = file.stat().st_size

    def _read_blob(self, operation: str, path: str, read: Callable[[Any, Transfer], Any]) -> Any:
        """Return what `read` returns for the blob of a path; None if the path has no bytes."""
        number = self._last_numbers.get(path, 0)
        numbers = range(number, max(0, number - _MAX_FAILED_UPLOADS), -1)
        for blob_path in [*(_retry_path(path, number) for number in numbers), path]:
            uri = self._content_uri(blob_path)
            if uri is None:
                continue
            with open_blob(uri, self._context.host_url) as blob:
                result = call_blob(operation, partial(read, blob))
            if result is not None:
                return result
        if uri is not None and not number:
            # The upload to the path itself failed; only a list shows later uploads.
            self.list_paths()
            if path in self._last_numbers:
                return self._read_blob(operation, path, read)
        return None

    def _has_content(self, path: str, file: Path) -> bool:
        return bool(
            self._read_blob(
                f"GET {path}", path, lambda blob, transfer: has_content(blob, file, transfer)
            )
        )

    def _content_uri(self, path: str) -> str | None:
        answer = self._call("GET", "/contentinfo", params={"path": path}, missing_ok=True)
        return str(answer["contentUri"]) if answer.get("contentUri") else None

    def _call(
        self, method: str, path: str, *, missing_ok: bool = False, **content: Any
    ) -> dict[str, Any]:
        endpoint = f"{self._endpoint}{path}"
        response = send_request(self._creds, method, endpoint, **content)
        if missing_ok and response.status_code == 404:
            return {}
        if response.status_code >= 400:
            # The message of these errors is nested, and MLflow does not read it.
            try:
                message = response.json()["error"]["message"]
            except (ValueError, KeyError, TypeError):
                message = response.text
            code = RESOURCE_DOES_NOT_EXIST if response.status_code == 404 else None
            text = f"Azure ML refused {method} artifacts{path} ({response.status_code}): {message}"
            raise MlflowException(text, code) if code else MlflowException(text)
        answer: dict[str, Any] = verify_rest_response(response, endpoint).json()
        return answer

    def _creds(self) -> MlflowHostCreds:
        token = self._context.auth.get_token(self._context.cloud._get_default_scope()).token
        return MlflowHostCreds(self._context.host_url, token=token)


def _retry_path(path: str, number: int) -> str:
    return f"{_RETRY_FOLDER}{number}/{path}" if number else path


def _map_in_threads(function: Callable[[str], Result], paths: Sequence[str]) -> list[Result]:
    """Return the results of a function for all paths; several calls run at once."""
    if len(paths) > 1:
        with DaemonThreadPool(_THREADS) as pool:
            return list(pool.map(function, paths))
    return [function(path) for path in paths]
