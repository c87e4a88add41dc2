"""Submit a training script as a command job of Azure ML: `submit_job`.

Source:
    Azure REST API, "Jobs - Create Or Update", version 2025-12-01; Microsoft Learn, "Train models
    with Azure Machine Learning CLI, SDK, and REST API"; seen 2026-11.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import ArgumentError, ServingError
from dbx_aml._common.own_wheel import write_own_wheel
from dbx_aml._common.redact import has_secret, is_secret_name
from dbx_aml._common.text import first_line
from dbx_aml.azure.identity import token_claims
from dbx_aml.link.connected_link import current_link, use_link
from dbx_aml.link.link import Link
from dbx_aml.models.mlflow_client import create_client
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.serving.environment import register_environment
from dbx_aml.serving.job_environment import find_environment, resolve_job_environment
from dbx_aml.serving.job_snapshot import WHEEL_FOLDER, read_snapshot
from dbx_aml.serving.jobs import Job, Report, job_path
from dbx_aml.serving.workspace_inventory import find_compute

_ENVIRONMENT_NAME = "dbx-aml-training"
_INSTALL = f"pip install --no-index --no-deps ./{WHEEL_FOLDER}/*.whl"
# Tag of a job, and so of its run: one hash over everything that it runs.
JOB_CONTENT_HASH = "dbx_aml.content_hash"
_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,254}", re.ASCII)
_PARAMETER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_INPUT = re.compile(r"\$\{\{\s*inputs\.(\w+)\s*\}\}")
# Characters that a shell reads inside of double quotes.
_UNQUOTABLE = re.compile(r'["$`\\\x00-\x1f\x7f]')


def submit_job(
    script: str | Path,
    *,
    compute: str,
    experiment: str | None = None,
    parameters: Mapping[str, object] | None = None,
    folder: str | Path | None = None,
    environment: str | None = None,
    environment_variables: Mapping[str, str] | None = None,
    command: str | None = None,
    name: str | None = None,
    display_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    link: Link | None = None,
    report: Report = lambda step: None,
) -> Job:
    """Run a training script on a compute of Azure ML; return the submitted job.

    The folder is uploaded once for each content. This package travels with it, so MLflow 3 works
    inside of the job as it does here, and the run of the job is the MLflow run.

    Args:
        script: Python file, for example "train.py". With `command` it only names the job.
        compute: Name of the compute, for example "cpu-cluster".
        experiment: Name or Databricks path of the experiment; by default the link's, else the name
            of the folder.
        parameters: Options of the script: {"alpha": 0.5} is "--alpha 0.5".
        folder: Folder that is uploaded; by default the folder of the script.
        environment: Environment of the workspace, for example "azureml:training:3"; by default one
            is made from the folder's requirements.txt.
        environment_variables: Variables of the job. All of the workspace can read them.
        command: Command in the place of "python <script>"; "${{inputs.alpha}}" is a parameter.
        name: Name of the job; by default a new one. A second call with the same name and content
            returns the first call's job.
        display_name: Name for people; by default the name of the script.
        tags: Further tags of the job.
        timeout_s: Longest time that the job may run, in seconds.
        link: Link that has the workspace; by default the connected link.
        report: Function that is called with the name of each step.

    Raises:
        ArgumentError: The script, a parameter, a name or the folder is not valid, or a value looks
            like a secret.
        UnsolvableRequirementsError: No set of packages meets the requirements.
        ServingError: The compute or the environment cannot run the job, or another job has its
            name.
    """
    link = link or current_link()
    script = Path(script)
    root = Path(folder) if folder is not None else script.parent
    values = {key: str(value) for key, value in (parameters or {}).items()}
    variables = dict(environment_variables or {})
    _check_values(values, variables)
    if command is None:
        command = _script_command(script, root, values)
    _check_command(command, values)
    stem = re.sub(r"[^A-Za-z0-9]+", "-", script.stem).strip("-") or "job"
    name = name or f"{stem}-{secrets.token_hex(4)}"
    if not _NAME.fullmatch(name):
        raise ArgumentError(
            f"name of the job must be 1 to 255 letters, digits, '-' and '_': got {name!r}"
        )
    files = read_snapshot(root)
    resources = AmlResources.of_link(link)
    report("Checking the compute")
    compute_id = _compute_id(resources, compute)
    report("Resolving the environment")
    if environment is None:
        pinned_environment = resolve_job_environment(root)
        environment_id = register_environment(resources, _ENVIRONMENT_NAME, pinned_environment)
    else:
        environment_id = find_environment(resources, environment)
    properties: dict[str, Any] = {
        "jobType": "Command",
        "displayName": display_name or script.name,
        "experimentName": _experiment_name(resources, experiment or link.experiment, root),
        "computeId": compute_id,
        "environmentId": environment_id,
        "command": _with_install(command),
        "inputs": {
            key: {"jobInputType": "literal", "value": value} for key, value in values.items()
        },
        "outputs": {},
        "environmentVariables": variables,
    }
    if timeout_s is not None:
        properties["limits"] = {"jobLimitsType": "Command", "timeout": f"PT{timeout_s:.0f}S"}
    # Imported here, so that the error of a wrong argument does not wait for these clients.
    from dbx_aml.serving.code_upload import upload_code

    with TemporaryDirectory(prefix="dbx_aml_") as wheel_folder:
        wheel = write_own_wheel(Path(wheel_folder))
        properties["codeId"] = upload_code(
            resources,
            {**files, f"{WHEEL_FOLDER}/{wheel.name}": wheel},
            lambda done, total: report(f"Uploading files: {done} of {total}"),
        )
    report(f"Submitting {name}")
    content_hash = hashlib.sha256(json.dumps(properties, sort_keys=True).encode()).hexdigest()[:32]
    job = Job.find(resources, name)
    if job is not None:
        if job.tags.get(JOB_CONTENT_HASH) != content_hash:
            raise ServingError(
                f"name of the job must be new, or of a job with the same content: got {name!r}, "
                "which runs something else; choose another --name"
            )
        return job
    properties["tags"] = {**creation_tags(), JOB_CONTENT_HASH: content_hash, **(tags or {})}
    return Job.of_content(resources, resources.put(job_path(name), {"properties": properties}))


def _script_command(script: Path, root: Path, values: Mapping[str, str]) -> str:
    if script.name == "MLproject" or (script.is_dir() and (script / "MLproject").is_file()):
        raise ArgumentError(_mlproject_message(script))
    if not script.is_file():
        raise ArgumentError(f"script must exist: got '{script}'; compare the path")
    try:
        path = script.resolve().relative_to(root.resolve())
    except ValueError as err:
        raise ArgumentError(
            f"script must be in the folder of the job: got '{script}' and folder '{root}'; pass "
            "another --folder"
        ) from err
    text = script.read_text(encoding="utf-8", errors="replace")
    options = [
        # argparse takes "-1e-3" for an option, unless it follows "=".
        f'{_option(key, text)}{"=" if value.startswith("-") else " "}"${{{{inputs.{key}}}}}"'
        for key, value in values.items()
    ]
    return " ".join(["python", shlex.quote(path.as_posix()), *options])


def _option(parameter: str, text: str) -> str:
    """Return the option by which a script takes a parameter."""
    dashed = f"--{parameter.replace('_', '-')}"
    if dashed in text:
        return dashed
    if not re.search(rf"\b{parameter}\b", text):
        raise ArgumentError(
            f"parameter must be one that the script reads: got {parameter!r}, which is not in it; "
            f"add the option '{dashed}' to the script, or leave the parameter out"
        )
    return f"--{parameter}"


def _mlproject_message(path: Path) -> str:
    """Return the error for an MLproject, with the command that replaces it."""
    import yaml

    file = path / "MLproject" if path.is_dir() else path
    example = "train.py"
    try:
        entry_points = yaml.safe_load(file.read_text(encoding="utf-8"))["entry_points"]
        entry_point = entry_points.get("main") or next(iter(entry_points.values()))
        script = re.search(r"[\w./-]+\.py", str(entry_point["command"]))
        example = script[0] if script else example
        for name, value in (entry_point.get("parameters") or {}).items():
            default = value.get("default") if isinstance(value, Mapping) else None
            example += f" -p {name}={'VALUE' if default is None else default}"
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, StopIteration):
        pass
    return (
        f"script must be a Python file: got '{file}', but Azure ML has retired its backend for "
        f"MLproject files in 2026-09; run: dbx-aml job submit {example} --compute COMPUTE"
    )


def _check_values(values: Mapping[str, str], variables: Mapping[str, str]) -> None:
    for key, value in values.items():
        if not _PARAMETER.fullmatch(key):
            raise ArgumentError(
                f"parameter must be named with letters, digits and '_': got {key!r}; "
                "pass for example -p alpha=0.5"
            )
        if _UNQUOTABLE.search(value):
            raise ArgumentError(
                f"parameter {key!r} must have no quote, '$', '`', backslash or line break: got "
                f"{value!r}; write the value to a file in the folder of the job"
            )
    for noun, pairs in (("parameter", values), ("environment variable", variables)):
        for key, value in pairs.items():
            if value and (is_secret_name(key) or has_secret(value)):
                raise ArgumentError(
                    f"{noun} must be no secret, for all of the workspace can read it: got {key!r}; "
                    "read the secret from a key vault inside of the job"
                )


def _check_command(command: str, values: Mapping[str, str]) -> None:
    used = set(_INPUT.findall(command))
    for key in values:
        if key not in used:
            raise ArgumentError(
                f"command must use each parameter: got {key!r}, which it does not; write "
                f"${{{{inputs.{key}}}}} into the command, or leave the parameter out"
            )
    missing = sorted(used - set(values))
    if missing:
        raise ArgumentError(
            f"parameter must have a value: got none for {missing[0]!r}; pass -p {missing[0]}=VALUE"
        )


def _with_install(command: str) -> str:
    """Return the command with the installation of this package before it."""
    is_simple = not re.search(r"[;|&\n]", command)
    return f"{_INSTALL} && {command if is_simple else f'({command})'}"


def _experiment_name(resources: AmlResources, experiment: str | None, root: Path) -> str:
    """Return the name of an experiment in Azure ML, which is made under its whole path."""
    from mlflow.exceptions import MlflowException

    name = experiment or root.resolve().name or "jobs"
    try:
        with use_link(resources.link):
            client = create_client(resources.tracking_uri)
            known = client.get_experiment_by_name(name)
            experiment_id = (
                client.create_experiment(name, tags=creation_tags())
                if known is None
                else known.experiment_id
            )
            # A renamed experiment keeps the name that the next one with its old name would get.
            stored_name = client._tracking_client.store.get_stored_experiment_name(experiment_id)
            return str(stored_name)
    except MlflowException as err:
        raise ServingError(
            f"experiment of the job must be usable: got {name!r}; {first_line(err)}"
        ) from err


def _compute_id(resources: AmlResources, name: str) -> str:
    """Return the ARM id of a compute that the caller can use now."""
    compute = find_compute(resources, name)
    if compute is None:
        raise ServingError(
            f"compute must exist in workspace {resources.workspace.workspace_name!r}: got "
            f"{name!r}; list the computes with 'dbx-aml compute list'"
        )
    if compute.kind == "ComputeInstance":
        token = resources.credential.get_token(resources.credential.scope).token
        caller = str(token_claims(token).get("oid") or "")
        if compute.owner and caller and compute.owner.lower() != caller.lower():
            raise ServingError(
                f"compute instance must be the caller's own: got {name!r}, which belongs to "
                f"{compute.owner}; use a cluster of 'dbx-aml compute list'"
            )
        if compute.state != "Running":
            raise ServingError(
                f"compute instance must run: got {name!r}, which is {compute.state!r}; "
                f"start it with 'az ml compute start --name {name}', or use a cluster"
            )
    return compute.arm_id
