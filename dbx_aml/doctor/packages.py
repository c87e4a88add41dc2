"""Python packages: the requirements of this package and of azureml-mlflow, and MLflow's stores."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import entry_points, requires
from typing import TYPE_CHECKING

from dbx_aml._common.installed_packages import installed_version
from dbx_aml.cluster.node.requirements import ENTRY_POINT_GROUPS, PACKAGE, PLUGIN
from dbx_aml.cluster.runtimes import known_runtimes
from dbx_aml.doctor.check_result import CheckResult, SkippedError, failed, ok, warning
from dbx_aml.doctor.checks import CheckContext
from dbx_aml.models.mlflow_releases import missing_for_spark_udf

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_BLOB = "azure-storage-blob"
_SCHEME = "azureml"
_PLUGIN_MODULE = "dbx_aml.tracking.azureml.plugin"
_RESTART = "then restart Python"


def check_packages(context: CheckContext) -> CheckResult:
    """Compare the requirements of this package with the installed packages."""
    if installed_version(PACKAGE) is None:
        return failed(
            f"{PACKAGE} is on the path but not installed: MLflow does not find its stores",
            f"pip install its wheel, {_RESTART}",
        )
    unmet = _unmet_requirements(PACKAGE)
    if unmet:
        requirements = " ".join(f"'{requirement}'" for requirement, _ in unmet)
        return failed(
            "; ".join(_describe_unmet(requirement, installed) for requirement, installed in unmet),
            f"pip install {requirements}, {_RESTART}",
        )
    full, skinny = installed_version("mlflow"), installed_version("mlflow-skinny")
    if full and skinny and full != skinny:
        return warning(
            f"mlflow {full} and mlflow-skinny {skinny} have the same folder: one has overwritten "
            "files of the other",
            f"pip install mlflow=={full} mlflow-skinny=={full}, {_RESTART}",
        )
    missing = missing_for_spark_udf(skinny) if skinny else []
    if missing:
        return failed(
            f"score_table must have {missing[0]} with mlflow-skinny {skinny}, whose spark_udf "
            "imports it: none installed",
            f"pip install '{missing[0]}' on every node; the init script installs it",
        )
    own_version = installed_version(PACKAGE)
    return ok(f"mlflow {full or skinny}, {PACKAGE} {own_version}: all requirements are met")


def check_plugin(context: CheckContext) -> CheckResult:
    """Compare azureml-mlflow and its requirements with the installed packages."""
    from packaging.version import Version

    installed = installed_version(PLUGIN)
    required = next((one for one in _requirements(PACKAGE) if one.name == PLUGIN), None)
    install = f"pip install --no-deps '{required or PLUGIN}'"
    if installed is None:
        return failed(f"{PLUGIN} is not installed: MLflow cannot reach Azure ML", install)
    if required and not required.specifier.contains(installed, prereleases=True):
        return failed(
            f"{PLUGIN} {installed} is too old, {required.specifier} is required: pip had to keep "
            f"{_BLOB} {installed_version(_BLOB)} and has selected an old release",
            f"{install} 'jsonpickle<5' msrest azure-mgmt-core, {_RESTART}; or attach the init "
            "script, which installs them so",
        )
    # The plugin works with the newest one of the known runtimes, although it does not allow it.
    newest_blob = max(Version(runtime.packages[_BLOB]) for runtime in known_runtimes().values())
    harmless, untested, requirements = [], [], []
    for requirement, other in _unmet_requirements(PLUGIN):
        requirements.append(f"'{requirement}'")
        if requirement.name == _BLOB and other and Version(other) <= newest_blob:
            harmless.append(f"{_BLOB} {other} (it allows {requirement.specifier})")
        else:
            untested.append(_describe_unmet(requirement, other))
    if untested:
        return warning(
            f"{PLUGIN} {installed} was never tested with these packages: {'; '.join(untested)}",
            f"pip install {' '.join(requirements)}, {_RESTART}",
        )
    exceptions = f"; tested despite its limit: {', '.join(harmless)}" if harmless else ""
    mlflow_version = installed_version("mlflow-skinny")
    return ok(f"{PLUGIN} {installed} fits mlflow {mlflow_version}{exceptions}")


def check_stores(context: CheckContext) -> CheckResult:
    """Check that MLflow uses the stores of this package for Azure ML."""
    if installed_version(PLUGIN) is None:
        raise SkippedError(f"needs {PLUGIN}, see the check 'plugin'")
    for group in ENTRY_POINT_GROUPS:
        modules = {entry.value for entry in entry_points(group=group) if entry.name == _SCHEME}
        if not any(module.startswith(_PLUGIN_MODULE) for module in modules):
            return failed(
                f"MLflow finds {sorted(modules)} for '{_SCHEME}://' in {group}, not this "
                "package's: logging a model of MLflow 3 to Azure ML will fail",
                f"pip install its wheel (its folder on the path is not enough), {_RESTART}",
            )
    loaded = sys.modules.get("mlflow.tracking._tracking_service.utils")
    if loaded is None:
        return ok("MLflow will use this package's stores for 'azureml://'")
    builder = loaded._tracking_store_registry._registry.get(_SCHEME)
    module = getattr(builder, "__module__", "")
    if module == _PLUGIN_MODULE:
        return ok("MLflow uses this package's stores for 'azureml://' in this process")
    return failed(
        f"MLflow uses {module or builder} for 'azureml://' in this process: logging a model of "
        "MLflow 3 to Azure ML will fail",
        "restart Python; MLflow was imported before this package was installed",
    )


def _requirements(package: str) -> Iterator[Requirement]:
    """Yield the requirements of an installed package on this machine, without extras."""
    from packaging.requirements import Requirement

    for line in (requires(package) or []) if installed_version(package) else []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _unmet_requirements(package: str) -> list[tuple[Requirement, str | None]]:
    """Return each unmet requirement of a package with the installed version."""
    unmet = []
    for requirement in _requirements(package):
        installed = installed_version(requirement.name)
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            unmet.append((requirement, installed))
    return unmet


def _describe_unmet(requirement: Requirement, installed: str | None) -> str:
    return f"{requirement} is required, {installed or 'none'} installed"


CHECKS = {"packages": check_packages, "plugin": check_plugin, "stores": check_stores}
