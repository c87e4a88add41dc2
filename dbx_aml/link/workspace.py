"""An Azure ML workspace: its names, tracking URI, `config.json`, ARM id and pages."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from dbx_aml._common.errors import LinkError, WorkspaceError
from dbx_aml._common.redact import redact_uri
from dbx_aml.link.clouds import (
    CLOUDS,
    LEGACY_HOST_SUFFIX,
    Cloud,
    check_data_plane_host,
    cloud_and_region,
)
from dbx_aml.link.config_file import (
    CONFIG_KEY,
    CONFIG_NAME,
    SCOPE_KEY,
    find_config,
    read_config,
)
from dbx_aml.link.uris import is_azureml_uri, parse_azureml_uri

# The names that identify a workspace.
WORKSPACE_NAMES = ("subscription_id", "resource_group", "workspace_name")
_GUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_ARM_ID = (
    r"/subscriptions/(?P<subscription_id>[^/?]+)/resourceGroups/(?P<resource_group>[^/?]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace_name>[^/?]+)/?"
)
# Paths of the API in tracking URIs: of the SDK, of the portal, and of the script of 2019.
_TRACKING_APIS = ("mlflow/v1.0", "mlflow/v2.0", "history/v1.0")
_EXAMPLE = "azureml://<region>.api.azureml.ms/mlflow/v1.0/subscriptions/..."


@dataclass(frozen=True, kw_only=True, init=False)
class AmlWorkspace:
    """The names, region and URIs of an Azure ML workspace.

    Args:
        subscription_id: GUID of the subscription.
        resource_group: Name of the resource group, for example "rg-ml".
        workspace_name: Name of the workspace, for example "mlw-team".
        region: Azure region, for example "westeurope"; None if unknown.
        tracking_uri: MLflow tracking URI. By default it follows from the region; a workspace
            behind a private endpoint has another host.
        cloud: "AzureCloud", "AzureChinaCloud" (21Vianet) or "AzureUSGovernment".

    Attributes:
        known_tracking_uri: The tracking URI; None if neither URI nor region was given, so that
            only Azure Resource Manager has it.

    Raises:
        WorkspaceError: A name cannot exist, or the tracking URI is another workspace's.
        UntrustedHostError: The tracking URI has a host that is not Azure ML's.
    """

    subscription_id: str
    resource_group: str
    workspace_name: str
    region: str | None
    known_tracking_uri: str | None = field(init=False)
    cloud: str

    def __init__(
        self,
        *,
        subscription_id: str,
        resource_group: str,
        workspace_name: str,
        region: str | None = None,
        tracking_uri: str | None = None,
        cloud: str = "AzureCloud",
    ) -> None:
        for name, value in (
            ("subscription_id", subscription_id),
            ("resource_group", resource_group),
            ("workspace_name", workspace_name),
            ("region", region),
            ("known_tracking_uri", None),
            ("cloud", cloud),
        ):
            object.__setattr__(self, name, value)
        for name, pattern, rule in (
            ("subscription_id", _GUID, "a GUID; the workspace's page in the portal has it"),
            ("resource_group", r"[\w.()-]{0,89}[\w()-]", "its bare name, not its ARM id"),
            ("workspace_name", r"[A-Za-z0-9][\w-]{2,32}", "3 to 33 letters, digits, '-' or '_'"),
            ("region", r"[a-z0-9]+", "for example 'westeurope', small letters without spaces"),
        ):
            value = getattr(self, name)
            if name == "region" and value is None:
                continue
            if not isinstance(value, str) or not re.fullmatch(pattern, value):
                raise WorkspaceError(f"Azure ML {name} must be valid: got {value!r}; use {rule}")
        if self.cloud not in CLOUDS:
            raise WorkspaceError(
                f"cloud must be one of Azure's: got {self.cloud!r}; use one of {list(CLOUDS)}"
            )
        if tracking_uri is not None:
            self._check_tracking_uri(tracking_uri)
        elif self.region is not None:
            self._set_tracking_host(f"{self.region}.{self.hosts.api}")

    def _check_tracking_uri(self, uri: str) -> None:
        host, names = _parse_tracking_uri(uri)
        if any(names[name].lower() != self.names[name].lower() for name in WORKSPACE_NAMES):
            raise WorkspaceError(
                f"tracking URI must be that of workspace {self.workspace_name!r} in "
                f"{self.resource_group!r}: got {redact_uri(uri)!r}; leave one of the two out"
            )
        cloud, region = cloud_and_region(host)
        if (cloud or self.cloud) != self.cloud or (region or self.region) != (
            self.region or region
        ):
            raise WorkspaceError(
                f"tracking URI must fit region {self.region!r} and cloud {self.cloud!r}: "
                f"got {redact_uri(uri)!r}; leave the region out"
            )
        object.__setattr__(self, "region", self.region or region)
        is_legacy = host.endswith(LEGACY_HOST_SUFFIX)
        self._set_tracking_host(f"{region}.{self.hosts.api}" if is_legacy else host)

    def _set_tracking_host(self, host: str) -> None:
        # One form of the URI for all paths of the API: the client chooses the path by itself.
        uri = f"azureml://{host}/mlflow/v1.0{self.arm_id}"
        object.__setattr__(self, "known_tracking_uri", uri)

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking URI of the workspace.

        Raises:
            WorkspaceError: Neither the URI nor the region is known; MLflow would track to this
                machine without a word.
        """
        if self.known_tracking_uri is None:
            raise WorkspaceError(
                f"tracking URI of workspace {self.workspace_name!r} must be known: got neither "
                "region nor tracking_uri; add region='westeurope' for example, or call "
                "dbx_aml.connect, which reads the URI from Azure"
            )
        return self.known_tracking_uri

    def at_tracking_uri(self, uri: str) -> Self:
        """Return the same workspace with a tracking URI."""
        region, cloud = self.region, self.cloud
        return type(self)(**self.names, region=region, tracking_uri=uri, cloud=cloud)

    @classmethod
    def from_tracking_uri(cls, uri: str, *, cloud: str | None = None) -> Self:
        """Return the workspace of an MLflow tracking URI.

        Args:
            uri: MLflow URI, "azureml://..." of any API version, or "adbazureml://..." as
                Microsoft's cluster script of 2019 wrote it.
            cloud: Cloud of a host that names none, as the host of a private endpoint may.

        Raises:
            WorkspaceError: The URI is not a workspace's tracking URI.
            UntrustedHostError: Its host is not Azure ML's.
        """
        host, names = _parse_tracking_uri(uri)
        host_cloud, _ = cloud_and_region(host)
        return cls(**names, tracking_uri=uri, cloud=cloud or host_cloud or "AzureCloud")

    @classmethod
    def from_arm_id(cls, arm_id: str, **fields: Any) -> Self:
        """Return the workspace of an ARM id.

        Args:
            arm_id: "/subscriptions/.../resourceGroups/.../providers/.../workspaces/<name>".
            fields: Values of `region`, `tracking_uri` and `cloud`.

        Raises:
            WorkspaceError: The text is not a workspace's ARM id.
        """
        match = re.fullmatch(_ARM_ID, arm_id, re.IGNORECASE)
        if not match:
            raise WorkspaceError(
                f"ARM id must be a workspace's: got {arm_id!r}; copy 'Resource ID' from the "
                "workspace's properties in the portal"
            )
        return cls(**match.groupdict(), **fields)

    @classmethod
    def from_config(cls, path: str | Path = ".") -> Self:
        """Return the workspace that a `config.json` names.

        Args:
            path: File as the portal or Microsoft's cluster script of 2019 wrote it, or folder: the
                `.azureml` of the folder and of its parents, then the folders themselves are
                searched.

        Raises:
            LinkError: There is no file, or it names no workspace.
            WorkspaceError: The file names a workspace that cannot exist.
        """
        file = find_config(path)
        if file is None:
            raise LinkError(
                f"{CONFIG_NAME} must exist: got {str(path)!r}; "
                "download it from the workspace's overview page in the portal"
            )
        fields = workspace_fields(read_config(file))
        missing = [name for name in WORKSPACE_NAMES if name not in fields]
        if missing:
            raise LinkError(
                f"{file} must name a workspace: missing {missing}; "
                "download it from the workspace's overview page in the portal"
            )
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a `config.json` that Azure ML's `MLClient.from_config` reads.

        Values that Azure ML has no key for are under "dbx_aml".
        """
        default = AmlWorkspace(**self.names, region=self.region, cloud=self.cloud)
        settings: dict[str, Any] = {} if self.region is None else {"region": self.region}
        if self.cloud != "AzureCloud":
            settings["cloud"] = self.cloud
        if self.known_tracking_uri != default.known_tracking_uri:
            settings["aml_tracking_uri"] = self.known_tracking_uri
        return {**self.names, **({CONFIG_KEY: settings} if settings else {})}

    @property
    def names(self) -> dict[str, str]:
        """Subscription, resource group and workspace name, by their keys in `config.json`."""
        return {name: getattr(self, name) for name in WORKSPACE_NAMES}

    @property
    def hosts(self) -> Cloud:
        """The hosts of the workspace's cloud."""
        return CLOUDS[self.cloud]

    @property
    def arm_id(self) -> str:
        """The resource's id, "/subscriptions/.../workspaces/<name>"."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace_name}"
        )

    @property
    def studio_url(self) -> str:
        """The workspace's page in Azure ML studio."""
        return f"https://{self.hosts.studio}/?wsid={self.arm_id}"

    @property
    def portal_url(self) -> str:
        """The workspace's page in the Azure portal."""
        return f"https://{self.hosts.portal}/#resource{self.arm_id}/overview"

    def run_url(self, run_id: str, *, tenant_id: str | None = None) -> str:
        """Return a run's page in Azure ML studio, for example of "0b9a6c1d-...".

        Args:
            run_id: Id of the run.
            tenant_id: Tenant of the workspace; without it the studio opens the person's own.
        """
        return self._studio_page(f"runs/{quote(run_id, safe='')}", tenant_id)

    def experiment_url(self, experiment_id: str, *, tenant_id: str | None = None) -> str:
        """Return an experiment's page in Azure ML studio; arguments as of `run_url`."""
        return self._studio_page(f"experiments/id/{quote(experiment_id, safe='')}", tenant_id)

    def model_version_url(
        self, name: str, version: str | int, *, tenant_id: str | None = None
    ) -> str:
        """Return the page of a model version in Azure ML studio; arguments as of `run_url`."""
        model = f"{quote(name, safe='')}:{quote(str(version), safe='')}"
        return self._studio_page(f"model/{model}/details", tenant_id)

    def endpoint_url(self, name: str, *, tenant_id: str | None = None) -> str:
        """Return the page of an online endpoint in Azure ML studio; arguments as of `run_url`."""
        return self._studio_page(f"endpoints/realtime/{quote(name, safe='')}/detail", tenant_id)

    def _studio_page(self, path: str, tenant_id: str | None) -> str:
        tenant = f"&tid={quote(tenant_id, safe='')}" if tenant_id else ""
        return f"https://{self.hosts.studio}/{path}?wsid={self.arm_id}{tenant}"


def workspace_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `AmlWorkspace` that the content of a `config.json` has.

    Older files have the ARM id as "Scope" instead of the three names.
    """
    settings = config.get(CONFIG_KEY)
    settings = settings if isinstance(settings, Mapping) else {}
    scope = config.get(SCOPE_KEY)
    fields = {name: config[name] for name in WORKSPACE_NAMES if config.get(name) is not None}
    if isinstance(scope, str):
        fields |= AmlWorkspace.from_arm_id(scope).names
    for name in ("region", "cloud"):
        if settings.get(name) is not None:
            fields[name] = settings[name]
    uri = settings.get("aml_tracking_uri")
    if is_azureml_uri(uri):
        fields["tracking_uri"] = uri
    return fields


def _parse_tracking_uri(uri: str) -> tuple[str, dict[str, str]]:
    """Return the host and the workspace's names in a tracking URI, once its host is checked."""
    parsed = parse_azureml_uri(uri)
    if (
        parsed is None
        or parsed.kind != "workspaces"
        or parsed.api.lower() not in _TRACKING_APIS
        or parsed.path.strip("/")
    ):
        raise WorkspaceError(
            f"Azure ML tracking URI must name a workspace: got {redact_uri(uri)!r}; "
            f"copy it from the workspace's properties in the portal, it starts {_EXAMPLE}"
        )
    values = (parsed.subscription_id, parsed.resource_group, parsed.name)
    host = check_data_plane_host(parsed.host)
    return host, dict(zip(WORKSPACE_NAMES, map(unquote, values), strict=True))
