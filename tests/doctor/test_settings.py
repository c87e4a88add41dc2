"""Checks of the settings: origins, conflicts, MLflow's active URIs, and the credential."""

import sys
from pathlib import Path

import pytest

from dbx_aml import AmlWorkspace, Link
from dbx_aml.tracking import connect
from tests.doctor.conftest import RunCheck


def test_a_setting_without_a_workspace_is_ignored(
    run_check: RunCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBX_AML_REGION", "westeurope")
    assert run_check("settings").message == "mode = databricks (default)"


def test_every_setting_is_reported_with_its_origin(
    run_check: RunCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_dual_link()
    monkeypatch.setenv("DBX_AML_EXPERIMENT", "/Shared/iris")
    result = run_check("settings")
    assert result.status == "ok"
    assert {
        "experiment = /Shared/iris (DBX_AML_EXPERIMENT)",
        f"mode = dual ({file})",
        f"client_secret = ml/aml-secret ({file})",
    } <= set(result.message.splitlines())


def test_two_different_values_of_a_setting_are_a_warning(
    run_check: RunCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_dual_link()
    monkeypatch.setenv("DBX_AML_CLIENT_SECRET", "ml/aml-secret")
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "60")
    assert run_check("settings").status == "ok", "equal values are no conflict"
    monkeypatch.setenv("DBX_AML_MODE", "aml")
    result = run_check("settings")
    assert result.status == "warning"
    first_line = result.message.splitlines()[0]
    assert first_line.startswith("mode: aml (DBX_AML_MODE)")
    assert f"dual ({file})" in first_line
    assert result.fix.endswith(f"DBX_AML_MODE, {file}")


def save_dual_link() -> Path:
    workspace = AmlWorkspace(
        subscription_id="8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42",
        resource_group="rg-ml",
        workspace_name="mlw-team",
        region="westeurope",
    )
    link = Link(
        mode="dual", aml_workspace=workspace, client_secret="ml/aml-secret", retry_timeout_s=60
    )
    return link.save(".").absolute()


def test_active_uris_that_are_not_the_links_are_a_warning(
    run_check: RunCheck, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path / 'x.db'}"
    link = Link(databricks_tracking_uri=uri)
    result = run_check("tracking", link)
    assert (result.status, result.message.endswith(uri)) == ("ok", True)
    assert "(MLflow's default); dbx_aml.connect() will set" in result.message
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:5000")
    result = run_check("tracking", link)
    assert result.status == "warning"
    assert "http://other:5000 (MLFLOW_TRACKING_URI)" in result.message
    assert f"not the link's {uri}" in result.message
    mlflow.set_tracking_uri("http://third:5000")
    mlflow.set_registry_uri(uri)
    assert run_check("tracking", link).message.startswith(
        "http://third:5000 (mlflow.set_tracking_uri) is not the link's"
    )
    assert run_check("registry", link).message == f"{uri} (mlflow.set_registry_uri)"
    with connect.connect(link):
        assert run_check("tracking", link).message == f"{uri} (dbx_aml.connect)"
        assert run_check("registry", link).message == f"{uri} (dbx_aml.connect)"
        mlflow.set_tracking_uri("http://third:5000")
        assert "(mlflow.set_tracking_uri)" in run_check("tracking", link).message


def test_the_active_uris_are_known_without_importing_mlflow(
    run_check: RunCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_tracking_service", "_model_registry"):
        monkeypatch.delitem(sys.modules, f"mlflow.tracking.{name}.utils", raising=False)
    assert run_check("tracking").message == "a store in this folder (MLflow's default)"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks://team")
    assert run_check("registry").message == "databricks-uc://team (MLflow's default)"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "databricks")
    assert run_check("registry").message == "databricks (MLFLOW_REGISTRY_URI)"


def test_the_selected_credential_is_reported_with_its_reason(
    run_check: RunCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link(mode="aml", aml_tracking_uri="sqlite:///aml.db")
    result = run_check("credential", link)
    assert (result.status, "AZURE_CLIENT_SECRET" in result.fix) == ("warning", True)
    assert run_check("credential").status == "ok", "a link without Azure ML needs none"
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "Xyz8Q~the-secret-itself")
    result = run_check("credential", link)
    assert result.message == "service principal with a secret: AZURE_CLIENT_SECRET is set"
