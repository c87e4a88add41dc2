"""Deploy a registered model to an online endpoint of Azure ML: `deploy_model`.

The order never harms what takes traffic: the environment is resolved before anything is sent, a
new deployment is made beside the old one, it must score a row, and only then traffic moves.

Source:
    Azure REST API, "Online Endpoints" and "Online Deployments", version 2025-12-01; Microsoft
    Learn, "Safe rollout for online endpoints"; seen 2026-11.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import (
    ArgumentError,
    OperationError,
    ServiceError,
    ServingError,
)
from dbx_aml._common.log import get_logger
from dbx_aml.azure.client import OPERATION_TIMEOUT_S
from dbx_aml.link.connected_link import current_link, use_link
from dbx_aml.link.link import Link
from dbx_aml.local.pinned_environment import PinnedEnvironment
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.serving.endpoints import (
    AUTH_MODES,
    COPIED_FROM,
    MANAGED,
    MODEL_NAME,
    MODEL_VERSION,
    Endpoint,
    deployment_path,
    endpoint_path,
    read_log,
    show_command,
)
from dbx_aml.serving.environment import (
    SCORE_SCRIPT,
    register_environment,
    resolve_environment,
)
from dbx_aml.serving.served_model import (
    Report,
    ServedModel,
    copy_to_azure_ml,
    read_served_model,
)
from dbx_aml.serving.server_log import reason_or_last_lines
from dbx_aml.serving.workspace_inventory import find_compute

log = get_logger(__name__)

DEFAULT_INSTANCE_TYPE = "Standard_DS3_v2"
_ENVIRONMENT_NAME = "dbx-aml-serving"
# Tag of a deployment: one hash over its model and its settings.
_CONTENT_HASH = "dbx_aml.content_hash"
_RUN_ID, _REGISTRY = "dbx_aml.run_id", "dbx_aml.registry"
_NAME = re.compile(r"[a-zA-Z](?!.*--)[-a-zA-Z0-9]{1,30}[a-zA-Z0-9]")
_COLORS = ("blue", "green")
_FAILED_STATES = ("Failed", "Canceled")
_LOG_LINES = 100


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Settings of a deployment beside its model, with the names of `deploy_model`."""

    compute: str
    instance_type: str | None
    instance_count: int
    environment_variables: Mapping[str, str]
    request_settings: Mapping[str, Any] | None
    data_collector: Mapping[str, Any] | None
    app_insights_enabled: bool
    tags: Mapping[str, str]
    no_code: bool


def deploy_model(
    endpoint: str,
    model_uri: str,
    *,
    deployment: str | None = None,
    traffic: int = 100,
    compute: str = MANAGED,
    instance_type: str | None = None,
    instance_count: int = 1,
    auth_mode: str = "key",
    registry: str | None = None,
    no_code: bool = False,
    environment_variables: Mapping[str, str] | None = None,
    request_settings: Mapping[str, Any] | None = None,
    data_collector: Mapping[str, Any] | None = None,
    app_insights_enabled: bool = False,
    tags: Mapping[str, str] | None = None,
    link: Link | None = None,
    timeout_s: float = 3600.0,
    report: Report = lambda step: None,
) -> Endpoint:
    """Deploy a registered model to an online endpoint, and move traffic once it scores.

    The endpoint is made if it is missing. A call after a killed one goes on where that stopped. The
    same model with the same settings is not deployed twice.

    Args:
        endpoint: Name of the endpoint: 3 to 32 letters, digits and single dashes.
        model_uri: Registered version, for example "models:/delay@champion". An alias is resolved
            once. A version that is in Databricks is copied to Azure ML's registry first.
        deployment: Name of the deployment; by default "blue", or "green" while "blue" has traffic.
        traffic: Share of the requests for the new deployment, 0 to 100 percent. The others keep
            their proportions.
        compute: "managed", or the name of an attached Kubernetes cluster.
        instance_type: Type of the instances; "Standard_DS3_v2" by default on managed compute.
        instance_count: Number of instances.
        auth_mode: "key", "aml_token" or "aad_token"; of a new endpoint.
        registry: Registry of the version, see `register_model`; by default the link's.
        no_code: Whether Azure ML's own image and scoring script serve the model.
        environment_variables: Variables of the scoring process.
        request_settings: Azure's `requestSettings`, for example {"requestTimeout": "PT90S"}.
        data_collector: Azure's `dataCollector`.
        app_insights_enabled: Whether requests are logged to Application Insights.
        tags: Further tags of the deployment.
        link: Link that has the workspace; by default the connected link.
        timeout_s: Longest time for Azure's operation on the deployment.
        report: Function that is called with the name of each step.

    Returns:
        The endpoint with its deployments and their traffic.

    Raises:
        ArgumentError: A name or a share is not valid.
        ModelNotFoundError: There is no such version.
        ServingError: The model cannot be served, the deployment failed, or it does not score.
        OperationTimeoutError: Azure did not end the deployment in time; it goes on.
    """
    settings = _Settings(
        compute=compute,
        instance_type=instance_type,
        instance_count=instance_count,
        environment_variables=environment_variables or {},
        request_settings=request_settings,
        data_collector=data_collector,
        app_insights_enabled=app_insights_enabled,
        tags=tags or {},
        no_code=no_code,
    )
    _check_arguments(endpoint, deployment, traffic, auth_mode, settings)
    link = link or current_link()
    resources = AmlResources.of_link(link)
    with use_link(link), TemporaryDirectory(prefix="dbx_aml_") as folder:
        model = read_served_model(
            model_uri, registry=registry, link=link, folder=Path(folder), report=report
        )
        _check_model(model, no_code)
        steps = _DeploySteps(resources, endpoint, model, settings, report)
        current = steps.prepare(auth_mode)
        name = deployment or steps.choose_name(current)
        current = steps.deploy(current, name, timeout_s)
        return steps.move_traffic(current, name, traffic)


class _DeploySteps:
    """The steps of one call, in order: `prepare`, `choose_name`, `deploy`, `move_traffic`."""

    def __init__(
        self,
        resources: AmlResources,
        endpoint: str,
        model: ServedModel,
        settings: _Settings,
        report: Report,
    ) -> None:
        self._resources = resources
        self._endpoint = endpoint
        self._model = model
        self._settings = settings
        self._compute = settings.compute
        self._report = report
        self._properties: dict[str, Any] = {}
        self._content_hash = ""

    def prepare(self, auth_mode: str) -> Endpoint:
        """Make environment, code and endpoint; return the endpoint."""
        resources = self._resources
        compute_id = self._compute_id()
        before = Endpoint.find(resources, self._endpoint)
        if before is not None and self._wait(endpoint_path(before.name), before.state):
            before = Endpoint.find(resources, self._endpoint)
        if before is not None:
            self._check_endpoint(before)
        # Errors of the arguments come before the model is copied.
        environment = None
        if not self._settings.no_code:
            self._report("Resolving the environment")
            environment = resolve_environment(self._model.folder)
        self._model = copy_to_azure_ml(self._model, resources.link, self._report)
        self._properties = self._deployment_properties(environment)
        self._content_hash = _hash(self._properties, self._settings)
        if before is None:
            self._report("Creating the endpoint")
            properties: dict[str, Any] = {"authMode": AUTH_MODES[auth_mode], "traffic": {}}
            if compute_id:
                properties["compute"] = compute_id
            body = {
                "location": resources.location,
                "identity": {"type": "SystemAssigned"},
                "tags": creation_tags(),
                "properties": properties,
            }
            resources.put(
                endpoint_path(self._endpoint), body, show_command=show_command(self._endpoint)
            )
        return Endpoint.read(resources, self._endpoint)

    def choose_name(self, endpoint: Endpoint) -> str:
        """Return the name of the same deployment if it exists, else a color without traffic."""
        for item in endpoint.deployments:
            if item.tags.get(_CONTENT_HASH) == self._content_hash and (
                item.state not in _FAILED_STATES
            ):
                return item.name
        for color in _COLORS:
            if not endpoint.traffic.get(color):
                return color
        raise ServingError(
            f"new deployment must have another name than those with traffic: got blue and green "
            f"with traffic at {endpoint.name!r}; name it with --deployment, or move the traffic "
            f"with 'dbx-aml endpoint traffic {endpoint.name} blue=100 green=0'"
        )

    def deploy(self, endpoint: Endpoint, name: str, timeout_s: float) -> Endpoint:
        """Make the deployment unless it exists, score one row with it, return the endpoint."""
        path = deployment_path(self._endpoint, name)
        before = endpoint.find_deployment(name)
        if before is not None and self._wait(path, before.state, timeout_s):
            # The operation may have failed or deleted it, and it may take traffic now.
            endpoint = Endpoint.read(self._resources, self._endpoint)
            before = endpoint.find_deployment(name)
        is_failed = before is not None and before.state in _FAILED_STATES
        if before is not None and (
            is_failed or before.tags.get(_CONTENT_HASH) != self._content_hash
        ):
            if before.traffic:
                content = (
                    f"the state {before.state}" if is_failed else "another model or other settings"
                )
                raise ServingError(
                    f"deployment with traffic must not change: got {name!r} with "
                    f"{before.traffic} % of {self._endpoint!r} and {content}; name another one "
                    "with --deployment"
                )
            if is_failed:
                self._report(f"Deleting the failed deployment {name}")
                self._resources.client.delete(self._resources.url(path))
            before = None
        if before is None:
            self._put_deployment(name, path, timeout_s)
        endpoint = Endpoint.read(self._resources, self._endpoint)
        self._score_example(endpoint, name)
        return endpoint

    def move_traffic(self, endpoint: Endpoint, name: str, traffic: int) -> Endpoint:
        """Give the deployment its share, and let the others keep their proportions."""
        shares = split_traffic(endpoint.traffic, name, traffic)
        if shares == {key: share for key, share in endpoint.traffic.items() if share}:
            return endpoint
        self._report("Moving traffic")
        return endpoint.set_traffic({**dict.fromkeys(endpoint.traffic, 0), **shares})

    def _wait(self, path: str, state: str, timeout_s: float = OPERATION_TIMEOUT_S) -> bool:
        """Wait for another call's operation on a resource; return whether there was one.

        Azure refuses a change before the one before it has ended.
        """
        if state in ("", "Succeeded", *_FAILED_STATES):
            return False
        noun = "deployment" if "/deployments/" in path else "endpoint"
        self._report(f"Waiting for the {noun} {path.rpartition('/')[2]}")
        self._resources.client.wait_until_idle(
            self._resources.url(path),
            timeout_s=timeout_s,
            show_command=show_command(self._endpoint),
        )
        return True

    def _compute_id(self) -> str:
        """Return the ARM id of the Kubernetes compute; "" for managed compute."""
        if self._compute == MANAGED:
            return ""
        compute = find_compute(self._resources, self._compute)
        kind = "no compute" if compute is None else compute.kind
        if compute is None or kind != "Kubernetes":
            raise ServingError(
                f"compute must be an attached Kubernetes cluster: got {self._compute!r}, which is "
                f"{kind}; list the computes with 'dbx-aml compute list', or use 'managed'"
            )
        return compute.arm_id

    def _check_endpoint(self, endpoint: Endpoint) -> None:
        if endpoint.compute.lower() != self._compute.lower():
            raise ServingError(
                f"endpoint {endpoint.name!r} must be on compute {self._compute!r}: got "
                f"{endpoint.compute!r}; pass --compute {endpoint.compute}, or use another endpoint"
            )

    def _deployment_properties(self, environment: PinnedEnvironment | None) -> dict[str, Any]:
        """Return the properties of the deployment; its environment and code are made."""
        # It imports MLflow, which takes seconds; wrong arguments are refused at once.
        from dbx_aml.serving.code_upload import upload_code

        settings = self._settings
        is_managed = self._compute == MANAGED
        properties: dict[str, Any] = {
            "endpointComputeType": "Managed" if is_managed else "Kubernetes",
            "model": self._resources.arm_id(self._model.path),
            "environmentVariables": dict(settings.environment_variables),
            "appInsightsEnabled": settings.app_insights_enabled,
        }
        instance_type = settings.instance_type or (DEFAULT_INSTANCE_TYPE if is_managed else None)
        for name, value in (
            ("instanceType", instance_type),
            ("requestSettings", settings.request_settings),
            ("dataCollector", settings.data_collector),
        ):
            if value is not None:
                properties[name] = value
        if environment is not None:
            properties["environmentId"] = register_environment(
                self._resources, _ENVIRONMENT_NAME, environment
            )
            properties["codeConfiguration"] = {
                "codeId": upload_code(self._resources, {SCORE_SCRIPT.name: SCORE_SCRIPT}),
                "scoringScript": SCORE_SCRIPT.name,
            }
        return properties

    def _put_deployment(self, name: str, path: str, timeout_s: float) -> None:
        model, settings = self._model, self._settings
        tags = {
            **creation_tags(),
            MODEL_NAME: model.name,
            MODEL_VERSION: model.version,
            _RUN_ID: model.run_id,
            _REGISTRY: self._resources.workspace.workspace_name,
            **({COPIED_FROM: model.copied_from} if model.copied_from else {}),
            _CONTENT_HASH: self._content_hash,
            **settings.tags,
        }
        body = {
            "location": self._resources.location,
            "sku": {"name": "Default", "capacity": settings.instance_count},
            "tags": tags,
            "properties": self._properties,
        }
        self._report(f"Deploying {name}: Azure ML builds the image and starts it")
        try:
            self._resources.put(
                path, body, timeout_s=timeout_s, show_command=show_command(self._endpoint)
            )
        except OperationError as err:
            raise self._deployment_error(name, str(err)) from err

    def _score_example(self, endpoint: Endpoint, name: str) -> None:
        """Score the first row of the model's input example with the new deployment."""
        row = self._model.example_row()
        if row is None:
            log.warning(
                "model models:/%s/%s has no frame or array as input example, so %s was not asked "
                "to score a row; log the model with input_example, or score a row by yourself",
                *(self._model.name, self._model.version, name),
            )
            return
        self._report(f"Scoring a row with {name}")
        try:
            endpoint.score(row, deployment=name)
        except ServiceError as err:
            raise ServingError(
                f"deployment {name!r} must score the model's input example before it gets "
                f"traffic: {err}"
            ) from err

    def _deployment_error(self, name: str, problem: str) -> ServingError:
        """Return the error of a failed deployment, with the last lines of both logs."""
        logs = []
        for container in ("storage-initializer", "inference-server"):
            try:
                text = read_log(self._resources, self._endpoint, name, container, _LOG_LINES)
            except ServiceError:
                continue
            if text.strip():
                logs.append(f"{container}:\n{text.rstrip()}")
        text = "\n".join(logs)
        reason = reason_or_last_lines(text)
        return ServingError(
            f"deployment {name!r} of {self._endpoint!r} must start: {problem}"
            + (f"; its log says {reason!r}" if reason else "")
            + f"; read it with 'dbx-aml endpoint logs {self._endpoint} --deployment {name}'; the "
            "next deploy of that name removes it",
            log=text,
        )


def split_traffic(shares: Mapping[str, int], name: str, percent: int) -> dict[str, int]:
    """Return the traffic that gives one deployment a share and lets the others keep proportions.

    Args:
        shares: Percent by deployment before.
        name: Deployment that gets `percent`.
        percent: Its new share. The only deployment with traffic gets 100.
    """
    others = {key: share for key, share in shares.items() if share and key != name}
    if not others:
        return {name: 100} if percent else {}
    rest = 100 - percent
    total = sum(others.values())
    result = {key: rest * share // total for key, share in others.items()}
    # The largest one takes what rounding has left.
    result[max(others, key=lambda key: others[key])] += rest - sum(result.values())
    return {key: share for key, share in {**result, name: percent}.items() if share}


def _check_arguments(
    endpoint: str,
    deployment: str | None,
    traffic: int,
    auth_mode: str,
    settings: _Settings,
) -> None:
    for noun, name in (("endpoint", endpoint), ("deployment", deployment)):
        if name is not None and not _NAME.fullmatch(name):
            raise ArgumentError(
                f"name of the {noun} must be 3 to 32 letters, digits and single dashes, with a "
                f"letter first: got {name!r}"
            )
    if not 0 <= traffic <= 100:
        raise ArgumentError(f"traffic must be 0 to 100 percent: got {traffic}")
    if auth_mode not in AUTH_MODES:
        raise ArgumentError(f"auth_mode must be one of {list(AUTH_MODES)}: got {auth_mode!r}")
    if settings.instance_count < 1:
        raise ArgumentError(
            f"instance_count must be 1 or more: got {settings.instance_count}; pass for example 1"
        )


def _check_model(model: ServedModel, no_code: bool) -> None:
    if not model.has_signature:
        log.warning(
            "model models:/%s/%s has no signature: each request must have 'index' beside "
            "'columns' and 'data'; log the model with a signature or an input example",
            *(model.name, model.version),
        )
    missing = model.missing_no_code_packages() if no_code else []
    if missing:
        raise ServingError(
            f"model without code must have {' and '.join(missing)} in its requirements: got "
            f"models:/{model.name}/{model.version} without; log it with "
            f"extra_pip_requirements={missing}, or deploy it without --no-code"
        )


def _hash(properties: Mapping[str, Any], settings: _Settings) -> str:
    content = {"properties": dict(properties), "instances": settings.instance_count}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
