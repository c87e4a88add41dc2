"""The service: one part for each host, and the check of tokens and permissions."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from tests.support.azureml.artifact import Artifacts
from tests.support.azureml.blob import Blobs
from tests.support.azureml.endpoints import Endpoints
from tests.support.azureml.entra import Entra
from tests.support.azureml.errors import service_error, tracking_error
from tests.support.azureml.inventory import Inventory
from tests.support.azureml.jobs import Jobs
from tests.support.azureml.management import Management
from tests.support.azureml.model_sources import SourceCheck
from tests.support.azureml.permission import Permissions, action_of
from tests.support.azureml.prices import retail_prices
from tests.support.azureml.resources import Resources
from tests.support.azureml.token import Tokens
from tests.support.azureml.tracking import Tracking
from tests.support.azureml.workspace import (
    INFERENCE_SUFFIX,
    KUBERNETES_HOST,
    LOGIN_HOST,
    MANAGEMENT_HOST,
    PRICES_HOST,
    Workspace,
)
from tests.support.http.messages import Request, Response, json_response, match_path

log = logging.getLogger(__name__)

_DATA_PLANE = (
    r"/(mlflow/v[12]\.0|history/v1\.0|artifact/v2\.0)/subscriptions/([^/]+)/resourceGroups/([^/]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/([^/]+)(/.*)"
)
_RUN_TOKEN = r"/(?:experiments|experimentids)/[^/]+/runs/[^/]+/token"


class Service:
    """Everything of Azure that the stand-in has, by host."""

    def __init__(
        self,
        workspace: Workspace,
        tokens: Tokens,
        permissions: Permissions,
        entra: Entra,
        tracking: Tracking,
        blobs: Blobs,
        folder: Path,
    ) -> None:
        self.workspace = workspace
        self._tokens = tokens
        self._permissions = permissions
        self._entra = entra
        self._tracking = tracking
        self._blobs = blobs
        self._artifacts = Artifacts(workspace, blobs, tracking.run_exists)
        self._sources = SourceCheck(self._artifacts)
        self.resources = Resources(workspace, permissions)
        self._inventory = Inventory(workspace, self.resources, blobs)
        self._endpoints = Endpoints(
            self.resources, tokens, folder, self._read_model, self._inventory.read_code
        )
        self.jobs = Jobs(
            self.resources, tokens, tracking, blobs, folder / "jobs", self._inventory.read_code
        )
        self._management = Management(
            workspace,
            tokens,
            permissions,
            self.resources,
            [self._endpoints.respond, self.jobs.respond, self._inventory.respond],
        )

    def respond(self, request: Request) -> Response:
        """Answer a request to any of the workspace's hosts."""
        try:
            return self._respond(request)
        except Exception as error:  # an error of the stand-in must be visible
            log.exception("failed to answer method=%s path=%s", request.method, request.path)
            return service_error(500, f"The stand-in failed: {error!r}", code="StandInFailed")

    def _respond(self, request: Request) -> Response:
        if request.host == LOGIN_HOST:
            return self._entra.respond(request)
        if request.host == MANAGEMENT_HOST:
            return self._management.respond(request)
        if request.host == PRICES_HOST:
            return retail_prices(request)
        if request.host == self.workspace.blob_host:
            return self._blobs.respond(request)
        if request.host.endswith(INFERENCE_SUFFIX) or request.host == KUBERNETES_HOST:
            return self._endpoints.score(request)
        return self._data_plane(request)

    def managed_identity(self, request: Request) -> Response:
        """Answer at the managed identity's endpoint."""
        return self._entra.managed_identity(request)

    def clear_artifacts(self) -> None:
        """Forget every artifact; paths are free again."""
        self._artifacts.clear()

    def clear_resources(self) -> None:
        """End every deployment and restore the resources of the start."""
        self._endpoints.clear()
        self.jobs.clear()
        self.resources.clear()
        self._inventory.restore()

    def _read_model(self, name: str, version: str) -> tuple[str, dict[str, bytes]] | None:
        """Return the root of a model version's files and their bytes; None without the version."""
        source = self._tracking.source_of_version(name, version)
        return None if source is None else ("", self._sources.read_files(source))

    def _data_plane(self, request: Request) -> Response:
        if (request.host, request.path) == (self.workspace.api_host, "/discovery"):
            # The vendor's SDK reads the hosts of a region without a token.
            return json_response({"api": f"https://{self.workspace.api_host}"})
        match = match_path(_DATA_PLANE, request.path)
        if not match:
            return Response(status=404)
        part, path = match[1].lower(), match[5]
        is_tracking = part.startswith("mlflow")
        problem = self._tokens.problem(request.headers.get("authorization", ""))
        if problem:
            refused = _error(is_tracking, 401, problem)
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            headers = {**refused.headers, **challenge}
            return Response(status=401, body=refused.body, headers=headers)
        if self._management.missing(*(unquote(match[index]) for index in (2, 3, 4))):
            return _error(is_tracking, 404, f"Workspace {unquote(match[4])} was not found.")
        action = action_of(request.method, path)
        if not self._permissions.allows(action):
            message = (
                "The client does not have authorization to perform action "
                f"'{action}' over scope '{self.workspace.scope}'."
            )
            return _error(is_tracking, 403, message)
        if is_tracking:
            return self._tracking.respond(request, path, self._sources)
        if part.startswith("artifact"):
            return self._artifacts.of_container(request, path)
        if match_path(_RUN_TOKEN, path):
            return self._run_token()
        details = match_path(r"/runs/([^/]+)/details", path)
        if details:
            return self.jobs.details(unquote(details[1]))
        return self._artifacts.of_run(request, path)

    def _run_token(self) -> Response:
        """Refresh the token of a job, which azureml-mlflow does 95 seconds before its end."""
        token, ends = self._tokens.issue("azureml-job", "https://ml.azure.com")
        return json_response(
            {"token": token, "expiryTimeUtc": datetime.fromtimestamp(ends, UTC).isoformat()}
        )


def _error(is_tracking: bool, status: int, message: str) -> Response:
    make = tracking_error if is_tracking else service_error
    return make(status, message)
