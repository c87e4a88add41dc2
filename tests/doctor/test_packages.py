"""Checks of Python packages: requirements of this package, of azureml-mlflow, and stores."""

import importlib.util
import re

import pytest

from dbx_aml.doctor import packages
from tests.doctor.conftest import InstallPackages, RunCheck


def test_two_versions_of_mlflow_are_a_warning(
    run_check: RunCheck, install_packages: InstallPackages
) -> None:
    assert run_check("packages").status == "ok"
    install_packages(mlflow="3.14.0")
    result = run_check("packages")
    assert (result.status, "mlflow 3.14.0 and mlflow-skinny" in result.message) == ("warning", True)
    assert "pip install mlflow==3.14.0 mlflow-skinny==3.14.0" in result.fix


def test_a_package_that_is_too_old_fails(
    run_check: RunCheck, install_packages: InstallPackages
) -> None:
    install_packages(mlflow_skinny="2.11.4")
    result = run_check("packages")
    assert result.status == "failed"
    assert "mlflow-skinny<4,>=2.19 is required, 2.11.4 installed" in result.message
    assert "pip install 'mlflow-skinny<4,>=2.19'" in result.fix


@pytest.mark.parametrize(
    ("versions", "status", "message"),
    [
        ({}, "ok", r"azureml-mlflow 1\.62\.0\.post6 fits mlflow 3\.\d+\.\d+"),
        (
            {"azure_storage_blob": "12.29.0"},
            "ok",
            r".*; tested .*: azure-storage-blob 12\.29\.0 .*",
        ),
        (
            {"azure_storage_blob": "13.0.0"},
            "warning",
            ".*never tested .*: azure-storage-blob<=12.27.1,>=12.5.0 is required, 13.0.0 installed",
        ),
        ({"mlflow_skinny": "3.18.0"}, "warning", ".*mlflow-skinny<=3.15.0 is required, 3.18.0 .*"),
        (
            {"azureml_mlflow": "1.22.0", "azure_storage_blob": "12.28.0"},
            "failed",
            "azureml-mlflow 1.22.0 is too old, .* had to keep azure-storage-blob 12.28.0 .*",
        ),
    ],
)
def test_the_limits_of_the_plugin_are_compared_with_the_installed_packages(
    run_check: RunCheck,
    install_packages: InstallPackages,
    versions: dict[str, str],
    status: str,
    message: str,
) -> None:
    install_packages(**versions)
    result = run_check("plugin")
    assert result.status == status
    assert re.fullmatch(message, result.message), result.message
    assert bool(result.fix) == (status != "ok")


def test_a_missing_plugin_fails(run_check: RunCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PLUGIN", "azureml-mlflow-is-not-installed")
    assert run_check("plugin").status == "failed"
    assert run_check("stores").status == "skipped"


def test_stores_of_another_package_fail(
    run_check: RunCheck, install_packages: InstallPackages, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking._tracking_service import utils

    assert run_check("stores").message.endswith("in this process")
    monkeypatch.setitem(utils._tracking_store_registry._registry, "azureml", print)
    result = run_check("stores")
    assert (result.status, "restart Python" in result.fix) == ("failed", True)
    install_packages(dbx_aml="0.1.0")  # a folder on the path, without entry points
    result = run_check("stores")
    assert (result.status, "not this package's" in result.message) == ("failed", True)
    assert "pip install its wheel" in result.fix


def test_an_mlflow_whose_spark_udf_lacks_flask_fails(
    run_check: RunCheck, install_packages: InstallPackages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On runtime 16.4 without the init script."""
    install_packages(mlflow="2.19.0", mlflow_skinny="2.19.0")
    assert run_check("packages").status == "ok"
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "flask" else find_spec(name)
    )
    result = run_check("packages")
    assert result.status == "failed"
    assert "score_table must have flask>=2.2 with mlflow-skinny 2.19.0" in result.message
    assert result.fix.startswith("pip install 'flask>=2.2' on every node")
