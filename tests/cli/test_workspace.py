"""`dbx-aml workspace`, `datastore`, `compute` and `environment`: they read, and never a secret."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dbx_aml.cli.main import main
from tests.serving.conftest import config_folder, link
from tests.support.azureml import AzureMl

__all__ = ["config_folder", "link"]

pytestmark = pytest.mark.azureml


@pytest.fixture
def run(config_folder: Path, azureml_client: object) -> Any:
    """Return a function that runs a command on the stand-in's workspace."""

    def run_command(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--config", str(config_folder)])

    return run_command


def test_the_workspace_is_shown_with_its_pages_and_its_tenant(run: Any, azureml: AzureMl) -> None:
    shown = json.loads(run("workspace", "show", "--json").stdout)
    assert shown["tracking_uri"] == azureml.tracking_uri
    assert shown["location"] == "westeurope"
    assert shown["tenant_id"] == "5f2b1c1e-8d2e-4a64-9a53-0c6c1d4f7a10"
    text = run("workspace", "show").output
    assert f"https://ml.azure.com/?wsid={azureml.workspace.scope}" in text
    assert "storage account        mlwteam4207593168" in text


def test_datastores_and_computes_are_listed_and_shown_without_any_secret(
    run: Any, azureml: AzureMl
) -> None:
    stores = json.loads(run("datastore", "list", "--json").stdout)
    assert [(item["name"], item["container"]) for item in stores] == [
        ("lake", "raw"),
        ("workspaceartifactstore", "azureml"),
        ("workspaceblobstore", "azureml-blobstore"),
    ]
    assert "credentials  AccountKey" in run("datastore", "show", "lake").output
    computes = json.loads(run("compute", "list", "--json").stdout)
    assert {item["name"]: item["state"] for item in computes} == {
        "ci-other": "Running",
        "ci-own": "Running",
        "ci-stopped": "Stopped",
        "cpu-cluster": "Succeeded",
        "k8s": "Succeeded",
    }
    lines = run("compute", "list").output.splitlines()
    assert [line.split() for line in lines if line.startswith("cpu-cluster")] == [
        ["cpu-cluster", "AmlCompute", "Succeeded", "STANDARD_DS3_V2", "0", "4", "Dedicated"]
    ]
    assert "max nodes  4" in run("compute", "show", "cpu-cluster").output
    assert {entry.method for entry in azureml.requests(host="management")} == {"GET"}


def test_a_workspace_without_environments_says_so(run: Any) -> None:
    assert run("environment", "list").output == "nothing is there\n"
    assert run("environment", "list", "--json").stdout == "[]\n"


def test_a_name_that_does_not_exist_and_a_forbidden_list_are_one_line(
    run: Any, azureml: AzureMl
) -> None:
    missing = run("compute", "show", "nothing")
    assert missing.exit_code == 1
    assert "compute must exist in workspace 'mlw-team': got 'nothing'" in missing.output
    azureml.deny("*/datastores/read")
    denied = run("datastore", "list")
    assert denied.exit_code == 1
    assert (
        "a role with the action 'Microsoft.MachineLearningServices/workspaces/datastores/read'"
        in (denied.output)
    )
