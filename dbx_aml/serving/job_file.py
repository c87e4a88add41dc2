"""A command job in Azure ML's YAML file, as arguments of `submit_job`.

Source:
    Microsoft Learn, "CLI (v2) command job YAML schema"; seen 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import ArgumentError
from dbx_aml.serving.yaml_file import read_mapping, read_texts, read_yaml

_FIELDS = frozenset(
    {
        "$schema",
        "code",
        "command",
        "compute",
        "display_name",
        "environment",
        "environment_variables",
        "experiment_name",
        "inputs",
        "limits",
        "name",
        "resources",
        "tags",
        "type",
    }
)
# Field of the file -> argument.
_TEXTS = {
    "compute": "compute",
    "display_name": "display_name",
    "environment": "environment",
    "experiment_name": "experiment",
    "name": "name",
}


def read_job_file(file: Path) -> dict[str, Any]:
    """Return arguments of `submit_job` from a command job in Azure ML's YAML.

    Args:
        file: File of a command job; its paths are relative to its folder.

    Raises:
        ArgumentError: The file is not readable, is of another type of job, or has a field or an
            input that is not supported.
    """
    content = read_yaml(file)
    job_type = content.get("type", "command")
    if job_type != "command":
        raise ArgumentError(
            f"type in {file} must be 'command': got {job_type!r}; submit it with 'az ml job create'"
        )
    for name in content:
        if name not in _FIELDS:
            raise _unsupported(file, name)
    if not content.get("command"):
        raise ArgumentError(
            f"command in {file} must be given: got none; write for example "
            "'python train.py --alpha ${{inputs.alpha}}'"
        )
    folder = file.parent / str(content.get("code") or ".")
    if not folder.is_dir():
        raise ArgumentError(
            f"code in {file} must be a local folder: got {content.get('code')!r}; compare the path"
        )
    arguments: dict[str, Any] = {
        "script": folder / file.stem,
        "folder": folder,
        "command": str(content["command"]),
    }
    for name, argument in _TEXTS.items():
        value = content.get(name)
        if value is not None and not isinstance(value, str):
            raise _unsupported(file, f"{name} as a {type(value).__name__}")
        if value:
            arguments[argument] = value
    if "compute" in arguments:
        arguments["compute"] = arguments["compute"].removeprefix("azureml:")
    arguments["parameters"] = {
        name: _literal(file, name, value)
        for name, value in read_mapping(file, content, "inputs").items()
    }
    for name in ("environment_variables", "tags"):
        arguments[name] = read_texts(file, content, name)
    _check_resources(file, read_mapping(file, content, "resources"))
    limits = read_mapping(file, content, "limits")
    for name in limits:
        if name != "timeout":
            raise _unsupported(file, f"limits.{name}")
    timeout = limits.get("timeout")
    if timeout is not None:
        if type(timeout) not in (int, float) or timeout < 1:
            raise ArgumentError(
                f"limits.timeout in {file} must be a number of seconds, 1 or more: got "
                f"{timeout!r}; write for example 3600"
            )
        arguments["timeout_s"] = float(timeout)
    return arguments


def _check_resources(file: Path, resources: Mapping[str, Any]) -> None:
    for name, value in resources.items():
        if name != "instance_count":
            raise _unsupported(file, f"resources.{name}")
        if value != 1:
            # Each process would install this package into the environment of its node.
            raise ArgumentError(
                f"resources.instance_count in {file} must be 1, for dbx-aml submits jobs of one "
                f"process: got {value!r}; submit the file with 'az ml job create'"
            )


def _literal(file: Path, name: str, value: object) -> str:
    if isinstance(value, Mapping):
        if "path" in value or value.get("type") not in (None, "string", "number", "integer"):
            raise _unsupported(file, f"inputs.{name} as data")
        value = value.get("default", value.get("value"))
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ArgumentError(f"input {name!r} in {file} must be a text or a number: got {value!r}")
    return str(value)


def _unsupported(file: Path, name: str) -> ArgumentError:
    return ArgumentError(
        f"field {name!r} of {file} must be one that dbx-aml supports: got one outside of "
        f"{sorted(_FIELDS)}; remove it, or submit the file with 'az ml job create'"
    )
