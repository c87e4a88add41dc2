"""This machine: its runtime, disk and Java, and whether a model's requirements are met here."""

from __future__ import annotations

import inspect
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml._common.errors import LocalSparkError, ScoringError
from dbx_aml._common.text import first_line
from dbx_aml.cluster.node import marker
from dbx_aml.cluster.runtimes import (
    RUNTIMES,
    UNTESTED_RUNTIMES,
    Runtime,
    find_runtime,
    runtime_key,
    same_version,
)
from dbx_aml.doctor.check_result import Finding, SkippedError, failed, ok, warning
from dbx_aml.doctor.checks import Case
from dbx_aml.models.model_uri import ModelUri

_GIB = 2**30
# A model and its guarded copy fit; less than that ends a job half way.
_SCARCE_GIB, _NONE_GIB = 5.0, 0.5
_PYTHON = ".".join(platform.python_version_tuple()[:2])


def runtime(case: Case) -> Finding:
    """Compare this runtime's packages with what the runtime brings."""
    running = running_version()
    if running is None:
        return ok(f"local: Python {platform.python_version()} on {platform.system()}")
    known = find_runtime(running)
    if known is None:
        return warning(
            f"Databricks Runtime {running} is not one that this package was tried on",
            f"use one of {', '.join(one.name for one in RUNTIMES.values())}",
        )
    changed = _changed(known)
    if changed:
        return warning(
            f"Databricks Runtime {known.name}, with other packages than its release notes list: "
            f"{'; '.join(changed)}",
            "if a library or a %pip line changes them, remove it and restart the cluster",
        )
    said = f"Databricks Runtime {known.name}, with the packages that it brings"
    if runtime_key(running) in UNTESTED_RUNTIMES:
        return warning(f"{said}: supported as far as it goes", "use 16.4 LTS or newer")
    return ok(said)


def _changed(known: Runtime) -> list[str]:
    """Return which packages are not the runtime's own; a newer MLflow is meant to be there."""
    found = [] if known.python == _PYTHON else [f"Python {_PYTHON}, listed {known.python}"]
    for name, brought in known.packages.items():
        if name == "mlflow-skinny":
            continue
        try:
            has = version(name)
        except PackageNotFoundError:
            has = "none"
        if not same_version(has, brought):
            found.append(f"{name} {has}, listed {brought}")
    return found


def init_script(case: Case) -> Finding:
    """Tell what the init script did to this node."""
    found = marker.read_marker(marker.MARKER_PATH)
    running = running_version()
    if found is None and (running is None or (runtime_key(running) or "").startswith("client.")):
        raise SkippedError("no init script runs here: this is no node of a cluster")
    if found is None:
        return warning(
            "it has not run on this node: packages and variables are whatever else set them",
            "dbx-aml cluster attach <cluster>, or attach the script to the cluster by hand",
        )
    if found.status == "failed":
        said, _, fix = (found.reason or "it does not say why").rpartition("; ")
        return failed(said or fix, fix if said else "read its log at /databricks/init_scripts")
    if not found.is_ok:
        return warning(
            f"it began at {found.time} and has not ended: it is at work, or was killed",
            "wait a minute, else read its log at /databricks/init_scripts and restart the cluster",
        )
    notes = "".join(f"; {one}" for one in (*map(str, found.kept_packages), *found.messages))
    added = ", ".join(f"{name} {has}" for name, has in found.installed.items()) or "nothing"
    return ok(f"done at {found.time}, from {found.packages_from}; it added {added}{notes}")


def disk(case: Case) -> Finding:
    """Look how much room there is where models are downloaded to."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / _GIB
    said = f"{free:.1f} GiB free in {folder}, where models are downloaded to"
    if free >= _SCARCE_GIB:
        return ok(said)
    fix = "free some, or set TMPDIR to a larger disk"
    return failed(said, fix) if free < _NONE_GIB else warning(said, fix)


def spark(case: Case) -> Finding:
    """Look whether Spark can run here, and which it is."""
    running = running_version()
    if running is not None:
        known = find_runtime(running)
        brings = f"Spark {known.spark}" if known and known.spark else "Spark Connect"
        return ok(f"the runtime's: {brings}")
    try:
        installed = version("pyspark")
    except PackageNotFoundError:
        raise SkippedError("no pyspark here: scoring runs on Databricks") from None
    from dbx_aml.local.java import find_java

    try:
        home = find_java()
    except LocalSparkError as err:
        said, _, fix = str(err).partition("; ")
        return warning(f"pyspark {installed}, but {said}", fix)
    return ok(f"pyspark {installed}, Java in {home}")


def model(case: Case) -> Finding:
    """Compare a model's requirements with what is installed here."""
    if case.model_uri is None:
        raise SkippedError("no model is named; name one with --model-uri")
    from dbx_aml.scoring.pinned_model import differences

    uri = ModelUri.parse(case.model_uri)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(str(uri))
        if uri.kind != "path" or not folder.is_dir():
            folder = Path(temporary)
            _download_requirements(case, str(uri), temporary)
        lines = differences(folder)
    if lines:
        return warning(
            f"{uri} was made with other packages: {'; '.join(lines)}",
            "install the model's requirements, or score with --env-manager virtualenv",
        )
    return ok(f"{uri}: all of its requirements are met here")


def _download_requirements(case: Case, uri: str, folder: str) -> None:
    """Get the one file, from the link's servers, and without changing MLflow's own."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    link = case.link
    servers = {"tracking_uri": link.tracking_uri, "registry_uri": link.registry_uri}
    # Where nobody says anything of a link, and with an older MLflow, it is the servers in force.
    known = inspect.signature(download_artifacts).parameters if case.is_linked else ()
    given = {name: value for name, value in servers.items() if value and name in known}
    try:
        download_artifacts(f"{uri.rstrip('/')}/requirements.txt", dst_path=folder, **given)
    except (MlflowException, OSError) as err:
        raise ScoringError(
            f"model must be readable: got {uri!r}, {first_line(err)}; "
            "compare its name, version and registry"
        ) from None


CHECKS = {
    "runtime": runtime,
    "init script": init_script,
    "disk": disk,
    "Spark": spark,
    "model": model,
}
