"""Online endpoints of Azure ML and their deployments: list, score, move traffic, read logs, delete.

Source:
    Azure REST API, "Online Endpoints" and "Online Deployments", version 2025-12-01; seen 2026-11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from dbx_aml._common.errors import ArgumentError, ServiceError, ServingError
from dbx_aml._common.http import send
from dbx_aml._common.json_content import parse_json
from dbx_aml._common.retry import RetryPolicy
from dbx_aml._common.text import one_line
from dbx_aml.link.clouds import check_scoring_url
from dbx_aml.link.link import Link
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.serving.scoring_request import request_body
from dbx_aml.serving.server_log import reason_or_last_lines

if TYPE_CHECKING:
    from dbx_aml.serving.scoring_request import Rows

# Tags of a deployment.
MODEL_NAME, MODEL_VERSION = "dbx_aml.model_name", "dbx_aml.model_version"
COPIED_FROM = "dbx_aml.copied_from"
AUTH_MODES = {"key": "Key", "aml_token": "AMLToken", "aad_token": "AADToken"}
# Words of the command -> names of the containers of a deployment.
CONTAINERS = {
    "inference-server": "InferenceServer",
    "storage-initializer": "StorageInitializer",
}
MANAGED = "managed"
_SCORING_TIMEOUT_S = 90.0
_LOG_LINES = 40


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A deployment of an online endpoint.

    Args:
        endpoint: Name of the endpoint.
        name: Name of the deployment, for example "blue".
        state: Provisioning state, for example "Succeeded".
        traffic: Share of the endpoint's requests in percent.
        model: Name and version of the model, for example "delay:3"; "" if Azure names none.
        copied_from: Version in Databricks that the model was copied from; "" for no copy.
        compute: "managed", or "kubernetes".
        instance_type: Type of the instances; "" if Azure names none.
        instance_count: Number of instances.
        tags: Tags of the deployment.
    """

    endpoint: str
    name: str
    state: str
    traffic: int
    model: str
    copied_from: str
    compute: str
    instance_type: str
    instance_count: int
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class _Secret:
    """The key or the token of an endpoint, once it was requested."""

    text: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An online endpoint as Azure ML showed it when it was read.

    Args:
        name: Name of the endpoint.
        state: Provisioning state, for example "Succeeded".
        auth_mode: "key", "aml_token" or "aad_token".
        compute: "managed", or the name of the Kubernetes compute.
        scoring_uri: URL that scores.
        page: URL of its page in Azure ML studio.
        traffic: Share of the requests in percent by deployment.
        deployments: Its deployments.
        tags: Tags of the endpoint.
        resources: Workspace of the endpoint.
    """

    name: str
    state: str
    auth_mode: str
    compute: str
    scoring_uri: str
    page: str
    traffic: dict[str, int]
    deployments: tuple[Deployment, ...]
    tags: dict[str, str]
    resources: AmlResources = field(repr=False, compare=False)
    _secret: _Secret = field(default_factory=_Secret, init=False, repr=False, compare=False)

    @classmethod
    def load(cls, name: str, *, link: Link | None = None) -> Self:
        """Return an endpoint of the link's workspace.

        Args:
            name: Name of the endpoint.
            link: Link that has the workspace; by default the connected link.

        Raises:
            ServingError: There is no such endpoint.
            PermissionDeniedError: The caller may not read it.
        """
        return cls.read(AmlResources.of_link(link), name)

    @classmethod
    def read(cls, resources: AmlResources, name: str) -> Self:
        """Return an endpoint of a workspace; errors as of `load`."""
        endpoint = cls.find(resources, name)
        if endpoint is None:
            raise ServingError(
                f"endpoint must exist in workspace {resources.workspace.workspace_name!r}: got "
                f"{name!r}; list the endpoints with 'dbx-aml endpoint list'"
            )
        return endpoint

    @classmethod
    def find(cls, resources: AmlResources, name: str) -> Self | None:
        """Return an endpoint of a workspace, None if there is no such endpoint."""
        content = resources.find(endpoint_path(name))
        return None if content is None else cls._of_content(resources, content)

    @classmethod
    def load_all(cls, *, link: Link | None = None) -> list[Self]:
        """Return all endpoints of the link's workspace, each with its deployments."""
        return cls.read_all(AmlResources.of_link(link))

    @classmethod
    def read_all(cls, resources: AmlResources) -> list[Self]:
        """Return all endpoints of a workspace, each with its deployments."""
        return [
            cls._of_content(resources, content) for content in resources.list("/onlineEndpoints")
        ]

    @classmethod
    def _of_content(cls, resources: AmlResources, content: Mapping[str, Any]) -> Self:
        name, properties = str(content["name"]), content["properties"]
        deployments = resources.list(f"{endpoint_path(name)}/deployments")
        traffic = {key: int(share) for key, share in (properties.get("traffic") or {}).items()}
        auth_modes = {azure_name: word for word, azure_name in AUTH_MODES.items()}
        compute = str(properties.get("compute") or "").rpartition("/")[2]
        return cls(
            name=name,
            state=str(properties.get("provisioningState") or ""),
            auth_mode=auth_modes.get(properties.get("authMode"), str(properties.get("authMode"))),
            compute=compute or MANAGED,
            scoring_uri=str(properties.get("scoringUri") or ""),
            page=resources.workspace.endpoint_url(name, tenant_id=resources.tenant_id),
            traffic=traffic,
            deployments=tuple(_deployment(name, item, traffic) for item in deployments),
            tags=dict(content.get("tags") or {}),
            resources=resources,
        )

    def find_deployment(self, name: str) -> Deployment | None:
        """Return a deployment by its name, None if the endpoint has no such deployment."""
        return next((item for item in self.deployments if item.name == name), None)

    def get_deployment(self, name: str | None = None) -> Deployment:
        """Return a deployment; without a name the one that takes most of the traffic.

        Raises:
            ServingError: There is no such deployment, or none takes traffic.
        """
        if name is None:
            busiest = max(self.deployments, key=lambda item: item.traffic, default=None)
            if busiest is None or not (busiest.traffic or len(self.deployments) == 1):
                raise ServingError(
                    f"endpoint {self.name!r} must have a deployment with traffic: got "
                    f"{self.traffic}; name a deployment, or set traffic with "
                    f"'dbx-aml endpoint traffic {self.name} <deployment>=100'"
                )
            return busiest
        deployment = self.find_deployment(name)
        if deployment is None:
            names = [item.name for item in self.deployments]
            raise ServingError(
                f"deployment must exist at endpoint {self.name!r}: got {name!r}; use one of {names}"
            )
        return deployment

    def score(
        self,
        rows: Rows,
        *,
        deployment: str | None = None,
        timeout_s: float = _SCORING_TIMEOUT_S,
    ) -> Any:
        """Return the endpoint's predictions for rows.

        Args:
            rows: Frame or array; or the content of the request's "input_data"; or a whole request.
            deployment: Deployment that scores; by default the endpoint chooses by traffic.
            timeout_s: Longest time for the answer.

        Returns:
            Content of the answer: a list with a prediction, or a record of predictions, a row.

        Raises:
            ServingError: The endpoint answers with an error; the message has the last log lines.
            UntrustedHostError: The scoring URI is not at an inference host of Azure ML.
        """
        answer_to = self.get_deployment(deployment) if deployment else None
        headers = {"Content-Type": "application/json"}
        if deployment:
            headers["azureml-model-deployment"] = deployment
        # Azure Resource Manager names the host of a Kubernetes cluster.
        if self.compute == MANAGED:
            check_scoring_url(self.scoring_uri, self.resources.workspace.cloud)
        body = request_body(rows)
        while True:
            is_known = bool(self._secret.text)
            response = send(
                "POST",
                self.scoring_uri,
                RetryPolicy(timeout_s=timeout_s, max_attempts=3),
                headers={**headers, "Authorization": f"Bearer {self._get_secret()}"},
                data=body,
            )
            if response.status_code != 401 or not is_known:
                break
            # The key was made anew, or the token has expired.
            self._secret.text = ""
        if response.status_code == 200:
            return parse_json(response.text)
        name = response.headers.get("azureml-model-deployment") or (
            answer_to.name if answer_to else None
        )
        # What the model refuses is a bare 500: its log has the reason.
        log = self._log_end(name) if response.status_code >= 500 else ""
        text = one_line(response.text or response.reason, 200)
        raise ServingError(
            f"endpoint {self.name!r} must score the rows: got {response.status_code} from "
            f"{urlsplit(self.scoring_uri).netloc}: {text}"
            + (f"; the log of {name!r} says {reason_or_last_lines(log)!r}" if log else ""),
            log=log,
        )

    def set_traffic(self, traffic: Mapping[str, int], *, timeout_s: float = 600.0) -> Self:
        """Set the share of the requests that each deployment takes; return the endpoint.

        Args:
            traffic: Percent by deployment, for example {"blue": 90, "green": 10}. Deployments that
                are left out keep their share.
            timeout_s: Longest time for the change.

        Raises:
            ArgumentError: A share is outside of 0 to 100, or the sum is neither 0 nor 100.
            ServingError: There is no such deployment.
        """
        for name in traffic:
            self.get_deployment(name)
        shares = {**self.traffic, **traffic}
        total = sum(shares.values())
        if any(not 0 <= share <= 100 for share in shares.values()) or total not in (0, 100):
            text = " ".join(f"{name}={share}" for name, share in shares.items())
            raise ArgumentError(
                f"traffic must be 0 to 100 for each deployment with a sum of 100: got {text} with "
                f"the sum {total}; name each deployment whose share changes"
            )
        path = endpoint_path(self.name)
        self.resources.client.patch(
            self.resources.url(path),
            {"tags": self.tags, "properties": {"traffic": shares}},
            timeout_s=timeout_s,
            show_command=show_command(self.name),
        )
        return type(self).read(self.resources, self.name)

    def logs(
        self,
        deployment: str | None = None,
        *,
        container: str = "inference-server",
        max_lines: int = 100,
    ) -> str:
        """Return the last lines of a container's log.

        Args:
            deployment: Deployment; by default the one with most of the traffic.
            container: "inference-server", or "storage-initializer", which brings the model.
            max_lines: Largest number of lines.
        """
        name = self.get_deployment(deployment).name
        return read_log(self.resources, self.name, name, container, max_lines)

    def delete(self, deployment: str | None = None) -> None:
        """Delete the endpoint with all its deployments, or one deployment without traffic.

        Raises:
            ServingError: The deployment takes traffic.
        """
        path = endpoint_path(self.name)
        if deployment is not None:
            item = self.get_deployment(deployment)
            if item.traffic:
                raise ServingError(
                    f"deployment must have no traffic before it is deleted: got {item.traffic} % "
                    f"for {deployment!r}; move it with 'dbx-aml endpoint traffic {self.name}'"
                )
            path = deployment_path(self.name, deployment)
        self.resources.client.delete(self.resources.url(path), show_command=show_command(self.name))

    def _get_secret(self) -> str:
        """Return the key or the token that the endpoint asks for."""
        if self.auth_mode == "aad_token":
            # For example "https://ml.azure.com". Source: azure-ai-ml 1.35 `_azure_environments`.
            service = self.resources.workspace.hosts.inference.removeprefix("inference.")
            # The credential keeps it.
            return self.resources.credential.get_token(f"https://{service}/.default").token
        if not self._secret.text:
            is_token = self.auth_mode == "aml_token"
            action, name = ("token", "accessToken") if is_token else ("listKeys", "primaryKey")
            url = self.resources.url(f"{endpoint_path(self.name)}/{action}")
            self._secret.text = str(self.resources.client.post(url).get(name) or "")
        return self._secret.text

    def _log_end(self, deployment: str | None) -> str:
        if deployment is None:
            return ""
        try:
            return read_log(self.resources, self.name, deployment, "inference-server", _LOG_LINES)
        except ServiceError:
            # The caller may score without the right to read logs.
            return ""


def read_log(
    resources: AmlResources, endpoint: str, deployment: str, container: str, max_lines: int
) -> str:
    """Return the last lines of the log of a deployment's container.

    Raises:
        ArgumentError: There is no such container.
    """
    if container not in CONTAINERS:
        raise ArgumentError(f"container must be one of {list(CONTAINERS)}: got {container!r}")
    url = resources.url(f"{deployment_path(endpoint, deployment)}/getLogs")
    body = {"containerType": CONTAINERS[container], "tail": max_lines}
    return str(resources.client.post(url, body).get("content") or "")


def endpoint_path(name: str) -> str:
    """Return the path of an endpoint below its workspace."""
    return f"/onlineEndpoints/{quote(name, safe='')}"


def deployment_path(endpoint: str, name: str) -> str:
    """Return the path of a deployment below its workspace."""
    return f"{endpoint_path(endpoint)}/deployments/{quote(name, safe='')}"


def show_command(endpoint: str) -> str:
    """Return the command that shows an endpoint."""
    return f"dbx-aml endpoint show {endpoint}"


def _deployment(
    endpoint: str, content: Mapping[str, Any], traffic: Mapping[str, int]
) -> Deployment:
    name, properties = str(content["name"]), content["properties"]
    tags = dict(content.get("tags") or {})
    return Deployment(
        endpoint=endpoint,
        name=name,
        state=str(properties.get("provisioningState") or ""),
        traffic=traffic.get(name, 0),
        model=_model_text(str(properties.get("model") or "")),
        copied_from=tags.get(COPIED_FROM, ""),
        compute=str(properties.get("endpointComputeType") or MANAGED).lower(),
        instance_type=str(properties.get("instanceType") or ""),
        instance_count=int((content.get("sku") or {}).get("capacity") or 1),
        tags=tags,
    )


def _model_text(model_id: str) -> str:
    """Return "delay:3" for the ARM id of a version."""
    name, separator, version = model_id.rpartition("/models/")[2].partition("/versions/")
    return f"{name}:{version}" if separator else model_id


def iterate_deployments(endpoints: list[Endpoint]) -> Iterator[tuple[Endpoint, Deployment | None]]:
    """Yield each endpoint with each of its deployments, or with None if it has no deployment."""
    for endpoint in endpoints:
        yield from ((endpoint, item) for item in endpoint.deployments or (None,))
