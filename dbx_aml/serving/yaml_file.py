"""Endpoints and deployments in Azure ML's YAML files, as arguments of `deploy_model`.

Source:
    Microsoft Learn, "CLI (v2) managed online deployment YAML schema", "CLI (v2) online endpoint
    YAML schema", "CLI (v2) Kubernetes online deployment YAML schema"; seen 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.text import first_line

_LEGACY = ("ACI", "AKS")
_MODEL = re.compile(r"azureml:(?P<name>[^:@/]+):(?P<version>[0-9]+)")
_ENDPOINT_FIELDS = frozenset({"$schema", "auth_mode", "compute", "name", "tags"})
_DEPLOYMENT_FIELDS = frozenset(
    {
        "$schema",
        "app_insights_enabled",
        "data_collector",
        "endpoint_name",
        "environment_variables",
        "instance_count",
        "instance_type",
        "model",
        "name",
        "request_settings",
        "tags",
        "type",
    }
)
# Fields that this package sets by itself, and the reason.
_OWN_FIELDS = {
    "code_configuration": "the scoring script is the package's own, see --no-code",
    "environment": "the environment comes from the model's requirements",
}
_REQUEST_SETTINGS = {
    "request_timeout_ms": "requestTimeout",
    "max_concurrent_requests_per_instance": "maxConcurrentRequestsPerInstance",
    "max_queue_wait_ms": "maxQueueWait",
}


def read_deployment_file(file: Path, endpoint: str) -> dict[str, Any]:
    """Return arguments of `deploy_model` from a file in Azure ML's YAML.

    Args:
        file: Endpoint or deployment, of managed or Kubernetes compute.
        endpoint: Name of the endpoint that is deployed to.

    Raises:
        ArgumentError: The file is not readable, names another endpoint, has a field that is not
            supported, or is a deploy config of the retired web services.
    """
    content = read_yaml(file)
    compute_type = str(content.get("computeType") or content.get("compute_type") or "").upper()
    if compute_type in _LEGACY:
        raise ArgumentError(
            f"{file} must be an online deployment: got computeType {compute_type}, a web service "
            "of Azure ML's SDK v1, whose support has ended; managed online endpoints replaced it: "
            f"run 'dbx-aml endpoint deploy {endpoint} --model-uri models:/<name>/<version>'"
        )
    if "endpoint_name" in content or "model" in content:
        return _deployment_arguments(file, content, endpoint)
    _check_fields(file, content, _ENDPOINT_FIELDS)
    _check_name(file, content.get("name"), endpoint)
    arguments: dict[str, Any] = {}
    if content.get("auth_mode"):
        arguments["auth_mode"] = str(content["auth_mode"])
    if content.get("compute"):
        arguments["compute"] = str(content["compute"]).removeprefix("azureml:")
    return arguments


def _deployment_arguments(file: Path, content: Mapping[str, Any], endpoint: str) -> dict[str, Any]:
    _check_fields(file, content, _DEPLOYMENT_FIELDS)
    _check_name(file, content.get("endpoint_name"), endpoint)
    arguments: dict[str, Any] = {}
    if content.get("name"):
        arguments["deployment"] = str(content["name"])
    if content.get("model") is not None:
        match = _MODEL.fullmatch(str(content["model"]))
        if match is None:
            raise ArgumentError(
                f"model in {file} must be 'azureml:<name>:<version>': got {content['model']!r}; "
                "register the model first, or pass --model-uri"
            )
        arguments["model_uri"] = f"models:/{match['name']}/{match['version']}"
        arguments["registry"] = "aml"
    for name in ("instance_type", "instance_count", "app_insights_enabled"):
        if content.get(name) is not None:
            arguments[name] = content[name]
    for name in ("environment_variables", "tags"):
        texts = read_mapping(file, content, name)
        arguments[name] = {str(key): str(value) for key, value in texts.items()}
    if content.get("request_settings"):
        arguments["request_settings"] = _request_settings(file, content)
    if content.get("data_collector"):
        arguments["data_collector"] = _data_collector(file, content)
    return arguments


def _request_settings(file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    settings = {}
    for name, value in read_mapping(file, content, "request_settings").items():
        if name not in _REQUEST_SETTINGS:
            raise _unsupported(file, f"request_settings.{name}", _REQUEST_SETTINGS)
        is_time = name.endswith("_ms")
        settings[_REQUEST_SETTINGS[name]] = f"PT{int(value) / 1000:g}S" if is_time else int(value)
    return settings


def _data_collector(file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    fields = read_mapping(file, content, "data_collector")
    names = ("collections", "rolling_rate", "sampling_rate")
    for name in fields:
        if name not in names:
            raise _unsupported(file, f"data_collector.{name}", names)
    rate = float(fields.get("sampling_rate", 1.0))
    collections = {}
    for name, collection in (fields.get("collections") or {}).items():
        unknown_fields = set(collection) - {"enabled"}
        if unknown_fields:
            field = f"data_collector.collections.{name}.{min(unknown_fields)}"
            raise _unsupported(file, field, ("enabled",))
        is_enabled = str(collection.get("enabled")).lower() == "true"
        mode = "Enabled" if is_enabled else "Disabled"
        collections[str(name)] = {"dataCollectionMode": mode, "samplingRate": rate}
    result: dict[str, Any] = {"collections": collections}
    if fields.get("rolling_rate"):
        result["rollingRate"] = str(fields["rolling_rate"]).capitalize()
    return result


def read_yaml(file: Path) -> Mapping[str, Any]:
    """Return the content of a YAML file that has a mapping.

    Raises:
        ArgumentError: The file is not readable, or has something else.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as err:
        raise ArgumentError(f"{file} must be readable YAML: got {first_line(err)}") from err
    if not isinstance(content, Mapping):
        raise ArgumentError(f"{file} must be a YAML mapping: got {type(content).__name__}")
    return content


def read_mapping(file: Path, content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a field of a YAML file that must be a mapping; an empty one if it is missing."""
    fields = content.get(name) or {}
    if not isinstance(fields, Mapping):
        raise ArgumentError(f"{name} in {file} must be a mapping: got {fields!r}")
    return fields


def _check_fields(file: Path, content: Mapping[str, Any], fields: frozenset[str]) -> None:
    for name in content:
        if name in _OWN_FIELDS:
            raise ArgumentError(
                f"field {name!r} of {file} must be left out: {_OWN_FIELDS[name]}; remove it"
            )
        if name not in fields:
            raise _unsupported(file, name, fields)


def _check_name(file: Path, name: object, endpoint: str) -> None:
    if name is not None and name != endpoint:
        raise ArgumentError(
            f"endpoint in {file} must be {endpoint!r}: got {name!r}; deploy to that endpoint"
        )


def _unsupported(file: Path, name: str, fields: Any) -> ArgumentError:
    return ArgumentError(
        f"field {name!r} of {file} must be one that dbx-aml supports: got one outside of "
        f"{sorted(fields)}; remove it, or deploy the file with 'az ml online-deployment'"
    )
