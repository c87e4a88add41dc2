"""Checks of Azure ML: the workspace and the caller's permissions."""

import pytest

from tests.doctor.conftest import RunCheck
from tests.support.azureml import ALL_ACTIONS, RUNS_WRITE, AzureMl, Workspace
from tests.support.azureml.workspace import TENANT_ID

pytestmark = pytest.mark.azureml


OTHER_SUBSCRIPTION = "11111111-1111-4111-8111-111111111111"


@pytest.mark.parametrize(
    ("setting", "value", "message", "fix"),
    [
        (
            "SUBSCRIPTION_ID",
            OTHER_SUBSCRIPTION,
            f"subscription '{OTHER_SUBSCRIPTION}' must exist in the tenant of the sign-in: "
            "got 404 SubscriptionNotFound from management.azure.com",
            "compare subscription_id and the tenant with the workspace's page in the portal",
        ),
        (
            "RESOURCE_GROUP",
            "rg-other",
            f"resource group 'rg-other' must exist in subscription '{Workspace().subscription_id}':"
            " got 404 ResourceGroupNotFound from management.azure.com",
            "compare resource_group with the workspace's page in the portal",
        ),
        (
            "WORKSPACE_NAME",
            "mlw-other",
            "workspace 'mlw-other' must exist in resource group 'rg-ml' of subscription "
            f"'{Workspace().subscription_id}': got 404 ResourceNotFound from management.azure.com",
            "compare workspace_name with the workspace's page in the portal",
        ),
    ],
)
@pytest.mark.parametrize("region", ["", "westeurope"])
def test_a_workspace_that_does_not_exist_fails_with_the_name_that_azure_does_not_have(
    run_check: RunCheck,
    aml: AzureMl,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    value: str,
    message: str,
    fix: str,
    region: str,
) -> None:
    monkeypatch.setenv(f"DBX_AML_{setting}", value)
    if region:
        monkeypatch.setenv("DBX_AML_REGION", region)
    result = run_check("workspace")
    assert result.status == "failed"
    assert message in result.message
    assert result.fix == fix


def test_a_workspace_that_answers_is_shown_with_its_tenant(
    run_check: RunCheck, aml: AzureMl
) -> None:
    assert run_check("workspace").message == f"mlw-team in rg-ml of tenant {TENANT_ID} answers"
    assert run_check("token").message.endswith(f"in tenant {TENANT_ID}")


def test_denied_actions_are_reported_with_the_role_to_ask_for(
    run_check: RunCheck, aml: AzureMl
) -> None:
    aml.deny("*/onlineEndpoints/*")
    result = run_check("actions")
    assert result.status == "warning", "the link deploys no endpoint"
    assert result.message == (
        "may not deploy endpoints, clean up; may create runs, write artifacts, register models, "
        "submit jobs"
    )
    aml.deny(RUNS_WRITE, "*/models/write")
    result = run_check("actions")
    assert result.status == "failed"
    assert result.message.startswith("may not create runs, register models; may ")
    aml.deny("*/jobs/cancel/action")
    assert "may not submit jobs; may " in run_check("actions").message
    assert "jobs/cancel/action" in run_check("actions").fix
    aml.deny(RUNS_WRITE, "*/models/write")
    assert "the role 'AzureML Data Scientist' on workspace 'mlw-team'" in result.fix
    assert RUNS_WRITE in result.fix
    aml.deny(ALL_ACTIONS)
    assert run_check("actions").message.startswith("may not create runs, write artifacts, ")
    assert run_check("workspace").fix == "ask for the role 'AzureML Data Scientist'"
