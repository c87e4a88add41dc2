"""The artifacts of one run, or of one upload, as Azure ML keeps them: registered, then uploaded.

An entry that is listed may have no bytes: its upload failed, or is under way. Such an entry's path
can never be written again: the next upload goes to a second place, `dbx_aml/again/1/<path>`. So an
entry counts as present only once its blob was seen, and what was seen is remembered, for what is
present never changes.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from azure.core.exceptions import ResourceExistsError
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST
from mlflow.utils.rest_utils import MlflowHostCreds, verify_rest_response

from dbx_aml.tracking.azureml.blob_upload import open_blob, tried
from dbx_aml.tracking.azureml.blob_upload import upload as upload_blob
from dbx_aml.tracking.azureml.mlflow_calls import send

log = logging.getLogger(__name__)
# Of what the store keeps in a run that a run does not take.
OWN_FOLDER = "dbx_aml/"
_SECOND_PLACE = f"{OWN_FOLDER}again/"
_BATCH = 100
_THREADS = 8
_Found = TypeVar("_Found")
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
        # Where the bytes are, of paths whose own place is lost.
        self._places: dict[str, str] = {}

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
            found = self._seen(f"HEAD {path}", path, lambda blob: blob.get_blob_properties())
            if found is None:
                return None
            self._sizes[path] = int(found.size)
        return self._sizes[path]

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Return the sizes of those that are present."""
        paths = list(paths)
        found = zip(paths, _in_threads(self.size, paths), strict=True)
        return {path: size for path, size in found if size is not None}

    def download(self, path: str, file: str | Path) -> None:
        """Write an artifact to a file.

        Raises:
            MlflowException: It is not there, or was registered and never uploaded.
        """
        target = Path(file)
        target.parent.mkdir(parents=True, exist_ok=True)

        def read(blob: Any) -> bool:
            with target.open("wb") as stream:
                blob.download_blob(max_concurrency=4).readinto(stream)
            return True

        if self._seen(f"GET {path}", path, read):
            return
        target.unlink(missing_ok=True)
        is_lost = self._content_uri(path) is not None
        reason = "was registered but never uploaded" if is_lost else "does not exist"
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

            def put(path: str, uris: dict[str, str] = uris) -> Exception | None:
                try:
                    self._put(path, files[path], uris.get(path))
                except Exception as problem:  # noqa: BLE001 - raised once the others are done
                    return problem
                return None

            problems = [error for error in _in_threads(put, batch) if error]
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
        """Upload a file to where its path was registered, or to a second place if it is lost."""
        if uri is None and self.size(path) is not None:
            self._expect_same(path, file)
            return
        place, number = path, 0
        while uri is None:
            # Registered by an upload that failed or whose program was killed: Azure ML takes no
            # second one there. What reads artifacts here looks for the second place.
            number += 1
            place = _second_place(path, number)
            uri = self._register([place]).get(place)
        size = file.stat().st_size
        with open_blob(uri) as blob, file.open("rb") as stream:
            try:
                if not tried(f"PUT {path}", lambda: upload_blob(blob, stream, size)):
                    raise MlflowException(f"artifact {path!r} has no storage container to go to")
            except ResourceExistsError:
                # The answer to an earlier try was lost, or somebody else was faster.
                self._expect_same(path, file)
        self._sizes[path] = size
        if place != path:
            self._places[path] = place

    def _expect_same(self, path: str, file: Path) -> None:
        if self.size(path) != file.stat().st_size or not self._has_content(path, file):
            raise MlflowException(
                f"artifact {path!r} exists with other content, and Azure ML never changes an "
                "artifact; log it under another name",
                RESOURCE_ALREADY_EXISTS,
            )

    def _seen(self, what: str, path: str, look: Callable[[Any], Any]) -> Any:
        """Return what a look at a path's bytes finds; None where they are not there."""
        place, number = self._places.get(path, path), 0
        while (uri := self._content_uri(place)) is not None:
            with open_blob(uri) as blob:
                found = tried(what, partial(look, blob))
            if found is not None:
                if place != path:
                    self._places[path] = place
                return found
            number += 1
            place = _second_place(path, number)
        return None

    def _has_content(self, path: str, file: Path) -> bool:
        def same(blob: Any) -> bool:
            with file.open("rb") as stream:
                chunks = blob.download_blob().chunks()
                return all(chunk == stream.read(len(chunk)) for chunk in chunks)

        return bool(self._seen(f"GET {path}", path, same))

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


def _second_place(path: str, number: int) -> str:
    return f"{_SECOND_PLACE}{number}/{path}" if number else path


def _in_threads(function: Callable[[str], _Found], paths: Sequence[str]) -> list[_Found]:
    """Return what a function returns for each path: several at once, where there can be threads."""
    if len(paths) > 1:
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                futures = [pool.submit(function, path) for path in paths]
            except RuntimeError:
                log.debug("no threads: the interpreter is ending")
            else:
                return [future.result() for future in futures]
    return [function(path) for path in paths]


def run_parts(artifact_uri: str) -> tuple[str, str, str] | None:
    """Return experiment, run and path below the run's artifacts; None for another URI."""
    found = _PARTS.search(artifact_uri.split("?")[0])
    return (found[1], found[2], found[3] or "") if found else None
