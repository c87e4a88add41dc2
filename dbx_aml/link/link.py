"""The link: which Azure ML workspace, which service tracks, which registers, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from dbx_aml._common.errors import ArgumentError, LinkError
from dbx_aml._common.redact import redact
from dbx_aml._common.retry import RETRY_TIMEOUT_S, RETRY_TIMEOUT_VARIABLE, parse_retry_timeout
from dbx_aml.link.config_file import (
    CONFIG_KEY,
    CONFIG_NAME,
    SCOPE_KEY,
    config_text,
    read_config,
    write_config,
)
from dbx_aml.link.link_layers import LINK_FIELDS, VARIABLE_PREFIX, resolve_link_values
from dbx_aml.link.secret_reference import SecretRef
from dbx_aml.link.uris import is_azureml_uri
from dbx_aml.link.workspace import AmlWorkspace

Mode = Literal["databricks", "aml", "dual"]
Registry = Literal["databricks-uc", "databricks", "aml"]
_CHOICES = {"mode": get_args(Mode), "registry": get_args(Registry)}
DATABRICKS = "databricks"


@dataclass(frozen=True, kw_only=True)
class Link:
    """The settings that link Databricks with Azure ML.

    Args:
        mode: Service that tracks: "databricks", "aml", or "dual" for both.
        registry: Service that registers: "databricks-uc", "databricks" or "aml". By default Azure
            ML if only it tracks, else Unity Catalog.
        experiment: Databricks path or Azure ML name of the experiment; None leaves MLflow's.
        aml_workspace: Azure ML workspace.
        databricks_tracking_uri: "databricks", "databricks://<profile>", or another MLflow URI that
            replaces Databricks, for example "sqlite:///mlflow.db" on a laptop.
        aml_tracking_uri: MLflow URI that replaces Azure ML. By default the workspace's.
        tenant_id: Tenant of the service principal; else AZURE_TENANT_ID.
        client_id: Id of the service principal or managed identity; else AZURE_CLIENT_ID.
        client_secret: Reference to the service principal's secret; else AZURE_CLIENT_SECRET.
        service_credential: Name of a Unity Catalog service credential to use instead.
        retry_timeout_s: Longest time for one request with its retries, in seconds.
        origins: Place of each value, by its name, for example "DBX_AML_MODE".

    Raises:
        LinkError: The values contradict each other.
    """

    mode: Mode = "databricks"
    registry: Registry | None = None
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
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise LinkError(
                    f"{name} must be one of {list(choices)}: got {getattr(self, name)!r}; "
                    f"set it as an argument, as {VARIABLE_PREFIX}{name.upper()} or in {CONFIG_NAME}"
                )
        if self.client_secret is not None:
            self._set(client_secret=SecretRef.parse(self.client_secret))
        if self.client_secret and self.service_credential:
            raise LinkError(
                "link must name one credential: got client_secret and service_credential; "
                "leave one of the two out"
            )
        is_variable = self.origins.get("retry_timeout_s") == RETRY_TIMEOUT_VARIABLE
        setting = RETRY_TIMEOUT_VARIABLE if is_variable else "retry_timeout_s"
        try:
            self._set(retry_timeout_s=parse_retry_timeout(self.retry_timeout_s, setting))
        except ArgumentError as err:
            raise LinkError(str(err)) from err
        self._join_workspace_and_uri()
        if self.uses_azure_ml and self.aml_workspace is None and self.aml_tracking_uri is None:
            raise LinkError(
                f"link must name an Azure ML workspace: got mode {self.mode!r}, registry "
                f"{self.registry!r} and none; set {VARIABLE_PREFIX}CONFIG to the workspace's "
                f"{CONFIG_NAME}, which its page in the portal offers"
            )

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _join_workspace_and_uri(self) -> None:
        """Derive the workspace from an Azure ML URI, and the URI from the workspace."""
        uri = self.aml_tracking_uri
        if uri is not None and is_azureml_uri(uri):
            if self.aml_workspace is None:
                self._set(aml_workspace=AmlWorkspace.from_tracking_uri(uri))
            else:
                self._set(aml_workspace=self.aml_workspace.at_tracking_uri(uri))
            uri = None
        if uri is None and self.aml_workspace is not None:
            self._set(aml_tracking_uri=self.aml_workspace.known_tracking_uri)

    def __repr__(self) -> str:
        values = {shown.name: getattr(self, shown.name) for shown in fields(self) if shown.repr}
        texts = (
            f"{name}={(redact(value) if isinstance(value, str) else value)!r}"
            for name, value in values.items()
        )
        return f"Link({', '.join(texts)})"

    @property
    def tracking_uri(self) -> str | None:
        """MLflow's tracking URI; None if only Azure Resource Manager knows it.

        In mode "dual" the runs are tracked in Databricks.
        """
        return self.aml_tracking_uri if self.mode == "aml" else self.databricks_tracking_uri

    @property
    def registry_uri(self) -> str | None:
        """MLflow's registry URI; None if only Azure Resource Manager knows it."""
        if self.registry == "aml":
            return self.aml_tracking_uri
        scheme, separator, profile = self.databricks_tracking_uri.partition("://")
        if scheme == DATABRICKS:
            return f"{self.registry}{separator}{profile}"
        # Another MLflow server that replaces Databricks has its own registry.
        return self.databricks_tracking_uri

    @property
    def uses_azure_ml(self) -> bool:
        """Whether Azure ML, or what replaces it, tracks or registers; in mode "dual" it does."""
        return self.mode in ("aml", "dual") or self.registry == "aml"

    @property
    def calls_azure_ml(self) -> bool:
        """Whether MLflow's own calls go to Azure ML: it alone tracks, or it registers."""
        is_replaced = self.aml_tracking_uri is not None and not is_azureml_uri(
            self.aml_tracking_uri
        )
        return not is_replaced and "aml" in (self.mode, self.registry)

    @classmethod
    def load(cls, *, config: str | Path | None = None, **arguments: Any) -> Self:
        """Return the link that arguments, `DBX_AML_*` variables and a `config.json` describe.

        Of each value the first of these places counts: argument, variable, file. Azure ML's
        tracking URI in MLFLOW_TRACKING_URI counts last; the older scheme "adbazureml" means mode
        "dual". Without a mode, a workspace means "dual" on Databricks and "aml" elsewhere, and no
        workspace means "databricks".

        Args:
            config: `config.json` or its folder. By default DBX_AML_CONFIG,
                /databricks/dbx_aml/config.json, /databricks/config.json, then the first file that
                `MLClient.from_config` would find from the current folder.
            arguments: Fields of the link, and fields of its workspace (`subscription_id`,
                `resource_group`, `workspace_name`, `region`, `cloud`). None counts as not given.

        Raises:
            LinkError: A value is wrong, two contradict each other, or the file cannot be read.
            WorkspaceError: The workspace cannot exist.
        """
        values, origins = resolve_link_values(arguments, config)
        return cls(**values, origins=origins)

    @classmethod
    def from_file(
        cls, file: Path | None, *, on_databricks: bool | None = None, **arguments: Any
    ) -> Self:
        """Return the link of arguments and one file, without this machine's variables.

        Args:
            file: `config.json` or its folder; None for the arguments alone.
            on_databricks: Whether the link is for a process on Databricks, which decides the mode
                of a file without one; None for this process.
            arguments: Values as in `load`.

        Raises:
            LinkError: A value is wrong, two contradict each other, or the file cannot be read.
            WorkspaceError: The workspace cannot exist.
        """
        values, origins = resolve_link_values(
            arguments, file, uses_machine=False, on_databricks=on_databricks
        )
        return cls(**values, origins=origins)

    def save(self, path: str | Path) -> Path:
        """Write a `config.json` that `MLClient.from_config` reads too; return its path.

        Other keys of an existing file stay, except "Scope": it would name another workspace than
        the new values. A reader sees the old file or the new one.

        Args:
            path: File ending in ".json", or folder.

        Raises:
            LinkError: The file cannot be written, or the existing one is no JSON object.
        """
        file = Path(path)
        if file.suffix != ".json":
            file = file / CONFIG_NAME
        content = read_config(file) if file.exists() else {}
        if self.aml_workspace is not None:
            content.pop(SCOPE_KEY, None)
        write_config(file, {**content, **self.to_dict()})
        return file

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a `config.json`; secrets are only references in it."""
        settings: dict[str, Any] = {"mode": self.mode, "registry": self.registry}
        default = Link()
        for name in LINK_FIELDS[2:]:
            value = getattr(self, name)
            if value != getattr(default, name):
                settings[name] = value.to_dict() if isinstance(value, SecretRef) else value
        workspace = self.aml_workspace.to_dict() if self.aml_workspace else {}
        settings |= workspace.pop(CONFIG_KEY, {})
        if self.aml_tracking_uri is not None and not is_azureml_uri(self.aml_tracking_uri):
            settings["aml_tracking_uri"] = self.aml_tracking_uri
        return {**workspace, CONFIG_KEY: settings}

    def to_json(self, location: str = CONFIG_NAME) -> str:
        """Return the text of a `config.json`; secrets are only references in it.

        Args:
            location: Name of the place for the text, in the error.

        Raises:
            LinkError: A value is a secret.
        """
        return config_text(self.to_dict(), location)
