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
from dbx_aml.serving.endpoints import MANAGED

_LEGACY = ("ACI", "AKS")
_MODEL = re.compile(r"azureml:(?P<name>[^:@/]+):(?P<version>[0-9]+)")
_ENDPOINT_FIELDS = frozenset({"$schema", "auth_mode", "compute", "name"})
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
# Fields that become arguments without a change, and their types.
_VALUES = {"instance_type": str, "instance_count": int, "app_insights_enabled": bool}
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


def read_deployment_file(file: Path, endpoint: str, compute: str | None = None) -> dict[str, Any]:
    """Return arguments of `deploy_model` from a file in Azure ML's YAML.

    Args:
        file: Endpoint or deployment, of managed or Kubernetes compute.
        endpoint: Name of the endpoint that is deployed to.
        compute: Compute that the caller names, for no file of a deployment has it.

    Raises:
        ArgumentError: The file is not readable, names another endpoint or kind of compute, has a
            field or a value that is not supported, or is a deploy config of the retired web
            services.
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
        _check_type(file, content.get("type"), compute or MANAGED)
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
    for name, kind in _VALUES.items():
        value = content.get(name)
        if value is not None:
            if type(value) is not kind:
                raise _wrong_value(file, name, kind, value)
            arguments[name] = value
    for name in ("environment_variables", "tags"):
        arguments[name] = read_texts(file, content, name)
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
        if type(value) is not int:
            raise _wrong_value(file, f"request_settings.{name}", int, value)
        is_time = name.endswith("_ms")
        settings[_REQUEST_SETTINGS[name]] = f"PT{value / 1000:g}S" if is_time else value
    return settings


def _data_collector(file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    fields = read_mapping(file, content, "data_collector")
    names = ("collections", "rolling_rate", "sampling_rate")
    for name in fields:
        if name not in names:
            raise _unsupported(file, f"data_collector.{name}", names)
    rate = fields.get("sampling_rate", 1.0)
    if type(rate) not in (int, float):
        raise _wrong_value(file, "data_collector.sampling_rate", float, rate)
    collections = {}
    names_and_fields = read_mapping(file, fields, "collections")
    for name in names_and_fields:
        collection = read_mapping(file, names_and_fields, name)
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


def read_texts(file: Path, content: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return the texts of a mapping in a YAML file, as the file writes them: `true` is "true".

    Raises:
        ArgumentError: The field is no mapping, or a value is missing or no single value.
    """
    texts = {}
    for key, value in read_mapping(file, content, name).items():
        if value is None or isinstance(value, list | Mapping):
            raise _wrong_value(file, f"{name}.{key}", str, value)
        texts[str(key)] = str(value).lower() if isinstance(value, bool) else str(value)
    return texts


def _check_type(file: Path, kind: object, compute: str) -> None:
    """Refuse a type of deployment that does not fit the compute."""
    fitting_kind = "managed" if compute == MANAGED else "kubernetes"
    if kind not in (None, fitting_kind):
        raise ArgumentError(
            f"type in {file} must be {fitting_kind!r} on compute {compute!r}: got {kind!r}; pass "
            "the name of the attached cluster with --compute, or another file"
        )


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


def _wrong_value(file: Path, name: str, kind: type, value: object) -> ArgumentError:
    noun = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
    return ArgumentError(f"{name} in {file} must be {noun}: got {value!r}; correct it")


def _unsupported(file: Path, name: str, fields: Any) -> ArgumentError:
    return ArgumentError(
        f"field {name!r} of {file} must be one that dbx-aml supports: got one outside of "
        f"{sorted(fields)}; remove it, or deploy the file with 'az ml online-deployment'"
    )
