"""Artifacts: registered before they are uploaded, never changed, never written again.

Listed therefore does not mean present: an upload that failed leaves an entry whose bytes are
nowhere and whose path stays taken.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from urllib.parse import quote, unquote

from tests.support.azureml.blob import Blobs
from tests.support.azureml.errors import service_error
from tests.support.azureml.workspace import Workspace
from tests.support.http.messages import Request, Response, json_response, match_path

_RUN_PATH = r"/(?:experiments|experimentids)/([^/]+)/runs/([^/]+)/artifacts(/.*)?"
_OWN_PATH = r"/artifacts/([^/]+)/([^/]+)(/.*)?"
RUN_ORIGIN = "ExperimentRun"
_BATCH_LIMIT = 100
_PAGE = 100


class Artifacts:
    """Paths by origin and container; the bytes are in the storage account.

    Args:
        workspace: For the links to further pages.
        blobs: The storage account.
        run_exists: Function that tells whether an experiment has a run, by Azure's identifiers.
    """

    def __init__(
        self, workspace: Workspace, blobs: Blobs, run_exists: Callable[[str, str], bool]
    ) -> None:
        self._workspace = workspace
        self._blobs = blobs
        self._run_exists = run_exists
        self._lock = Lock()
        self._paths: dict[tuple[str, str], dict[str, str]] = {}

    def of_run(self, request: Request, path: str) -> Response:
        """Answer under /history/v1.0; `path` is the path below the workspace."""
        match = match_path(_RUN_PATH, path)
        if not match:
            return Response(status=404)
        experiment, run = unquote(match[1]), unquote(match[2])
        if not self._run_exists(experiment, run):
            return service_error(404, f"Run {run} not found in experiment {experiment}.")
        return self._respond(request, RUN_ORIGIN, f"dcid.{run}", match[3] or "")

    def of_container(self, request: Request, path: str) -> Response:
        """Answer under /artifact/v2.0; `path` is the path below the workspace."""
        match = match_path(_OWN_PATH, path)
        if not match:
            return Response(status=404)
        return self._respond(request, unquote(match[1]), unquote(match[2]), match[3] or "")

    def clear(self) -> None:
        """Forget every path; no client can reach the bytes any more."""
        with self._lock:
            self._paths.clear()

    def has_folder(self, origin: str, container: str, folder: str) -> bool:
        """Tell whether anything is registered in a folder, at any depth."""
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        with self._lock:
            paths = self._paths.get((origin, container), {})
            return any(path.startswith(prefix) for path in paths)

    def read_folder(self, origin: str, container: str, folder: str) -> dict[str, bytes]:
        """Return the bytes of a folder's files by their paths below the folder."""
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        with self._lock:
            paths = sorted(self._paths.get((origin, container), {}))
        return {
            path.removeprefix(prefix): self._blobs.read(f"{origin}/{container}/{path}")
            for path in paths
            if path.startswith(prefix)
        }

    def _respond(self, request: Request, origin: str, container: str, call: str) -> Response:
        if call == "" and request.method == "GET":
            return self._list(request, origin, container)
        if call == "/contentinfo" and request.method == "GET":
            return self._content(origin, container, request.query.get("path", ""))
        if call == "/batch/metadata" and request.method == "POST":
            return self._register(request, origin, container)
        return Response(status=404)

    def _list(self, request: Request, origin: str, container: str) -> Response:
        with self._lock:
            known = sorted(self._paths.get((origin, container), {}).items())
        first = int(request.query.get("continuationToken") or 0)
        page = known[first : first + _PAGE]
        following = first + _PAGE
        link = None
        if following < len(known):
            link = f"https://{self._workspace.api_host}{request.path}?continuationToken={following}"
        return json_response(
            {
                "value": [_artifact(origin, container, path, created) for path, created in page],
                "continuationToken": str(following) if link else None,
                "nextLink": link,
            }
        )

    def _content(self, origin: str, container: str, path: str) -> Response:
        with self._lock:
            known = path in self._paths.get((origin, container), {})
        if not known:
            identifier = f"{origin}/{container}/{path}"
            return service_error(404, f"Artifact {identifier} was not found.")
        return json_response(self._information(origin, container, path, write=False))

    def _register(self, request: Request, origin: str, container: str) -> Response:
        paths = [entry["path"] for entry in request.json().get("paths", [])]
        if len(paths) > _BATCH_LIMIT:
            text = f"Artifact batch size exceeded the limit of {_BATCH_LIMIT}"
            refused = service_error(400, text)
            return Response(status=400, body=refused.body, headers=refused.headers, reason=text)
        artifacts, contents, errors = {}, {}, {}
        with self._lock:
            known = self._paths.setdefault((origin, container), {})
            for path in paths:
                if path in known:
                    errors[path] = _conflict(f"{origin}/{container}/{path}")
                    continue
                known[path] = datetime.now(UTC).isoformat()
                artifacts[path] = _artifact(origin, container, path, known[path])
                contents[path] = self._information(origin, container, path, write=True)
        return json_response(
            {"artifacts": artifacts, "artifactContentInformation": contents, "errors": errors}
        )

    def _information(
        self, origin: str, container: str, path: str, *, write: bool
    ) -> dict[str, object]:
        name = f"{origin}/{container}/{path}"
        return {
            "contentUri": self._blobs.url(name, write=write),
            "origin": origin,
            "container": container,
            "path": path,
            "tags": {},
        }


def _artifact(origin: str, container: str, path: str, created: str) -> dict[str, object]:
    return {
        "artifactId": f"{origin}/{container}/{path}",
        "origin": origin,
        "container": container,
        "path": path,
        "etag": quote(created),
        "createdTime": created,
        "dataPath": None,
        "tags": {},
    }


def _conflict(identifier: str) -> dict[str, object]:
    message = f"Resource Conflict: ArtifactId {identifier} already exists."
    return {"error": {"code": "UserError", "message": message}}
