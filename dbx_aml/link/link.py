"""Step 1, link: who tracks, who registers, which Azure ML workspace; and who said so."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from dbx_aml._common.errors import LinkError
from dbx_aml.link.config_file import CONFIG_KEY, CONFIG_NAME, read_config, write_config
from dbx_aml.link.link_layers import OWN, PREFIX, found_values
from dbx_aml.link.secret_reference import SecretRef
from dbx_aml.link.uris import is_azureml_uri
from dbx_aml.link.workspace import AmlWorkspace

__all__ = ["MODES", "REGISTRIES", "Link", "SecretRef"]

MODES = ("databricks", "aml", "dual")
REGISTRIES = ("databricks-uc", "databricks", "aml")
DATABRICKS = "databricks"
RETRY_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Link:
    """How the two services are used together.

    Args:
        mode: Who tracks: "databricks", "aml" or "dual".
        registry: Who registers: "databricks-uc", "databricks" or "aml". By default Azure ML where
            it tracks, else Unity Catalog.
        experiment: Databricks path or Azure ML name; None leaves MLflow's.
        aml_workspace: The Azure ML workspace.
        databricks_tracking_uri: "databricks", "databricks://<profile>", or any MLflow URI in its
            place, for example "sqlite:///mlflow.db" on a laptop.
        aml_tracking_uri: Follows from the workspace; or any MLflow URI in its place.
        tenant_id: Of the service principal; else AZURE_TENANT_ID.
        client_id: Of the service principal or the managed identity; else AZURE_CLIENT_ID.
        client_secret: Where the service principal's secret is; else AZURE_CLIENT_SECRET.
        service_credential: Name of a Unity Catalog service credential to use instead.
        retry_timeout_s: Seconds for which a request that is answered 429 or 503 is tried again.
        origins: Who gave each value, by its name.

    Raises:
        LinkError: The values do not fit together.
    """

    mode: str = DATABRICKS
    registry: str | None = None
    experiment: str | None = None
    aml_workspace: AmlWorkspace | None = None
    databricks_tracking_uri: str = DATABRICKS
    aml_tracking_uri: str | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: SecretRef | None = None
    service_credential: str | None = None
    retry_timeout_s: float = RETRY_TIMEOUT_S
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.registry is None:
            self._set(registry="aml" if self.mode == "aml" else "databricks-uc")
        for name, known in (("mode", MODES), ("registry", REGISTRIES)):
            if getattr(self, name) not in known:
                raise LinkError(
                    f"{name} must be one of {list(known)}: got {getattr(self, name)!r}; "
                    f"set it as an argument, as {PREFIX}{name.upper()} or in {CONFIG_NAME}"
                )
        if self.client_secret is not None:
            self._set(client_secret=SecretRef.parse(self.client_secret))
        if self.client_secret and self.service_credential:
            raise LinkError(
                "link must name one credential: got client_secret and service_credential; "
                "leave one of the two out"
            )
        if not isinstance(
            self.retry_timeout_s, int | float
        ) or not 0 <= self.retry_timeout_s < float("inf"):
            raise LinkError(
                f"retry_timeout_s must be seconds, 0 or more: got {self.retry_timeout_s!r}; try 120"
            )
        self._join_workspace_and_uri()
        if self.uses_azure_ml and self.aml_workspace is None and self.aml_tracking_uri is None:
            raise LinkError(
                f"link must name an Azure ML workspace: got mode {self.mode!r}, registry "
                f"{self.registry!r} and none; set {PREFIX}CONFIG to the workspace's "
                f"{CONFIG_NAME}, which its page in the portal offers"
            )

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _join_workspace_and_uri(self) -> None:
        workspace, uri = self.aml_workspace, self.aml_tracking_uri
        if uri is not None and is_azureml_uri(uri):
            if workspace is None:
                self._set(aml_workspace=AmlWorkspace.from_tracking_uri(uri))
            else:
                self._set(aml_workspace=replace(workspace, tracking_uri=uri))
            uri = None
        if uri is None and self.aml_workspace is not None:
            self._set(aml_tracking_uri=self.aml_workspace.tracking_uri)

    @property
    def tracking_uri(self) -> str | None:
        """What MLflow tracks to; None where only Azure Resource Manager knows it.

        In mode "dual" this is the Databricks side.
        """
        return self.aml_tracking_uri if self.mode == "aml" else self.databricks_tracking_uri

    @property
    def registry_uri(self) -> str | None:
        """What MLflow registers to; None where only Azure Resource Manager knows it."""
        if self.registry == "aml":
            return self.aml_tracking_uri
        scheme, colon, profile = self.databricks_tracking_uri.partition("://")
        # Another MLflow server in the place of Databricks has its registry in it.
        return (
            f"{self.registry}{colon}{profile}" if scheme == DATABRICKS else scheme + colon + profile
        )

    @property
    def uses_azure_ml(self) -> bool:
        """Whether Azure ML, or what stands for it, tracks or registers, be it as the second."""
        return self.mode in ("aml", "dual") or self.registry == "aml"

    @property
    def calls_azure_ml(self) -> bool:
        """Whether MLflow itself will call Azure ML: it tracks or registers there."""
        is_real = self.aml_tracking_uri is None or is_azureml_uri(self.aml_tracking_uri)
        return is_real and "aml" in (self.mode, self.registry)

    @classmethod
    def load(cls, *, config: str | Path | None = None, **arguments: Any) -> Self:
        """Return the link that arguments, `DBX_AML_*` variables and a `config.json` describe.

        Of each value the first of these counts: argument, variable, file. Azure ML's tracking
        URI in MLFLOW_TRACKING_URI counts last; the old "adbazureml://" means mode "dual". Where
        nobody says the mode, a workspace means "dual" on Databricks and "aml" elsewhere, and none
        means "databricks".

        Args:
            config: A `config.json` or a folder that has one. By default DBX_AML_CONFIG,
                /databricks/dbx_aml/config.json, /databricks/config.json, then the first that
                `MLClient.from_config` would find from the current folder.
            arguments: Values by their names here or as parts of a workspace (`subscription_id`,
                `resource_group`, `workspace_name`, `region`, `cloud`). None is "not given".

        Raises:
            LinkError: A value is wrong, two do not fit, or the file cannot be read.
            WorkspaceError: The workspace cannot exist.
        """
        found, origins = found_values(arguments, config)
        return cls(**found, origins=origins)

    @classmethod
    def from_file(cls, file: Path | None, **arguments: Any) -> Self:
        """Return the link of arguments and one file, whatever this machine's variables say.

        Args:
            file: A `config.json`; None for arguments alone.
            arguments: As `load` takes them.

        Raises:
            LinkError: A value is wrong, two do not fit, or the file cannot be read.
            WorkspaceError: The workspace cannot exist.
        """
        found, origins = found_values(arguments, file, is_machine=False)
        return cls(**found, origins=origins)

    def save(self, path: str | Path) -> Path:
        """Write a `config.json` that `MLClient.from_config` reads too; return its path.

        Other keys of an existing file stay. A reader sees the old file or the new one.

        Args:
            path: A file ending in ".json", or a folder.

        Raises:
            LinkError: It cannot be written, or there is a file that is no JSON object.
        """
        file = Path(path)
        if file.suffix != ".json":
            file = file / CONFIG_NAME
        content = read_config(file) if file.exists() else {}
        ours: dict[str, Any] = {"mode": self.mode, "registry": self.registry}
        plain = Link()
        for name in OWN[2:]:
            value = getattr(self, name)
            if value != getattr(plain, name):
                ours[name] = value.as_json() if isinstance(value, SecretRef) else value
        workspace = self.aml_workspace.to_config() if self.aml_workspace else {}
        ours |= workspace.pop(CONFIG_KEY, {})
        if self.aml_tracking_uri is not None and not is_azureml_uri(self.aml_tracking_uri):
            ours["aml_tracking_uri"] = self.aml_tracking_uri
        write_config(file, {**content, **workspace, CONFIG_KEY: ours})
        return file
