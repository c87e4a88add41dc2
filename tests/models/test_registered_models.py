"""Versions of a registry as rows, whatever its search leaves out."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.store.entities import PagedList

from dbx_aml._common.errors import ArgumentError
from dbx_aml.models.copy import list_versions
from dbx_aml.models.registered_models import (
    delete_model_alias,
    list_registered_models,
    set_model_alias,
    show_model_version,
)
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


def test_models_behind_a_page_without_models_are_listed(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(mlflow_store, mlflow_store)
    for name in ("a", "b", "c"):
        client.create_registered_model(name)
    search = MlflowClient.search_registered_models

    def search_with_an_empty_page(client: MlflowClient, **options: Any) -> PagedList[Any]:
        if options["page_token"] is None:
            return PagedList([], "second")
        assert options["page_token"] == "second"
        return PagedList(search(client, max_results=options["max_results"]), None)

    monkeypatch.setattr(MlflowClient, "search_registered_models", search_with_an_empty_page)
    rows = list_registered_models(registry=mlflow_store, max_results=2)
    assert [row.name for row in rows] == ["a", "b"]


@pytest.mark.parametrize("source", ["delay", "runs:/4be1/model", "models:/m-5f0c"])
def test_only_the_uri_of_a_version_is_looked_up(mlflow_store: str, source: str) -> None:
    with pytest.raises(ArgumentError, match="source must be a registered version: got"):
        show_model_version(source, registry=mlflow_store)


def test_a_refused_alias_is_wrong_usage_with_the_rule(mlflow_store: str) -> None:
    client = MlflowClient(mlflow_store, mlflow_store)
    client.create_registered_model("delay")
    client.create_model_version("delay", "/models/delay")
    for alias in ("latest", "v1", "a b"):
        with pytest.raises(ArgumentError, match="alias must be a name that MLflow takes: got"):
            set_model_alias("models:/delay/1", alias, registry=mlflow_store)
    with pytest.raises(ArgumentError, match="registered model must be given by its name"):
        delete_model_alias("models:/delay/1", "champion", registry=mlflow_store)


def test_capitals_make_no_other_registry() -> None:
    scope = (
        "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42/resourceGroups/rg-ml/providers/"
        "Microsoft.MachineLearningServices/workspaces/mlw-team"
    )
    uri = f"azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/{scope}"
    other_uri = uri.replace("rg-ml", "RG-ML")
    assert Registry(uri, uri).is_same(Registry(other_uri, other_uri))
    assert not Registry(uri, uri).is_same(Registry(uri[:-1], uri[:-1]))
    assert not Registry(uri, uri).is_same(Registry("databricks-uc", "databricks"))
