"""This machine: its runtime, init script, disk and Java, and the requirements of a model."""

from __future__ import annotations

import inspect
import platform
import tempfile
from pathlib import Path
from shutil import disk_usage

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml._common.errors import LocalSparkError, ScoringError
from dbx_aml._common.installed_packages import installed_version
from dbx_aml._common.text import first_line
from dbx_aml.cluster.node import marker
from dbx_aml.cluster.runtimes import (
    Runtime,
    find_runtime,
    is_same_version,
    known_runtimes,
    runtime_name,
    supported_runtimes,
)
from dbx_aml.doctor.check_result import CheckResult, SkippedError, failed, ok, warning
from dbx_aml.doctor.checks import CheckContext
from dbx_aml.models.model_uri import ModelUri

_GIB = 2**30
# Scoring keeps a model and its guarded copy on disk.
_WARNING_GIB, _FAILING_GIB = 5.0, 0.5
_PYTHON = ".".join(platform.python_version_tuple()[:2])
# MLflow is left out: a newer one is often installed on purpose.
_COMPARED_PACKAGES = ("pandas", "pyarrow", "numpy", "databricks-sdk", "azure-storage-blob")


def check_runtime(context: CheckContext) -> CheckResult:
    """Compare the installed packages with those in the runtime's release notes."""
    running = running_version()
    if running is None:
        return ok(f"local: Python {platform.python_version()} on {platform.system()}")
    runtime = find_runtime(running)
    if runtime is None:
        names = [known_runtimes()[name].label for name in supported_runtimes()]
        return warning(
            f"Databricks Runtime {running} is not among the tested ones",
            f"use one of {', '.join(names)}",
        )
    differences = _package_differences(runtime)
    if differences:
        return warning(
            f"Databricks Runtime {runtime.label}, but its release notes list other packages: "
            f"{'; '.join(differences)}",
            "if a library or a %pip line changes them, remove it and restart the cluster",
        )
    message = f"Databricks Runtime {runtime.label}, with the packages of its release notes"
    if runtime.is_complete and runtime.refusal:
        return failed(f"{message}, which is refused: {runtime.refusal}", "use 16.4 LTS or newer")
    return ok(message)


def _package_differences(runtime: Runtime) -> list[str]:
    differences = []
    if runtime.python != _PYTHON:
        differences.append(f"Python {_PYTHON}, listed {runtime.python}")
    for package in _COMPARED_PACKAGES:
        listed = runtime.packages[package]
        installed = installed_version(package) or "none"
        if not is_same_version(installed, listed):
            differences.append(f"{package} {installed}, listed {listed}")
    return differences


def check_init_script(context: CheckContext) -> CheckResult:
    """Report what the init script did on this node."""
    node_marker = marker.read_marker(marker.MARKER_PATH)
    running = running_version()
    is_serverless = (runtime_name(running or "") or "").startswith("serverless-")
    if node_marker is None and (running is None or is_serverless):
        raise SkippedError("this machine is no node of a cluster, so no init script runs on it")
    if node_marker is None:
        return warning(
            "the init script has not run on this node: it set neither packages nor variables",
            "dbx-aml cluster attach <cluster>, or attach the script to the cluster by hand",
        )
    if node_marker.status == "failed":
        message, _, fix = (node_marker.reason or "its marker has no reason").rpartition("; ")
        return failed(
            message or fix, fix if message else "read its log at /databricks/init_scripts"
        )
    packages = [f"{name} {installed}" for name, installed in node_marker.installed.items()]
    return ok(
        "; ".join(
            [
                f"done at {node_marker.time}, from {node_marker.packages_from}",
                f"it added {', '.join(packages) or 'nothing'}",
                *node_marker.messages,
            ]
        )
    )


def check_disk(context: CheckContext) -> CheckResult:
    """Compare the free disk space with what downloaded models need."""
    folder = tempfile.gettempdir()
    free_gib = disk_usage(folder).free / _GIB
    message = f"{free_gib:.1f} GiB free in {folder}, the folder for downloaded models"
    if free_gib >= _WARNING_GIB:
        return ok(message)
    fix = "free some, or set TMPDIR to a larger disk"
    return failed(message, fix) if free_gib < _FAILING_GIB else warning(message, fix)


def check_spark(context: CheckContext) -> CheckResult:
    """Report the Spark of this machine, and whether it can start."""
    running = running_version()
    if running is not None:
        runtime = find_runtime(running)
        spark = f"Spark {runtime.spark}" if runtime and runtime.spark else "Spark Connect"
        return ok(f"the runtime's: {spark}")
    installed = installed_version("pyspark")
    if installed is None:
        raise SkippedError("no pyspark on this machine: scoring runs on Databricks")
    from dbx_aml.local.java import find_java

    try:
        home = find_java()
    except LocalSparkError as err:
        problem, _, fix = str(err).partition("; ")
        return warning(f"pyspark {installed}, but {problem}", fix)
    return ok(f"pyspark {installed}, Java in {home}")


def check_model(context: CheckContext) -> CheckResult:
    """Compare a model's requirements with the packages installed on this machine."""
    if context.model_uri is None:
        raise SkippedError("no model to check; add --model-uri")
    from dbx_aml.scoring.environments import requirement_differences

    uri = ModelUri.parse(context.model_uri)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(str(uri))
        if uri.kind != "path" or not folder.is_dir():
            folder = Path(temporary)
            _download_requirements(context, str(uri), temporary)
        lines = requirement_differences(folder)
    if lines:
        return warning(
            f"{uri} was trained with other packages: {'; '.join(lines)}",
            "install the model's requirements, or score with --environment model",
        )
    return ok(f"{uri}: all of its requirements are installed")


def _download_requirements(context: CheckContext, uri: str, folder: str) -> None:
    """Download the model's requirements.txt without changing MLflow's active URIs."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    link = context.link
    uris = {"tracking_uri": link.tracking_uri, "registry_uri": link.registry_uri}
    # MLflow before 3 has no such arguments: it then reads from its active URIs.
    parameters = inspect.signature(download_artifacts).parameters if context.is_configured else ()
    arguments = {name: value for name, value in uris.items() if value and name in parameters}
    try:
        download_artifacts(f"{uri.rstrip('/')}/requirements.txt", dst_path=folder, **arguments)
    except (MlflowException, OSError) as err:
        raise ScoringError(
            f"model must be readable: got {uri!r}, {first_line(err)}; "
            "compare its name, version and registry"
        ) from None


CHECKS = {
    "runtime": check_runtime,
    "init script": check_init_script,
    "disk": check_disk,
    "Spark": check_spark,
    "model": check_model,
}
