"""Registering finds its source in either service of the link: versions, runs and logged models."""

from collections.abc import Callable
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dbx_aml import register_model
from dbx_aml.link.connected_link import set_connected_link
from dbx_aml.link.link import Link
from dbx_aml.models.register_patch import patch_register_model
from tests.support.models import XY

pytestmark = pytest.mark.azureml

Register = Callable[[str, str], Any]


@pytest.fixture(params=[mlflow.register_model, register_model], ids=["mlflow", "dbx_aml"])
def register(request: pytest.FixtureRequest) -> Register:
    """The function of MLflow, and the function of this package."""
    patch_register_model()
    function: Register = request.param
    return function


@pytest.mark.parametrize("source", ["models:/main.ml.delay/1", "models:/main.ml.delay@champion"])
def test_a_version_of_unity_catalog_is_registered_in_azure_ml(
    linked: Link, uc_version: str, aml_registry: MlflowClient, register: Register, source: str
) -> None:
    mlflow.set_registry_uri(linked.aml_tracking_uri)
    version = register(source, "delay")
    assert (version.name, str(version.version), version.status) == ("delay", "1", "READY")
    tags = aml_registry.get_model_version("delay", "1").tags
    assert tags["dbx_aml.source_model_uri"] == "models:/main.ml.delay/1"
    assert tags["dbx_aml.source_registry"].startswith("databricks-uc://127.0.0.1:")
    assert tags["team"] == "größe"
    assert mlflow.pyfunc.load_model("models:/delay/1").predict(XY).tolist() == [13.0, 24.0]


def test_a_version_of_azure_ml_is_registered_in_unity_catalog(
    aml_registry: MlflowClient, uc_registry: MlflowClient, saved_model: Any, register: Register
) -> None:
    aml_registry.create_registered_model("delay")
    aml_registry._create_model_version(
        "delay", str(saved_model), local_model_path=str(saved_model), await_creation_for=30
    )
    mlflow.set_registry_uri("databricks-uc")
    version = register("models:/delay/1", "main.ml.delay")
    assert (version.name, str(version.version)) == ("main.ml.delay", "1")
    assert version.tags["dbx_aml_source_model_uri"] == "models:/delay/1"


def test_other_calls_say_which_registry_was_asked_and_which_has_the_version(
    linked: Link, uc_version: str
) -> None:
    mlflow.set_registry_uri(linked.aml_tracking_uri)
    for call in (
        lambda: MlflowClient().get_model_version("main.ml.delay", "1"),
        lambda: MlflowClient().copy_model_version("models:/main.ml.delay/1", "delay"),
        lambda: MlflowClient().create_model_version("delay", "models:/main.ml.delay/1"),
        lambda: mlflow.pyfunc.load_model("models:/main.ml.delay/1"),
        lambda: mlflow.artifacts.download_artifacts("models:/main.ml.delay/1"),
    ):
        with pytest.raises(MlflowException) as caught:
            call()
        text = str(caught.value)
        assert "model must be in Azure ML workspace " in text
        assert "which is in Unity Catalog in Databricks; copy it with" in text
        assert "'dbx-aml models copy models:/main.ml.delay/" in text
        assert "\n" not in text


def test_a_version_that_is_nowhere_keeps_the_error_of_the_registry(linked: Link) -> None:
    mlflow.set_registry_uri(linked.aml_tracking_uri)
    with pytest.raises(MlflowException, match="none"):
        MlflowClient().get_model_version("main.ml.none", "1")


@pytest.mark.parametrize("kind", ["run", "logged model"])
def test_the_id_of_a_mirrored_run_or_model_stands_for_its_source(
    mlflow_store: str, azureml: Any, register: Register, kind: str, linked: Link
) -> None:
    set_connected_link(None)
    with mlflow.start_run() as run:
        info = mlflow.pyfunc.log_model(
            name="model", python_model=lambda model_input: model_input, input_example=["a"]
        )
    set_connected_link(
        Link(
            mode="dual", registry="databricks", aml_workspace=linked.aml_workspace,
            databricks_tracking_uri=mlflow_store,
        )
    )  # fmt: skip
    aml = MlflowClient(linked.aml_tracking_uri)
    mirrored_run = aml.create_run("0", tags={"dbx_aml.source_run_id": run.info.run_id})
    mirrored_model = aml.create_logged_model(
        "0",
        name="model",
        source_run_id=mirrored_run.info.run_id,
        tags={"dbx_aml.source_logged_model_id": info.model_id},
    )
    source = {
        "run": f"runs:/{mirrored_run.info.run_id}/model",
        "logged model": f"models:/{mirrored_model.model_id}",
    }[kind]
    version = register(source, "echo")
    assert (str(version.version), version.run_id) == ("1", run.info.run_id)
    assert mlflow.pyfunc.load_model("models:/echo/1").metadata.model_id == info.model_id


def test_the_tags_of_a_registration_are_on_the_copy(
    linked: Link, uc_version: str, aml_registry: MlflowClient, register: Any
) -> None:
    mlflow.set_registry_uri(linked.aml_tracking_uri)
    version = register(uc_version, "delay", tags={"team": "ops"})
    assert (version.tags["team"], version.tags["stage"]) == ("ops", "test")
    assert aml_registry.get_model_version("delay", "1").tags["team"] == "ops"
