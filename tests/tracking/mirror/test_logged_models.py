"""Values of logged models that two servers keep in different ways."""

import math
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from dbx_aml.tracking.mirror.logged_models import LoggedModelMirror, different_model_values
from dbx_aml.tracking.mirror.server import MlflowServer
from tests.support.azureml import AzureMl
from tests.support.mirror import MirrorStores

pytestmark = pytest.mark.azureml


def model_with(client: MlflowClient, experiment_id: str, *values: float) -> Any:
    """Return a logged model with values of a metric, as Databricks or Azure ML shows them."""
    run_id = client.create_run(experiment_id).info.run_id
    model = client.create_logged_model(experiment_id, name="model", source_run_id=run_id)
    model._metrics = [
        Metric("loss", value, timestamp, 0, model_id=model.model_id, run_id=run_id)
        for timestamp, value in enumerate(values)
    ]
    return model


def test_nan_and_infinity_arrive_in_azure_ml_once_and_are_compared(
    azureml: AzureMl, azureml_client: MlflowClient, mlflow_store: str
) -> None:
    source = MlflowServer(mlflow_store, "databricks")
    destination = MlflowServer(azureml.tracking_uri, "aml")
    source_client = MlflowClient(mlflow_store)
    model = model_with(source_client, source_client.create_experiment("e"), math.inf, math.nan)
    experiment_id = azureml_client.create_experiment("e")
    run_id = azureml_client.create_run(experiment_id).info.run_id
    models = LoggedModelMirror(source, destination, lambda _: run_id)

    def mirror(copied_model: Any | None) -> Any:
        options: dict[str, Any] = {"compares_content": False, "on_written": lambda _: None}
        copy, differences = models.mirror_model(
            model, copied_model, experiment_id, run_id, **options
        )
        assert differences == []
        return destination.store.get_logged_model(copy.model_id)

    copied_model = mirror(None)

    assert [repr(metric.value) for metric in copied_model.metrics] == ["inf", "nan"]
    assert different_model_values(model, copied_model, destination) == []
    azureml.reset()
    assert len(mirror(copied_model).metrics) == 2
    assert [entry.path for entry in azureml.requests(path="runs/log")] == []
    copied_model._metrics = copied_model.metrics[:1]
    assert different_model_values(model, copied_model, destination) == [
        ("model metric", "loss", "nan at step 0", f"{1.7976931348623157e308} at step 0")
    ]


def test_a_nan_that_mlflows_own_server_cannot_link_is_no_difference(mlflow_store: str) -> None:
    destination = MlflowServer(mlflow_store, "databricks")
    client = MlflowClient(mlflow_store)
    experiment_id = client.create_experiment("e")
    model = model_with(client, experiment_id, 0.5, math.nan)

    assert different_model_values(model, model_with(client, experiment_id, 0.5), destination) == []
    assert different_model_values(model, model_with(client, experiment_id, 0.4), destination) == [
        ("model metric", "loss", "0.5 at step 0", "0.4 at step 0")
    ]


def test_a_second_copy_in_azure_ml_of_a_model_without_a_run_goes_with_its_placeholder_run(
    azureml: AzureMl, azureml_client: MlflowClient, tmp_path: Path
) -> None:
    stores = MirrorStores(tmp_path)
    source, destination = stores.servers()[0], MlflowServer(azureml.tracking_uri, "aml")
    created = stores.source.create_logged_model(stores.experiment_id, name="agent")
    model = stores.source.finalize_logged_model(created.model_id, "READY")
    experiment_id = azureml_client.create_experiment("models")
    model_mirror = LoggedModelMirror(source, destination, lambda _: None)

    def mirror_as_if_there_were_no_copy() -> Any:
        options: dict[str, Any] = {"compares_content": False, "on_written": lambda _: None}
        return model_mirror.mirror_model(model, None, experiment_id, None, **options)[0]

    first, second = mirror_as_if_there_were_no_copy(), mirror_as_if_there_were_no_copy()

    assert first.model_id == second.model_id
    assert len(azureml_client.search_logged_models([experiment_id])) == 1
    assert len(azureml_client.search_runs([experiment_id])) == 1
