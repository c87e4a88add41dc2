"""Versions of a registry as rows, whatever its search leaves out."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from dbx_aml.models.copy import list_versions
from dbx_aml.models.registered_models import list_registered_models
from dbx_aml.models.registries import Registry
from tests.support.azureml import AzureMl


def test_versions_of_mlflows_own_registry_have_their_aliases(mlflow_store: str) -> None:
    client = MlflowClient(mlflow_store, mlflow_store)
    client.create_registered_model("delay")
    for _ in range(2):
        client.create_model_version("delay", "/models/delay")
    client.set_registered_model_alias("delay", "champion", "2")
    client.set_registered_model_alias("delay", "newest", "2")
    versions = list_versions(Registry(mlflow_store, mlflow_store), "delay")
    aliases = {str(version.version): sorted(version.aliases) for version in versions}
    assert aliases == {"1": [], "2": ["champion", "newest"]}
    assert list_versions(Registry(mlflow_store, mlflow_store), "nothing") == []


@pytest.mark.azureml
def test_the_versions_of_a_model_in_azure_ml_are_searched_once(
    azureml: AzureMl, aml_registry: MlflowClient, saved_model: Path
) -> None:
    aml_registry.create_registered_model("delay")
    for _ in range(2):
        aml_registry._create_model_version("delay", str(saved_model), local_model_path=saved_model)
    aml_registry.set_registered_model_alias("delay", "champion", "1")
    azureml.reset()

    rows = list_registered_models(registry="aml")

    assert [(row.version, row.aliases) for row in rows] == [("2", []), ("1", ["champion"])]
    assert len(azureml.requests(path="registered-models/search")) == 1
    assert len(azureml.requests(path="model-versions/search")) == 1
