"""An Azure ML workspace: its identity, tracking URI, `config.json`, ARM id and pages."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from dbx_aml._common.errors import LinkError, WorkspaceError
from dbx_aml.link.clouds import CLOUDS, Cloud
from dbx_aml.link.config_file import CONFIG_KEY, CONFIG_NAME, find_config, read_config
from dbx_aml.link.uris import is_azureml_uri

_PARTS = ("subscription_id", "resource_group", "workspace_name")
_GUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_ARM_ID = (
    r"/subscriptions/(?P<subscription_id>[^/?]+)/resourceGroups/(?P<resource_group>[^/?]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace_name>[^/?]+)"
)
_URI = re.compile(
    rf"(?:adb)?azureml://(?P<host>[^/?]+)/(?:mlflow/v[12]\.0|history/v1\.0){_ARM_ID}/?(?:\?.*)?",
    re.IGNORECASE,
)
_EXAMPLE = "azureml://<region>.api.azureml.ms/mlflow/v1.0/subscriptions/..."


@dataclass(frozen=True, kw_only=True)
class AmlWorkspace:
    """One workspace, by the names that Azure knows it by.

    Args:
        subscription_id: A GUID.
        resource_group: For example "rg-ml".
        workspace_name: For example "mlw-team".
        region: For example "westeurope"; None where nobody said.
        tracking_uri: Follows from the region; given for a workspace behind a private link, whose
            host is its own. None where neither is known: Azure Resource Manager knows.
        cloud: "AzureCloud", "AzureChinaCloud" (21Vianet) or "AzureUSGovernment".

    Raises:
        WorkspaceError: A part cannot exist, or the tracking URI is another workspace's.
    """

    subscription_id: str
    resource_group: str
    workspace_name: str
    region: str | None = None
    tracking_uri: str | None = None
    cloud: str = "AzureCloud"

    def __post_init__(self) -> None:
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
                f"cloud must be one Azure ML is in: got {self.cloud!r}; use one of {list(CLOUDS)}"
            )
        if self.tracking_uri is not None:
            self._check_tracking_uri(self.tracking_uri)
        elif self.region is not None:
            host = f"{self.region}.{self.hosts.api}"
            object.__setattr__(self, "tracking_uri", f"azureml://{host}/mlflow/v1.0{self.arm_id}")

    def _check_tracking_uri(self, uri: str) -> None:
        host, parts = _taken_apart(uri)
        if any(parts[name].lower() != getattr(self, name).lower() for name in _PARTS):
            raise WorkspaceError(
                f"tracking URI must be that of workspace {self.workspace_name!r} in "
                f"{self.resource_group!r}: got {uri!r}; leave one of the two out"
            )
        cloud, region = _place(host)
        if (cloud or self.cloud) != self.cloud or (region or self.region) != (
            self.region or region
        ):
            raise WorkspaceError(
                f"tracking URI must fit region {self.region!r} and cloud {self.cloud!r}: "
                f"got {uri!r}; leave the region out"
            )
        object.__setattr__(self, "region", self.region or region)
        if host.endswith(".experiments.azureml.net"):
            host = f"{region}.{self.hosts.api}"
        # One form for all versions of the path: the client itself chooses which it calls.
        object.__setattr__(self, "tracking_uri", f"azureml://{host}/mlflow/v1.0{self.arm_id}")

    @classmethod
    def from_tracking_uri(cls, uri: str, *, cloud: str | None = None) -> Self:
        """Return the workspace of an MLflow tracking URI.

        Args:
            uri: "azureml://..." of any version, or "adbazureml://..." as Microsoft's cluster
                script of 2019 wrote it.
            cloud: Of a host that does not tell, as one behind a private link may not.

        Raises:
            WorkspaceError: It is no such URI.
        """
        host, parts = _taken_apart(uri)
        found = _place(host)[0]
        return cls(**parts, tracking_uri=uri, cloud=cloud or found or "AzureCloud")

    @classmethod
    def from_arm_id(cls, arm_id: str, **more: Any) -> Self:
        """Return the workspace of an ARM id.

        Args:
            arm_id: "/subscriptions/.../resourceGroups/.../providers/.../workspaces/<name>".
            more: `region`, `tracking_uri`, `cloud`.

        Raises:
            WorkspaceError: It is no ARM id of a workspace.
        """
        found = re.fullmatch(rf"{_ARM_ID}/?", arm_id, re.IGNORECASE)
        if not found:
            raise WorkspaceError(
                f"ARM id must be a workspace's: got {arm_id!r}; copy 'Resource ID' from the "
                "workspace's properties in the portal"
            )
        return cls(**found.groupdict(), **more)

    @classmethod
    def from_config(cls, path: str | Path = ".") -> Self:
        """Return the workspace that a `config.json` names.

        Args:
            path: The file, as the portal or Microsoft's cluster script of 2019 wrote it, or a
                folder: its `.azureml`, then itself, each with all parents, is looked through.

        Raises:
            LinkError: There is none, or it names no workspace.
            WorkspaceError: It names one that cannot exist.
        """
        file = find_config(path)
        if file is None:
            raise LinkError(
                f"{CONFIG_NAME} must exist: got {str(path)!r}; "
                "download it from the workspace's overview page in the portal"
            )
        parts = workspace_parts(read_config(file))
        missing = [name for name in _PARTS if name not in parts]
        if missing:
            raise LinkError(
                f"{file} must name a workspace: missing {missing}; "
                "download it from the workspace's overview page in the portal"
            )
        return cls(**parts)

    def to_config(self) -> dict[str, Any]:
        """Return the content of a `config.json` that Azure ML's own `MLClient.from_config` reads.

        What Azure ML has no key for is under "dbx_aml".
        """
        plain = AmlWorkspace(**self.parts, region=self.region, cloud=self.cloud)
        ours: dict[str, Any] = {} if self.region is None else {"region": self.region}
        if self.cloud != "AzureCloud":
            ours["cloud"] = self.cloud
        if self.tracking_uri != plain.tracking_uri:
            ours["aml_tracking_uri"] = self.tracking_uri
        return {**self.parts, **({CONFIG_KEY: ours} if ours else {})}

    @property
    def parts(self) -> dict[str, str]:
        """The three names that say which workspace."""
        return {name: getattr(self, name) for name in _PARTS}

    @property
    def hosts(self) -> Cloud:
        """The cloud's hosts."""
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

    def run_url(self, run_id: str) -> str:
        """Return a run's page in Azure ML studio, for example of "0b9a6c1d-..."."""
        return f"https://{self.hosts.studio}/runs/{quote(run_id, safe='')}?wsid={self.arm_id}"


def workspace_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the content of a `config.json` says of a workspace, as `AmlWorkspace` takes it.

    Older files have one "Scope" with the ARM id instead of three names.
    """
    ours = config.get(CONFIG_KEY)
    ours = ours if isinstance(ours, Mapping) else {}
    scope = config.get("Scope")
    found = {name: config[name] for name in _PARTS if config.get(name) is not None}
    if isinstance(scope, str):
        found |= AmlWorkspace.from_arm_id(scope).parts
    found |= {name: ours[name] for name in ("region", "cloud") if ours.get(name) is not None}
    uri = ours.get("aml_tracking_uri")
    if is_azureml_uri(uri):
        found["tracking_uri"] = uri
    return found


def _taken_apart(uri: str) -> tuple[str, dict[str, str]]:
    found = _URI.fullmatch(uri.strip())
    if not found:
        raise WorkspaceError(
            f"Azure ML tracking URI must name a workspace: got {uri!r}; "
            f"copy it from the workspace's properties in the portal, it starts {_EXAMPLE}"
        )
    parts = {name: unquote(found[name]) for name in _PARTS}
    return found["host"].lower(), parts


def _place(host: str) -> tuple[str | None, str | None]:
    """Return the cloud and region that a host tells, each None where it does not."""
    if host.endswith(".experiments.azureml.net"):
        return "AzureCloud", host.split(".")[0]
    for name, cloud in CLOUDS.items():
        if host.endswith(f".{cloud.api}"):
            return name, host.removesuffix(f".{cloud.api}").rpartition(".")[2]
    return None, None
