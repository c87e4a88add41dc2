"""Python packages: are they those that this package needs, and does the plugin fit with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from typing import TYPE_CHECKING

from dbx_aml.doctor.check_result import Finding, SkippedError, failed, ok, warning
from dbx_aml.doctor.checks import Case

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PLUGIN = "azureml-mlflow"
# What the plugin does not allow and works with all the same, as runs with each have shown: the
# newest version seen. Databricks Runtime 18 and 19 bring them.
_HARMLESS = {"azure-storage-blob": "12.29.0"}
_SCHEME = "azureml"
_GROUPS = ("mlflow.tracking_store", "mlflow.model_registry_store", "mlflow.artifact_repository")
_OURS = "dbx_aml.tracking.azureml.plugin"
_RESTART = "then restart Python"


def packages(case: Case) -> Finding:
    """Compare what this package requires with what is installed."""
    if _installed("dbx-aml") is None:
        return failed(
            "dbx-aml is on the path but not installed: MLflow does not find its stores",
            f"pip install its wheel, {_RESTART}",
        )
    unmet = [f"{one} is required, {has or 'none'} installed" for one, has in _unmet("dbx-aml")]
    if unmet:
        wanted = " ".join(f"'{one}'" for one, _ in _unmet("dbx-aml"))
        return failed("; ".join(unmet), f"pip install {wanted}, {_RESTART}")
    full, skinny = _installed("mlflow"), _installed("mlflow-skinny")
    if full and skinny and full != skinny:
        return warning(
            f"mlflow {full} and mlflow-skinny {skinny} share one folder: one has overwritten "
            "files of the other",
            f"pip install mlflow=={full} mlflow-skinny=={full}, {_RESTART}",
        )
    return ok(f"mlflow {full or skinny}, dbx-aml {_installed('dbx-aml')}: all requirements are met")


def plugin(case: Case) -> Finding:
    """Compare the plugin that talks to Azure ML with what it is installed beside."""
    from packaging.version import Version

    has = _installed(PLUGIN)
    lowest = next((one for one in _required("dbx-aml") if one.name == PLUGIN), None)
    newest = f"pip install --no-deps '{lowest or PLUGIN}'"
    if has is None:
        return failed(f"{PLUGIN} is not installed: MLflow cannot reach Azure ML", newest)
    if lowest and not lowest.specifier.contains(has, prereleases=True):
        blob = _installed("azure-storage-blob")
        return failed(
            f"{PLUGIN} {has} does not fit, {lowest.specifier} is needed: a resolver that had to "
            f"keep azure-storage-blob {blob} has chosen an old one",
            f"{newest} 'jsonpickle<5' msrest azure-mgmt-core, {_RESTART}; or attach the init "
            "script, which does that",
        )
    harmless, unmet = [], []
    for one, installed in _unmet(PLUGIN):
        seen = _HARMLESS.get(one.name)
        if installed and seen and Version(installed) <= Version(seen):
            harmless.append(f"{one.name} {installed} (it asks for {one.specifier})")
        else:
            unmet.append(f"{one} is required, {installed or 'none'} installed")
    if unmet:
        return warning(
            f"{PLUGIN} {has} was never tried so: {'; '.join(unmet)}",
            "pip install " + " ".join(f"'{one}'" for one, _ in _unmet(PLUGIN)) + f", {_RESTART}",
        )
    known = f"; known to be harmless: {', '.join(harmless)}" if harmless else ""
    return ok(f"{PLUGIN} {has} fits with mlflow {_installed('mlflow-skinny')}{known}")


def stores(case: Case) -> Finding:
    """Look whose stores MLflow uses for Azure ML."""
    if _installed(PLUGIN) is None:
        raise SkippedError(f"needs {PLUGIN}, see the check 'plugin'")
    for group in _GROUPS:
        values = {one.value for one in entry_points(group=group) if one.name == _SCHEME}
        if not any(value.startswith(_OURS) for value in values):
            return failed(
                f"MLflow finds {sorted(values)} for '{_SCHEME}://' in {group}, not this "
                "package's: logging a model of MLflow 3 to Azure ML will fail",
                f"pip install dbx-aml (its folder on the path is not enough), {_RESTART}",
            )
    loaded = sys.modules.get("mlflow.tracking._tracking_service.utils")
    if loaded is None:
        return ok("MLflow will use this package's stores for 'azureml://'")
    builder = loaded._tracking_store_registry._registry.get(_SCHEME)
    if getattr(builder, "__module__", "") == _OURS:
        return ok("MLflow uses this package's stores for 'azureml://', seen in this process")
    return failed(
        f"MLflow uses {getattr(builder, '__module__', builder)} for 'azureml://' in this process: "
        "logging a model of MLflow 3 to Azure ML will fail",
        "restart Python; MLflow was imported before this package was installed",
    )


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _required(name: str) -> Iterator[Requirement]:
    """Yield what a package requires here, extras left out."""
    from packaging.requirements import Requirement

    for line in (requires(name) or []) if _installed(name) else []:
        one = Requirement(line)
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield one


def _unmet(name: str) -> list[tuple[Requirement, str | None]]:
    """Return the requirements of a package that are not met, each with what is installed."""
    found = []
    for one in _required(name):
        has = _installed(one.name)
        if has is None or not one.specifier.contains(has, prereleases=True):
            found.append((one, has))
    return found


CHECKS = {"packages": packages, "plugin": plugin, "stores": stores}
