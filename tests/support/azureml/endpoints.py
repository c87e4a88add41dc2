"""Online endpoints and their deployments, each served by a real inference server.

Source:
    Microsoft Learn, "Online Endpoints" and "Online Deployments" of the REST API, "Troubleshoot
    online endpoint deployment and scoring"; seen 2026-11.
"""

import json
import random
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import dbx_aml
from tests.support.azureml.deployed_model import DeployedModel, image_of_model
from tests.support.azureml.resources import Refusal, Resources
from tests.support.azureml.token import Tokens
from tests.support.azureml.workspace import INFERENCE_SUFFIX, KUBERNETES_HOST
from tests.support.http.messages import Request, Response, json_response, match_path

_SCORE_SCRIPT = Path(dbx_aml.__file__).parent / "serving" / "score_script.py"
_NAME = re.compile(r"[a-zA-Z](?!.*--)[-a-zA-Z0-9]{1,30}[a-zA-Z0-9]")
_INSTANCE_TYPES = ("Standard_DS2_v2", "Standard_DS3_v2", "Standard_F2s_v2", "Standard_F4s_v2")
_INSTANCE_QUOTA = 10
# Endpoint of another workspace in the region.
TAKEN_NAME = "taken-elsewhere"
_AUTH_MODES = ("Key", "AMLToken", "AADToken")

# Function that returns the files of a model version: their root's name, and bytes by path.
ReadModel = Callable[[str, str], tuple[str, dict[str, bytes]] | None]
# Function that returns the files of a code version by path.
ReadCode = Callable[[str], dict[str, bytes]]


class Endpoints:
    """Endpoints and deployments of the workspace.

    Args:
        resources: Store of all resources.
        tokens: Tokens of Entra.
        folder: Folder for the files of deployments.
        read_model: Function that returns the files of a model version.
        read_code: Function that returns the files of a code version.
    """

    def __init__(
        self,
        resources: Resources,
        tokens: Tokens,
        folder: Path,
        read_model: ReadModel,
        read_code: ReadCode,
    ) -> None:
        self._resources = resources
        self._tokens = tokens
        self._folder = folder
        self._read_model = read_model
        self._read_code = read_code
        self._served: dict[str, DeployedModel] = {}
        self._keys: dict[str, tuple[str, str]] = {}

    def clear(self) -> None:
        """End every served deployment."""
        for served in self._served.values():
            served.stop()
        self._served.clear()
        self._keys.clear()

    def respond(self, request: Request, path: str) -> Response | None:
        """Answer a request to an endpoint or a deployment; None for another path."""
        if match_path(r"/onlineEndpoints(?:/[^/]+/deployments)?", path) and request.method == "GET":
            if path.count("/") > 1:
                self._resources.get(path.rpartition("/")[0])
            return self._resources.page(request, path)
        match = match_path(r"(/onlineEndpoints/([^/]+))(/listKeys|/token)?", path)
        if match:
            return self._endpoint(request, match[1], match[2], (match[3] or "").lower())
        match = match_path(r"(/onlineEndpoints/[^/]+)(/deployments/([^/]+))(/getLogs)?", path)
        if match:
            return self._deployment(request, match[1], match[1] + match[2], match[4] is not None)
        return None

    def score(self, request: Request) -> Response:
        """Answer a request to the host of an endpoint."""
        path = self._path_of_host(request)
        endpoint = self._resources.find(path) if path else None
        if endpoint is None or path is None:
            return Response(status=404, reason="Not Found")
        if not self._may_score(endpoint, request.headers.get("authorization", "")):
            return Response(status=401, body=b'{"error_code": "auth_denied"}')
        name = request.headers.get("azureml-model-deployment") or _by_traffic(endpoint)
        served = self._served.get(f"{path}/deployments/{name}".lower())
        if not name or served is None:
            return Response(status=404, body=b"no deployment takes the request")
        status, body = served.score(request.body)
        headers = {"Content-Type": "application/json", "azureml-model-deployment": name}
        return Response(status=status, body=body, headers=headers)

    def _path_of_host(self, request: Request) -> str | None:
        if request.method != "POST":
            return None
        if request.host.endswith(INFERENCE_SUFFIX) and request.path == "/score":
            return f"/onlineEndpoints/{request.host.partition('.')[0]}"
        match = match_path(r"/api/v1/endpoint/([^/]+)/score", request.path)
        return f"/onlineEndpoints/{match[1]}" if match and request.host == KUBERNETES_HOST else None

    def _may_score(self, endpoint: dict[str, Any], authorization: str) -> bool:
        if endpoint["properties"]["authMode"] == "AADToken":
            return not self._tokens.problem(authorization)
        keys = self._keys.get(str(endpoint["id"]).lower(), ())
        return authorization in [f"Bearer {key}" for key in keys]

    def _endpoint(self, request: Request, path: str, name: str, call: str) -> Response:
        if request.method != "GET" and not call:
            self._resources.check_idle(path)
        if request.method == "PUT":
            return self._put_endpoint(request, path, name)
        self._resources.advance(path)
        endpoint = self._resources.get(path)
        if call and request.method == "POST":
            keys = self._keys[str(endpoint["id"]).lower()]
            if call == "/listkeys":
                return json_response({"primaryKey": keys[0], "secondaryKey": keys[1]})
            now = int(time.time())
            token = {"accessToken": keys[0], "tokenType": "Bearer"}
            return json_response(
                {**token, "expiryTimeUtc": now + 3600, "refreshAfterTimeUtc": now + 1800}
            )
        if request.method == "GET":
            return json_response(endpoint)
        if request.method == "PATCH":
            return self._patch_endpoint(request, path, endpoint)
        if request.method == "DELETE":

            def remove() -> None:
                for key in [key for key in self._served if key.startswith(f"{path.lower()}/")]:
                    self._served.pop(key).stop()
                self._resources.remove(path)

            endpoint["properties"]["provisioningState"] = "Deleting"
            return self._resources.start(request, path, remove)
        return Response(status=405)

    def _put_endpoint(self, request: Request, path: str, name: str) -> Response:
        body = request.json()
        if not _NAME.fullmatch(name):
            message = (
                f"Endpoint name '{name}' is not valid. A name has 3 to 32 characters, starts with "
                "a letter, and has letters, digits and single dashes only."
            )
            raise Refusal(400, "UserError", message)
        if name.lower() == TAKEN_NAME:
            message = f"The endpoint name '{name}' is already used in region 'westeurope'."
            raise Refusal(409, "Conflict", message)
        if not body.get("location"):
            raise Refusal(400, "LocationRequired", "The location property is required.")
        properties = dict(body.get("properties") or {})
        if properties.get("authMode") not in _AUTH_MODES:
            raise Refusal(400, "UserError", f"authMode must be one of {_AUTH_MODES}.")
        compute = properties.get("compute")
        if compute:
            self._check_kubernetes(str(compute))
        self._check_traffic(path, properties.get("traffic") or {})
        region = self._resources.workspace.region
        uri = f"https://{name}.{region}{INFERENCE_SUFFIX}/score"
        if compute:
            uri = f"https://{KUBERNETES_HOST}/api/v1/endpoint/{name}/score"
        before = self._resources.find(path)
        endpoint = self._resources.set(
            path,
            "onlineEndpoints",
            {
                "location": body["location"],
                "kind": "Managed",
                "tags": body.get("tags") or {},
                "identity": {"type": "SystemAssigned", "principalId": str(uuid4())},
                "properties": {
                    "description": None,
                    "properties": {},
                    "mirrorTraffic": {},
                    "publicNetworkAccess": "Enabled",
                    **properties,
                    "traffic": properties.get("traffic") or {},
                    "scoringUri": uri,
                    "swaggerUri": uri.replace("/score", "/swagger.json"),
                    "provisioningState": "Succeeded" if before else "Creating",
                },
            },
        )
        key = str(endpoint["id"]).lower()
        self._keys.setdefault(key, (secrets.token_urlsafe(24), secrets.token_urlsafe(24)))

        def finish() -> None:
            endpoint["properties"]["provisioningState"] = "Succeeded"

        return self._resources.start(
            request, path, finish, resource=json.loads(json.dumps(endpoint))
        )

    def _patch_endpoint(self, request: Request, path: str, endpoint: dict[str, Any]) -> Response:
        body = request.json()
        traffic = (body.get("properties") or {}).get("traffic")
        if traffic is not None:
            self._check_traffic(path, traffic)

        def change() -> None:
            endpoint["tags"] = {**endpoint["tags"], **(body.get("tags") or {})}
            if traffic is not None:
                endpoint["properties"]["traffic"] = dict(traffic)

        return self._resources.start(request, path, change)

    def _check_traffic(self, path: str, traffic: dict[str, int]) -> None:
        for name in traffic:
            if self._resources.find(f"{path}/deployments/{name}") is None:
                message = f"Traffic names the deployment '{name}', which does not exist."
                raise Refusal(400, "UserError", message)
        total = sum(traffic.values())
        if total not in (0, 100):
            message = f"The traffic of all deployments must sum to 0 or 100, the sum is {total}."
            raise Refusal(400, "UserError", message)

    def _check_kubernetes(self, compute_id: str) -> None:
        compute = self._resources.find(f"/computes/{compute_id.rpartition('/')[2]}")
        if compute is None or compute["properties"]["computeType"] != "Kubernetes":
            message = f"The compute '{compute_id}' is not an attached Kubernetes cluster."
            raise Refusal(400, "UserError", message)

    def _deployment(self, request: Request, parent: str, path: str, is_log: bool) -> Response:
        endpoint = self._resources.get(parent)
        if request.method == "GET":
            self._resources.advance(path)
        elif not is_log:
            # One operation at a time, also on the endpoint.
            self._resources.check_idle(parent)
            self._resources.check_idle(path)
        if request.method == "PUT":
            return self._put_deployment(request, endpoint, path)
        deployment = self._resources.get(path)
        if is_log and request.method == "POST":
            body = request.json()
            if body.get("containerType") == "StorageInitializer":
                return json_response({"content": "The model was downloaded.\n"})
            served = self._served.get(path.lower())
            lines = served.log.splitlines(keepends=True) if served else []
            return json_response({"content": "".join(lines[-int(body.get("tail") or 500) :])})
        if request.method == "GET":
            return json_response(deployment)
        if request.method == "PATCH":
            deployment["tags"] = {**deployment["tags"], **(request.json().get("tags") or {})}
            return self._resources.start(request, path, lambda: None)
        if request.method == "DELETE":
            name = deployment["name"]
            if endpoint["properties"]["traffic"].get(name):
                message = (
                    f"The deployment '{name}' takes traffic. Set its traffic to 0 before you "
                    "delete it."
                )
                raise Refusal(400, "UserError", message)

            def remove() -> None:
                self._resources.remove(path)
                endpoint["properties"]["traffic"].pop(name, None)
                if path.lower() in self._served:
                    self._served.pop(path.lower()).stop()

            deployment["properties"]["provisioningState"] = "Deleting"
            return self._resources.start(request, path, remove)
        return Response(status=405)

    def _put_deployment(self, request: Request, endpoint: dict[str, Any], path: str) -> Response:
        body = request.json()
        name = path.rpartition("/")[2]
        if not _NAME.fullmatch(name):
            raise Refusal(400, "UserError", f"Deployment name '{name}' is not valid.")
        before = self._resources.find(path)
        if before is not None and before["properties"]["provisioningState"] == "Failed":
            message = (
                f"The deployment '{name}' is in a failed state and cannot be updated. Delete it "
                "and create it again."
            )
            raise Refusal(400, "BadRequest", message)
        properties = dict(body.get("properties") or {})
        kind = properties.get("endpointComputeType")
        is_kubernetes = bool(endpoint["properties"].get("compute"))
        if kind != ("Kubernetes" if is_kubernetes else "Managed"):
            raise Refusal(400, "UserError", f"endpointComputeType '{kind}' does not fit.")
        instance_type = properties.get("instanceType")
        if not is_kubernetes and instance_type not in _INSTANCE_TYPES:
            message = (
                f"Instance type '{instance_type}' is not supported. Supported types are "
                f"{', '.join(_INSTANCE_TYPES)}."
            )
            raise Refusal(400, "BadRequest", message)
        capacity = int((body.get("sku") or {}).get("capacity") or 1)
        served = None
        if capacity <= _INSTANCE_QUOTA:
            served = self._served_model(path, properties)
        if path.lower() in self._served:
            self._served.pop(path.lower()).stop()
        if served is not None:
            self._served[path.lower()] = served
        if is_kubernetes:
            properties.setdefault("containerResourceRequirements", {})
        deployment = self._resources.set(
            path,
            "onlineEndpoints/deployments",
            {
                "location": body.get("location"),
                "kind": kind,
                "sku": {"name": "Default", "capacity": capacity},
                "tags": body.get("tags") or {},
                "properties": {
                    **properties,
                    "scaleSettings": {"scaleType": "Default"},
                    "provisioningState": "Updating" if before else "Creating",
                },
            },
        )

        def finish() -> tuple[str, str] | bool | None:
            state: tuple[str, str] | bool | None = (
                "OutOfQuota",
                f"Not enough quota for {capacity} instances.",
            )
            if served is not None:
                state = served.state()
            if state is not False:
                deployment["properties"]["provisioningState"] = "Failed" if state else "Succeeded"
            return state

        return self._resources.start(
            request, path, finish, resource=json.loads(json.dumps(deployment))
        )

    def _served_model(self, path: str, properties: dict[str, Any]) -> DeployedModel:
        model_id = properties.get("model") or ""
        if isinstance(model_id, dict):
            # As api-versions of 2022 write it.
            model_id = model_id.get("assetId") or ""
        match = re.search(r"/models/([^/]+)/versions/([^/]+)$", str(model_id))
        model = self._read_model(match[1], match[2]) if match else None
        if model is None or match is None:
            raise Refusal(400, "BadRequest", f"The model '{model_id}' does not exist.")
        root, files = model
        code = properties.get("codeConfiguration")
        environment_id = properties.get("environmentId")
        if code and environment_id:
            code_files = self._read_code(str(code["codeId"]))
            script = str(code["scoringScript"])
            conda_file = self._conda_file(str(environment_id))
        else:
            # As Azure ML does for an MLflow model without code; the package's script gives the same
            # answers as Azure ML's own.
            script = "mlflow_score_script.py"
            # Azure ML's own script imports this package, whether it collects data or not.
            text = f"import azureml.ai.monitoring\n{_SCORE_SCRIPT.read_text()}"
            text = text.replace("from __future__ import annotations\n", "")
            code_files = {script: text.encode()}
            mlflow_conda = next(
                (text for name, text in files.items() if name.endswith("/conda.yaml")), None
            ) or files.get("conda.yaml")
            if mlflow_conda is None:
                raise Refusal(400, "BadRequest", "The model is no MLflow model.")
            conda_file = image_of_model(mlflow_conda.decode())
        version_root = f"{match[1]}/{match[2]}"
        return DeployedModel(
            self._folder / str(uuid4()),
            model_files={f"{version_root}/{name}": content for name, content in files.items()},
            model_folder=f"{version_root}/{root}".rstrip("/"),
            code_files=code_files,
            script=script,
            conda_file=conda_file,
            variables=dict(properties.get("environmentVariables") or {}),
        )

    def _conda_file(self, environment_id: str) -> str:
        path = environment_id.rpartition("/environments/")[2]
        environment = self._resources.find(f"/environments/{path}")
        if environment is None:
            raise Refusal(400, "BadRequest", f"The environment '{environment_id}' does not exist.")
        return str(environment["properties"].get("condaFile") or "")


def _by_traffic(endpoint: dict[str, Any]) -> str | None:
    """Return a deployment by chance, as the endpoint's traffic says."""
    traffic = {name: share for name, share in endpoint["properties"]["traffic"].items() if share}
    if not traffic:
        return None
    return random.choices(list(traffic), list(traffic.values()))[0]
