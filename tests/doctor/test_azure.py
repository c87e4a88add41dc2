"""Checks of Azure ML: the workspace and the caller's permissions."""

import pytest

from tests.doctor.conftest import RunCheck
from tests.support.azureml import ALL_ACTIONS, RUNS_WRITE, AzureMl

pytestmark = pytest.mark.azureml


def test_a_workspace_that_does_not_exist_fails(
    run_check: RunCheck, aml: AzureMl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBX_AML_WORKSPACE_NAME", "mlw-other")
    monkeypatch.setenv("DBX_AML_REGION", "westeurope")
    result = run_check("workspace")
    assert result.status == "failed"
    assert "'mlw-other' must exist in resource group 'rg-ml'" in result.message
    assert "portal" in result.fix


def test_denied_actions_are_reported_with_the_role_to_ask_for(
    run_check: RunCheck, aml: AzureMl
) -> None:
    aml.deny("*/onlineEndpoints/*")
    result = run_check("actions")
    assert result.status == "warning", "the link deploys no endpoint"
    assert result.message == (
        "may not deploy endpoints; may create runs, write artifacts, register models"
    )
    aml.deny(RUNS_WRITE, "*/models/write")
    result = run_check("actions")
    assert result.status == "failed"
    assert result.message.startswith("may not create runs, register models; may ")
    assert "the role 'AzureML Data Scientist' on workspace 'mlw-team'" in result.fix
    assert RUNS_WRITE in result.fix
    aml.deny(ALL_ACTIONS)
    assert run_check("actions").message.startswith("may not create runs, write artifacts, ")
    assert run_check("workspace").fix == "ask for the role 'AzureML Data Scientist'"
