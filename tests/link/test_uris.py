"""The service that an MLflow URI leads to, and the parts of an `azureml://` URI."""

import pytest

from dbx_aml._common.errors import UntrustedHostError
from dbx_aml.link.uris import (
    AzuremlUri,
    is_adbazureml_uri,
    is_azureml_uri,
    is_databricks_uri,
    parse_azureml_uri,
)

RESOURCE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices"
WORKSPACE = f"azureml://Westeurope.api.azureml.ms/mlflow/v1.0{RESOURCE}/workspaces/w"


@pytest.mark.parametrize(
    ("uri", "azureml", "adbazureml", "databricks"),
    [
        (WORKSPACE, True, False, False),
        (WORKSPACE.replace("azureml://", "ADBAzureML://"), True, True, False),
        ("databricks", False, False, True),
        ("databricks-uc://profile", False, False, True),
        ("sqlite:///mlflow.db", False, False, False),
        (None, False, False, False),
    ],
)
def test_a_uri_leads_to_one_service(
    uri: str | None, azureml: bool, adbazureml: bool, databricks: bool
) -> None:
    assert is_azureml_uri(uri) is azureml
    assert is_adbazureml_uri(uri) is adbazureml
    assert is_databricks_uri(uri) is databricks


def test_the_parts_of_a_uri_are_read_whatever_follows_the_workspace() -> None:
    parsed = parse_azureml_uri(f"{WORKSPACE}/experiments/e/runs/r/artifacts/a b/c?x=1")
    assert parsed == AzuremlUri(
        host="westeurope.api.azureml.ms",
        api="mlflow/v1.0",
        subscription_id="s",
        resource_group="g",
        kind="workspaces",
        name="w",
        path="/experiments/e/runs/r/artifacts/a b/c",
    )
    assert parsed.run_artifact == ("e", "r", "a b/c")
    folder = parse_azureml_uri(f"{WORKSPACE}/experiments/e/runs/r/artifacts")
    assert folder is not None and folder.run_artifact == ("e", "r", "")


@pytest.mark.parametrize("uri", ["azureml://artifacts/LocalUpload/c/model", "sqlite:///m.db", None])
def test_a_uri_without_a_workspace_has_no_parts(uri: str | None) -> None:
    assert parse_azureml_uri(uri) is None


def test_two_uris_name_one_resource_at_any_host_of_its_region_and_in_any_case() -> None:
    parsed = parse_azureml_uri(WORKSPACE)
    private = WORKSPACE.replace("Westeurope", "e1d0.workspace.westeurope").upper()
    same = parse_azureml_uri(private)
    registry = parse_azureml_uri(WORKSPACE.replace("/workspaces/", "/registries/"))
    assert parsed and same and registry
    assert parsed.run_artifact is None
    assert parsed.names_same_resource(same)
    assert not parsed.names_same_resource(registry)


def test_the_same_names_at_another_host_are_another_resource() -> None:
    parsed = parse_azureml_uri(WORKSPACE)
    elsewhere = parse_azureml_uri(WORKSPACE.replace("Westeurope", "northeurope"))
    foreign = parse_azureml_uri(WORKSPACE.replace("Westeurope.api.azureml.ms", "collector.example"))
    assert parsed and elsewhere and foreign
    assert parsed.has_same_names(elsewhere)
    assert not parsed.names_same_resource(elsewhere)
    with pytest.raises(UntrustedHostError, match=r"got 'collector\.example'"):
        parsed.names_same_resource(foreign)
