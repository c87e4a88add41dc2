"""The settings of a link from arguments, `DBX_AML_*` variables and a `config.json`, in order."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dbx_aml._common.config_layers import Layer, SettingSource, resolve
from dbx_aml._common.errors import LinkError
from dbx_aml.link.config_file import (
    CONFIG_KEY,
    CONFIG_NAME,
    SETTING_TYPES,
    find_config,
    first_trusted_file,
    is_link_config,
    read_config,
    refuse_remote_servers,
)
from dbx_aml.link.secret_reference import SecretRef
from dbx_aml.link.uris import is_adbazureml_uri, is_azureml_uri
from dbx_aml.link.workspace import WORKSPACE_NAMES, AmlWorkspace, workspace_fields

# Files that init scripts write: of this package, and of Microsoft's script of 2019.
CLUSTER_CONFIGS = (Path("/databricks/dbx_aml/config.json"), Path("/databricks/config.json"))
VARIABLE_PREFIX = "DBX_AML_"
LINK_FIELDS = (
    "mode",
    "registry",
    "experiment",
    "databricks_tracking_uri",
    "tenant_id",
    "client_id",
    "client_secret",
    "service_credential",
    "retry_timeout_s",
)
_LOCATION_FIELDS = ("region", "cloud")
# Every setting that a variable or the file can have.
SETTINGS = tuple(SETTING_TYPES)
# Set by the scheme "adbazureml" and by the file of Microsoft's script, which tracked in both.
_LEGACY_DUAL = "legacy_dual"


def resolve_link_values(
    arguments: Mapping[str, Any],
    config: str | Path | None,
    *,
    uses_machine: bool = True,
    on_databricks: bool | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of a link and the origin of each, see `Link.load`.

    Args:
        arguments: Values by name.
        config: `config.json`, or path to search it at.
        uses_machine: Whether this machine's variables and files count too.
        on_databricks: Whether the link is for a process on Databricks, which decides the default
            mode; None for this process.
    """
    unknown = sorted(set(arguments) - {*SETTINGS, "aml_workspace"})
    if unknown:
        raise LinkError(f"link must have known values: got {unknown}; use {list(SETTINGS)}")
    layers = _layers(arguments, config, uses_machine=uses_machine)
    settings = resolve(_without_locations_of_other_workspaces(layers))
    values = {name: setting.value for name, setting in settings.items()}
    origins = {name: setting.origin for name, setting in settings.items()}
    workspace = _pop_workspace(values)
    if workspace is not None:
        values["aml_workspace"] = workspace
    is_legacy_dual, legacy_origin = values.pop(_LEGACY_DUAL, False), origins.pop(_LEGACY_DUAL, "")
    if "mode" not in values and is_legacy_dual:
        values["mode"] = "dual"
        origins["mode"] = f"{legacy_origin} (as Microsoft's script of 2019 meant it)"
    elif "mode" not in values:
        values["mode"], origins["mode"] = _default_mode(values, on_databricks)
    return values, origins


def conflicting_values(config: str | Path | None = None) -> dict[str, tuple[SettingSource, ...]]:
    """Return the settings that this machine's variables and files contradict each other in.

    Args:
        config: `config.json`, or path to search it at, as in `Link.load`.

    Returns:
        By name of the setting, its value in each place as text; the first one counts. A secret
        comes as its reference.

    Raises:
        LinkError: The file cannot be read, or a value is malformed.
        WorkspaceError: A workspace cannot exist.
    """
    layers = []
    for layer in _layers({}, config, uses_machine=True):
        values = dict(layer.values)
        if "client_secret" in values:
            values["client_secret"] = SecretRef.parse(values["client_secret"])
        if "retry_timeout_s" in values:
            values["retry_timeout_s"] = _to_number(values["retry_timeout_s"])
        texts = {name: str(value) for name, value in values.items()}
        # Azure compares names without regard to capitals.
        texts |= {
            name: text.lower()
            for name, text in texts.items()
            if name in WORKSPACE_NAMES or is_azureml_uri(text)
        }
        layers.append(replace(layer, values=texts))
    settings = resolve(layers)
    return {name: setting.sources for name, setting in settings.items() if setting.is_contradicted}


def _layers(
    arguments: Mapping[str, Any], config: str | Path | None, *, uses_machine: bool
) -> list[Layer]:
    """Return the places of settings in the order in which they count, without None values."""
    layers = [Layer(values=arguments, origin="argument")]
    if uses_machine:
        layers.append(Layer.from_environment(VARIABLE_PREFIX, SETTINGS))
    if uses_machine or config is not None:
        layers += _file_layers(config)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uses_machine and is_azureml_uri(uri):
        layers.append(Layer(values={"aml_tracking_uri": uri}, origin="MLFLOW_TRACKING_URI"))
    return [_expand_workspace(layer) for layer in layers]


def _expand_workspace(layer: Layer) -> Layer:
    """Return a layer with the workspace's names, region and cloud instead of its id or URI."""
    values = {name: value for name, value in layer.values.items() if value is not None}
    workspace, uri = values.pop("aml_workspace", None), values.get("aml_tracking_uri")
    if isinstance(workspace, str) and not is_azureml_uri(workspace):
        workspace = AmlWorkspace.from_arm_id(workspace)
    if isinstance(workspace, str) or (workspace is None and is_azureml_uri(uri)):
        uri = str(workspace or uri)
        if is_adbazureml_uri(uri):
            values[_LEGACY_DUAL] = True
        workspace = AmlWorkspace.from_tracking_uri(uri, cloud=values.get("cloud"))
    if workspace is None:
        return replace(layer, values=values)
    fields = {
        **workspace.names,
        "region": workspace.region,
        "cloud": workspace.cloud,
        "aml_tracking_uri": workspace.known_tracking_uri,
    }
    origin = layer.origins.get("aml_tracking_uri", layer.origin)
    origins = {name: origin for name in (*fields, _LEGACY_DUAL) if name not in values}
    return Layer(
        values={**fields, **values}, origin=layer.origin, origins={**layer.origins, **origins}
    )


def _without_locations_of_other_workspaces(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Skip region, cloud and tracking URI of a lower layer that names a different workspace."""
    names: dict[str, str] = {}
    for layer in layers:
        values = layer.values
        # Azure compares names without regard to capitals.
        layer_names = {
            name: str(values[name]).lower() for name in WORKSPACE_NAMES if name in values
        }
        if any(names.get(name, value) != value for name, value in layer_names.items()):
            is_azureml = is_azureml_uri(values.get("aml_tracking_uri"))
            skipped = (*_LOCATION_FIELDS, *(("aml_tracking_uri",) if is_azureml else ()))
            kept = {name: value for name, value in values.items() if name not in skipped}
            layer = replace(layer, values=kept)
        names = {**layer_names, **names}
        yield layer


def _pop_workspace(values: dict[str, Any]) -> AmlWorkspace | None:
    """Take the workspace's fields out of the values; return the workspace, None if unnamed."""
    missing = [name for name in WORKSPACE_NAMES if name not in values]
    if missing and len(missing) < len(WORKSPACE_NAMES):
        raise LinkError(
            f"Azure ML workspace must be whole: missing {missing}; "
            f"set {VARIABLE_PREFIX}{missing[0].upper()} or name a {CONFIG_NAME}"
        )
    names = (*WORKSPACE_NAMES, *_LOCATION_FIELDS)
    fields = {name: values.pop(name) for name in names if name in values}
    if missing:
        return None
    uri = values.get("aml_tracking_uri")
    if is_azureml_uri(uri):
        fields["tracking_uri"] = uri
    return AmlWorkspace(**fields)


def _config_file(config: str | Path | None) -> Path | None:
    path = config or os.environ.get(f"{VARIABLE_PREFIX}CONFIG")
    if not path:
        return first_trusted_file(CLUSTER_CONFIGS) or find_config()
    file = find_config(path)
    if file is None:
        raise LinkError(
            f"config must be a {CONFIG_NAME} or a folder with one: got {str(path)!r}; "
            "write one with 'dbx-aml link set'"
        )
    return file


def _file_layers(config: str | Path | None) -> list[Layer]:
    file = _config_file(config)
    if file is None:
        return []
    content = read_config(file)
    if not is_link_config(content):
        if config is None:
            # Another tool's file in the current folder.
            return []
        raise LinkError(
            f"{file} must name a workspace or a link: it has neither; "
            "write it with 'dbx-aml link set'"
        )
    settings = content.get(CONFIG_KEY) or {}
    unknown = set(settings) - set(SETTINGS)
    if unknown:
        # An unknown key may be a secret: the message has only the settings that are like it.
        similar = {match for key in unknown for match in get_close_matches(key, SETTINGS, 1)}
        raise LinkError(
            f"{file} must have known settings under {CONFIG_KEY!r}: got {len(unknown)} unknown, "
            f"similar to {sorted(similar)}; use {list(SETTINGS)}"
        )
    is_named = config or os.environ.get(f"{VARIABLE_PREFIX}CONFIG") or file in CLUSTER_CONFIGS
    if not is_named:
        refuse_remote_servers(file, content)
    fields = workspace_fields(content)
    fields.pop("tracking_uri", None)
    if file == CLUSTER_CONFIGS[1] and CONFIG_KEY not in content:
        fields[_LEGACY_DUAL] = True
    return [Layer(values={**fields, **settings}, origin=str(file))]


def _default_mode(values: Mapping[str, Any], on_databricks: bool | None) -> tuple[str, str]:
    """Return the mode of a link that has none, and its origin."""
    if not values.keys() & {"aml_workspace", "aml_tracking_uri"}:
        return "databricks", "default"
    if on_databricks is None:
        on_databricks = "DATABRICKS_RUNTIME_VERSION" in os.environ
    if on_databricks:
        return "dual", "default (on Databricks, with a workspace)"
    return "aml", "default (with a workspace)"


def _to_number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return value
