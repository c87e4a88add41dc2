"""Which value counts: an argument, a variable `DBX_AML_*`, a `config.json`; and who gave it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import LinkError
from dbx_aml.link.config_file import CONFIG_KEY, CONFIG_NAME, find_config, is_link, read_config
from dbx_aml.link.secret_reference import SecretRef
from dbx_aml.link.uris import is_adbazureml_uri, is_azureml_uri
from dbx_aml.link.workspace import AmlWorkspace, workspace_parts

# Where an init script puts the file: ours, then Microsoft's of 2019.
CLUSTER_CONFIGS = (Path("/databricks/dbx_aml/config.json"), Path("/databricks/config.json"))
PREFIX = "DBX_AML_"
OWN = (
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
_WORKSPACE = ("subscription_id", "resource_group", "workspace_name")
# Every value that a layer can give.
NAMES = (*OWN, *_WORKSPACE, "region", "cloud", "aml_tracking_uri")
_Layer = tuple[Mapping[str, Any], str]


def found_values(
    arguments: Mapping[str, Any], config: str | Path | None, *, is_machine: bool = True
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of a link and the origin of each, see `Link.load`.

    Args:
        arguments: Values by name.
        config: The file, or where to look for it.
        is_machine: This machine's variables and files count too.
    """
    unknown = sorted(set(arguments) - {*NAMES, "aml_workspace"})
    if unknown:
        raise LinkError(f"link must have known values: got {unknown}; use {list(NAMES)}")
    found, origins = _first_of_each(_layers(arguments, config, is_machine=is_machine))
    named = [name for name in _WORKSPACE if name in found]
    if named and len(named) < len(_WORKSPACE):
        missing = [name for name in _WORKSPACE if name not in found]
        raise LinkError(
            f"Azure ML workspace must be whole: missing {missing}; "
            f"set {PREFIX}{missing[0].upper()} or name a {CONFIG_NAME}"
        )
    parts = {name: found.pop(name) for name in (*_WORKSPACE, "region", "cloud") if name in found}
    if named:
        uri = found.get("aml_tracking_uri")
        if is_azureml_uri(uri):
            parts["tracking_uri"] = uri
        found["aml_workspace"] = AmlWorkspace(**parts)
    legacy = found.pop("legacy", False)
    script = origins.pop("legacy", "")
    if "mode" not in found:
        found["mode"], origins["mode"] = _default_mode(found, script if legacy else "")
    if "retry_timeout_s" in found:
        found["retry_timeout_s"] = _seconds(found["retry_timeout_s"])
    return found, origins


def conflicts(config: str | Path | None = None) -> dict[str, list[tuple[str, str]]]:
    """Return what this machine's layers say differently: by name, each value and who gave it.

    The first value of each is the one that counts. A secret is given as its reference.

    Args:
        config: As `Link.load` takes it.

    Raises:
        LinkError: The file cannot be read, or a value cannot be.
        WorkspaceError: A workspace cannot exist.
    """
    said: dict[str, list[tuple[str, str]]] = {}
    for values, who in _layers({}, config, is_machine=True):
        for name, value in _spelled_out(values).items():
            if name == "client_secret":
                value = SecretRef.parse(value)
            elif name == "retry_timeout_s":
                value = _seconds(value)
            said.setdefault(name, []).append((str(value), _origin(who, name)))
    return {name: values for name, values in said.items() if len({one for one, _ in values}) > 1}


def _layers(
    arguments: Mapping[str, Any], config: str | Path | None, *, is_machine: bool
) -> list[_Layer]:
    layers: list[_Layer] = [(arguments, "argument")]
    if is_machine:
        variables = {name: os.environ.get(PREFIX + name.upper()) or None for name in NAMES}
        layers.append((variables, PREFIX))
    if is_machine or config is not None:
        layers += _file_layers(config)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if is_machine and is_azureml_uri(uri):
        layers.append(({"aml_tracking_uri": uri}, "MLFLOW_TRACKING_URI"))
    return layers


def _origin(who: str, name: str) -> str:
    return who + name.upper() if who == PREFIX else who


def _first_of_each(layers: list[_Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for values, who in layers:
        given = _spelled_out(values)
        other = any(
            name in found and name in given and found[name] != given[name] for name in _WORKSPACE
        )
        for name, value in given.items():
            # Where another workspace was named, this one's place is not that one's.
            is_place = name in ("region", "cloud") or (
                name == "aml_tracking_uri" and is_azureml_uri(value)
            )
            if name not in found and not (other and is_place):
                found[name] = value
                origins[name] = _origin(who, name)
    return found, origins


def _spelled_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's values with its workspace in parts, and a mark for the old scheme."""
    given = {name: value for name, value in values.items() if value is not None}
    workspace, uri = given.pop("aml_workspace", None), given.get("aml_tracking_uri")
    if isinstance(workspace, str) and not is_azureml_uri(workspace):
        workspace = AmlWorkspace.from_arm_id(workspace)
    if isinstance(workspace, str) or (workspace is None and is_azureml_uri(uri)):
        uri = str(workspace or uri)
        if is_adbazureml_uri(uri):
            given["legacy"] = True
        workspace = AmlWorkspace.from_tracking_uri(uri, cloud=given.get("cloud"))
    if workspace is not None:
        place = {"region": workspace.region, "cloud": workspace.cloud}
        place |= {"aml_tracking_uri": workspace.tracking_uri}
        known = {name: value for name, value in place.items() if value is not None}
        given = {**workspace.parts, **known, **given}
    return given


def _config_file(config: str | Path | None) -> Path | None:
    asked = config or os.environ.get(PREFIX + "CONFIG")
    if asked:
        file = find_config(asked)
        if file is None:
            raise LinkError(
                f"config must be a {CONFIG_NAME} or a folder with one: got {str(asked)!r}; "
                "write one with 'dbx-aml link set'"
            )
        return file
    return next((file for file in CLUSTER_CONFIGS if file.is_file()), None) or find_config()


def _file_layers(config: str | Path | None) -> list[_Layer]:
    file = _config_file(config)
    if file is None:
        return []
    content = read_config(file)
    if not is_link(content):
        if config is None:
            # Another tool's, in the current folder.
            return []
        raise LinkError(
            f"{file} must name a workspace or a link: it has neither; "
            "write it with 'dbx-aml link set'"
        )
    ours = content.get(CONFIG_KEY) or {}
    unknown = sorted(set(ours) - set(NAMES)) if isinstance(ours, Mapping) else [CONFIG_KEY]
    if unknown:
        raise LinkError(f"{file} must have known values: got {unknown}; use {list(NAMES)}")
    parts = workspace_parts(content)
    parts.pop("tracking_uri", None)
    if file == CLUSTER_CONFIGS[1] and CONFIG_KEY not in content:
        # Microsoft's script of 2019 set up tracking in both services.
        parts["legacy"] = True
    return [({**parts, **ours}, str(file))]


def _default_mode(found: Mapping[str, Any], script: str) -> tuple[str, str]:
    if script:
        return "dual", f"{script} (as Microsoft's script of 2019 meant it)"
    if not found.keys() & {"aml_workspace", "aml_tracking_uri"}:
        return "databricks", "default"
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return "dual", "default (on Databricks, with a workspace)"
    return "aml", "default (with a workspace)"


def _seconds(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
