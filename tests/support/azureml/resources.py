"""Azure ML's resources in Azure Resource Manager: endpoints, deployments, environments, code, ...

A change of an endpoint or a deployment is an operation: the answer names where its state is, and
after some looks it ends. The other resources are there at once.

Source:
    Microsoft Learn, "Azure Machine Learning REST API", version 2025-12-01; "Track asynchronous
    Azure operations"; seen 2026-11.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import Any
from uuid import uuid4

from tests.support.azureml.errors import service_error
from tests.support.azureml.permission import Permissions
from tests.support.azureml.workspace import MANAGEMENT_HOST, OBJECT_ID, Workspace
from tests.support.http.messages import Request, Response, json_response, match_path

PROVIDER = "Microsoft.MachineLearningServices"
_PAGE = 20
# Looks at an operation until it can end.
_LOOKS = 2
_OPERATION = (
    rf"/subscriptions/[^/]+/providers/{PROVIDER}/locations/[^/]+"
    r"/(mfeOperationsStatus|mfeOperationResults)/([^/]+)"
)
# Function that returns False while an operation goes on, None after success, and the code and the
# message of a failure.
Work = Callable[[], tuple[str, str] | bool | None]
_TRACKED_METHODS = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}


class Refusal(Exception):
    """A request that the service refuses.

    Args:
        status: Status of the answer.
        code: Code of the error, for example "UserError".
        message: Text of the error.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.response = service_error(status, message, code=code)


class Operation:
    """An operation that a request has started.

    Args:
        path: Path of its resource.
        work: Function that is called when the operation may end.
    """

    def __init__(self, path: str, work: Work) -> None:
        self.path = path
        self.work = work
        self.looks = 0
        self.is_done = False
        self.failure: tuple[str, str] | None = None


class Resources:
    """Every resource of the workspace by its path below the workspace, in small letters.

    Attributes:
        operation_host: Host in the URLs of operations, which a fault replaces.
        endless: Whether operations never end, which a fault switches on.
    """

    def __init__(self, workspace: Workspace, permissions: Permissions) -> None:
        self.workspace = workspace
        self._permissions = permissions
        self._lock = Lock()
        self._items: dict[str, dict[str, Any]] = {}
        self._operations: dict[str, Operation] = {}
        self.operation_host = MANAGEMENT_HOST
        self.endless = False

    def reset_faults(self) -> None:
        """End the faults of operations."""
        self.operation_host, self.endless = MANAGEMENT_HOST, False

    def clear(self) -> None:
        """Forget every resource and operation."""
        with self._lock:
            self._items.clear()
            self._operations.clear()

    def check_permission(self, method: str, path: str) -> None:
        """Refuse a caller whose roles do not allow the request.

        Args:
            method: Method in capitals.
            path: Path below the workspace, for example "/onlineEndpoints/delay/listKeys".
        """
        parts = path.strip("/").split("/")
        types = "/".join(parts[::2])
        if method == "POST":
            types, action = "/".join(parts[:-1:2]), f"{parts[-1]}/action"
        else:
            action = _TRACKED_METHODS[method]
        action = f"{PROVIDER}/workspaces/{types}/{action}"
        if not self._permissions.allows(action):
            message = (
                f"The client '{OBJECT_ID}' with object id '{OBJECT_ID}' does not have "
                f"authorization to perform action '{action}' over scope "
                f"'{self.workspace.scope}{path}' or the scope is invalid."
            )
            raise Refusal(403, "AuthorizationFailed", message)

    def find(self, path: str) -> dict[str, Any] | None:
        """Return a resource, None for an unknown path."""
        with self._lock:
            return self._items.get(path.lower())

    def get(self, path: str) -> dict[str, Any]:
        """Return a resource; refuse a path that has none."""
        resource = self.find(path)
        if resource is None:
            message = (
                f"The Resource '{PROVIDER}/workspaces/{self.workspace.workspace_name}{path}' under "
                f"resource group '{self.workspace.resource_group}' was not found."
            )
            raise Refusal(404, "ResourceNotFound", message)
        return resource

    def children(self, path: str) -> list[dict[str, Any]]:
        """Return the resources right below a collection, for example "/onlineEndpoints"."""
        prefix = f"{path.lower()}/"
        with self._lock:
            return [
                item
                for key, item in sorted(self._items.items())
                if key.startswith(prefix) and "/" not in key[len(prefix) :]
            ]

    def set(self, path: str, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Store a resource and return it, with the fields that every resource has."""
        now = datetime.now(UTC).isoformat()
        resource = {
            "id": f"{self.workspace.scope}{path}",
            "name": path.rpartition("/")[2],
            "type": f"{PROVIDER}/workspaces/{kind}",
            "systemData": {
                "createdAt": now,
                "createdBy": OBJECT_ID,
                "createdByType": "Application",
                "lastModifiedAt": now,
            },
            **fields,
        }
        with self._lock:
            self._items[path.lower()] = resource
        return resource

    def remove(self, path: str) -> None:
        """Remove a resource and all resources below it."""
        with self._lock:
            for key in list(self._items):
                if key == path.lower() or key.startswith(f"{path.lower()}/"):
                    del self._items[key]

    def page(self, request: Request, path: str, *, is_newest_first: bool = False) -> Response:
        """Answer with one page of a collection."""
        items = self.children(path)
        if is_newest_first:
            items.sort(key=lambda item: str(item["systemData"]["createdAt"]), reverse=True)
        first = int(request.query.get("$skip") or 0)
        page: dict[str, Any] = {"value": items[first : first + _PAGE]}
        if first + _PAGE < len(items):
            page["nextLink"] = (
                f"https://{MANAGEMENT_HOST}{request.path}?api-version="
                f"{request.query['api-version']}&$skip={first + _PAGE}"
            )
        return json_response(page)

    def start(
        self,
        request: Request,
        path: str,
        work: Work,
        *,
        resource: dict[str, Any] | None = None,
    ) -> Response:
        """Start an operation and answer as the service does.

        Args:
            request: Request that starts the operation.
            path: Path of the resource.
            work: Function that is called when the operation may end.
            resource: The resource as it is now, for the answer to a PUT; None for other methods.
        """
        number = str(uuid4())
        with self._lock:
            self._operations[number] = Operation(path, work)
        part = "mfeOperationResults" if resource is None else "mfeOperationsStatus"
        url = (
            f"https://{self.operation_host}/subscriptions/{self.workspace.subscription_id}"
            f"/providers/{PROVIDER}/locations/{self.workspace.region}/{part}/{number}"
            "?api-version=2025-12-01"
        )
        if resource is None:
            return Response(status=202, headers={**_poll_headers(request), "Location": url})
        return json_response(
            resource, 201, **_poll_headers(request), **{"Azure-AsyncOperation": url}
        )

    def operation(self, request: Request) -> Response | None:
        """Answer a look at an operation; None for another path."""
        match = match_path(_OPERATION, request.path)
        if not match:
            return None
        with self._lock:
            operation = self._operations.get(match[2])
        if operation is None:
            return service_error(404, "The operation was not found.", code="NotFound")
        self._advance(operation)
        if match[1] == "mfeOperationsStatus":
            if not operation.is_done:
                return json_response({"status": "InProgress"}, 200, **_poll_headers(request))
            if operation.failure is None:
                return json_response({"status": "Succeeded", "percentComplete": 100})
            code, message = operation.failure
            error = {"code": code, "message": message, "details": [], "additionalInfo": []}
            return json_response({"status": "Failed", "error": error})
        if not operation.is_done:
            url = f"https://{self.operation_host}{request.target}"
            return Response(status=202, headers={"Location": url, **_poll_headers(request)})
        if operation.failure is not None:
            code, message = operation.failure
            return service_error(400, message, code=code)
        resource = self.find(operation.path)
        return Response(status=204) if resource is None else json_response(resource)

    def advance(self, path: str) -> None:
        """Let the operations on a resource go on without a look at their URLs."""
        with self._lock:
            operations = [item for item in self._operations.values() if item.path == path]
        for operation in operations:
            self._advance(operation)

    def check_idle(self, path: str) -> None:
        """Refuse a change of a resource whose last operation has not ended."""
        with self._lock:
            operations = [item for item in self._operations.values() if item.path == path]
        if not all(operation.is_done for operation in operations):
            message = f"Another operation on '{path}' has not ended."
            raise Refusal(409, "Conflict", message)

    def _advance(self, operation: Operation) -> None:
        operation.looks += 1
        if operation.is_done or self.endless or operation.looks < _LOOKS:
            return
        outcome = operation.work()
        if outcome is not False:
            operation.is_done = True
            operation.failure = outcome if isinstance(outcome, tuple) else None


def _poll_headers(request: Request) -> dict[str, str]:
    """Return the wait before the next look at an operation, in seconds."""
    # The vendor's clients wait half a minute where they read a zero.
    return {"Retry-After": "1" if "azsdk" in request.headers.get("user-agent", "") else "0"}
