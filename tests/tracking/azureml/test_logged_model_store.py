"""Logged models of MLflow 3 in Azure ML, whose runs other clients still see as ordinary runs."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.azureml.logged_model_values import check_values
from dbx_aml.tracking.azureml.store import AmlTrackingStore
from dbx_aml.tracking.azureml.tag_documents import document_in_tags, document_tags, value_keys
from tests.support.azureml import AzureMl
from tests.support.azureml.plain_client import plain_artifacts, plain_registry, plain_store
from tests.tracking.azureml.conftest import predict

pytestmark = pytest.mark.azureml

LogModel = Callable[..., Any]


def test_a_logged_model_is_an_ordinary_run_to_a_client_without_this_package(
    azureml: AzureMl, azureml_client: MlflowClient, log_model: LogModel, tmp_path: Path
) -> None:
    mlflow.set_experiment("models")
    with mlflow.start_run() as active_run:
        first, second = log_model(), log_model()
        mlflow.log_text("mine", "other/a.txt")
        third = log_model("other")
    run_id = active_run.info.run_id

    assert first.model_id.startswith(f"m-{run_id}-")
    locations = [
        mlflow.get_logged_model(info.model_id).artifact_location for info in (first, second, third)
    ]
    folders = [location.rpartition("/artifacts/")[2] for location in locations]
    # A folder that a model or a file uses already is left alone.
    assert folders[0] == "model"
    assert folders[1].startswith("model-")
    assert folders[2].startswith("other-")
    listed = sorted(info.path for info in azureml_client.list_artifacts(run_id))
    assert listed == sorted([*folders, "other"])
    # The name means the newest model.
    newest = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/model")
    assert second.model_id in Path(newest, "MLmodel").read_text()

    run = plain_store(azureml.tracking_uri).get_run(run_id)
    assert run.info.status == "FINISHED"
    artifacts = plain_artifacts(run.info.artifact_uri)
    assert sorted(info.path for info in artifacts.list_artifacts(None)) == listed
    assert predict(artifacts.download_artifacts("model", str(tmp_path))) == [2.0, 4.0]
    registry = plain_registry(azureml.tracking_uri)
    registry.create_registered_model("plain")
    version = registry.create_model_version("plain", run.info.artifact_uri + "/model", run_id)
    assert (str(version.version), version.status) == ("1", "READY")


def test_a_logged_model_is_found_changed_and_deleted(
    azureml: AzureMl, azureml_client: MlflowClient, log_model: LogModel
) -> None:
    experiment = mlflow.set_experiment("changed")
    with mlflow.start_run() as active_run:
        mlflow.log_params({f"p{i:03}": "v" * 60 for i in range(250)})
        model_id = log_model(params={"extra": 1}).model_id
    run_id = active_run.info.run_id

    def search(filter_string: str | None = None) -> list[Any]:
        models: list[Any] = mlflow.search_logged_models(
            [experiment.experiment_id], filter_string, output_format="list"
        )
        return models

    assert len(mlflow.get_logged_model(model_id).params) == 251
    assert [model.model_id for model in search("params.extra = '1'")] == [model_id]
    assert search("params.extra = '2'") == []

    azureml_client.set_logged_model_tags(model_id, {"a": "1", "b": "x" * 5000})
    azureml_client.delete_logged_model_tag(model_id, "a")
    with pytest.raises(MlflowException, match="No tag with key 'a' found"):
        azureml_client.delete_logged_model_tag(model_id, "a")
    other_client = MlflowClient(azureml.tracking_uri)
    assert other_client.get_logged_model(model_id).tags["b"] == "x" * 5000

    azureml_client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
    run = azureml_client.get_run(run_id)
    assert [model.model_id for model in run.inputs.model_inputs] == [model_id]
    assert [(model.model_id, model.step) for model in run.outputs.model_outputs] == [(model_id, 0)]

    azureml_client.delete_logged_model(model_id)
    with pytest.raises(MlflowException, match=f"Logged model '{model_id}' not found"):
        mlflow.get_logged_model(model_id)
    assert search() == []


def test_a_logged_model_without_a_run_gets_a_placeholder_run_that_ends_with_it(
    azureml_client: MlflowClient,
) -> None:
    experiment = mlflow.set_experiment("placeholder")
    model = mlflow.initialize_logged_model(name="orphan")
    assert model.status == LoggedModelStatus.PENDING

    azureml_client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)

    stored = mlflow.get_logged_model(model.model_id)
    assert (stored.status, stored.source_run_id) == (LoggedModelStatus.FAILED, None)
    (run,) = azureml_client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("orphan", "FAILED")
    assert "only carries a logged model" in run.data.tags["dbx_aml.placeholder_run"]


@pytest.mark.parametrize(
    ("model_id", "reason"),
    [
        ("m-" + "0" * 32, "not in Azure ML"),
        ("m-11111111-1111-4111-8111-111111111111-0a1b2c3d", "not found"),
    ],
)
def test_an_unknown_model_id_is_one_clear_error(
    azureml_client: MlflowClient, model_id: str, reason: str
) -> None:
    with pytest.raises(MlflowException, match=reason):
        azureml_client.get_logged_model(model_id)


def test_metrics_of_a_model_are_sent_once_and_the_model_has_the_newest_values(
    azureml: AzureMl, azureml_client: MlflowClient, log_model: LogModel
) -> None:
    mlflow.set_experiment("metrics")
    train = mlflow.data.from_pandas(pd.DataFrame({"x": [1.0]}), name="train")
    test = mlflow.data.from_pandas(pd.DataFrame({"x": [2.0]}), name="test")
    with mlflow.start_run() as active_run:
        run_id = active_run.info.run_id
        mlflow.log_metric("before", 0.5)
        model_id = log_model().model_id
        for step in range(60):
            mlflow.log_metric("loss", 1 / (step + 1), step=step, model_id=model_id)
        mlflow.log_metric("auc", 0.75, model_id=model_id, dataset=train)
        mlflow.log_metric("auc", 0.5, model_id=model_id, dataset=test)
        mlflow.log_metric("auc", 0.25, model_id=model_id, dataset=test)
    with mlflow.start_run() as other_run:
        mlflow.log_metric("later", 1.5, model_id=model_id)

    # One request a value, two for the value in another run, and a few for the model.
    assert len(azureml.requests(path="runs/log-batch")) <= 60 + 3 + 2 + 6
    model = MlflowClient(azureml.tracking_uri).get_logged_model(model_id)
    assert sorted(
        [metric.key, metric.dataset_name or "", metric.value, metric.step, metric.run_id]
        for metric in model.metrics
    ) == [
        ["auc", "test", 0.25, 0, run_id],
        ["auc", "test", 0.5, 0, run_id],
        ["auc", "train", 0.75, 0, run_id],
        ["before", "", 0.5, 0, run_id],
        ["later", "", 1.5, 0, other_run.info.run_id],
        *(["loss", "", 1 / (step + 1), step, run_id] for step in range(59, 13, -1)),
    ]
    assert len(azureml_client.get_metric_history(run_id, "before")) == 1
    assert set(azureml_client.get_run(run_id).data.metrics) == {"before", "loss", "auc"}


@pytest.mark.slow
def test_metrics_of_a_model_survive_a_killed_program(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    program = azureml.run(
        """
import mlflow, os, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("killed")
mlflow.start_run()
model = mlflow.initialize_logged_model(name="m")
for step in range(5):
    mlflow.log_metric("loss", 5 - step, step=step, model_id=model.model_id)
print(model.model_id, flush=True)
os._exit(1)
"""
    )
    model_id = program.stdout.split()[0]

    metrics = azureml_client.get_logged_model(model_id).metrics

    assert [(metric.step, metric.value) for metric in metrics] == [
        (0, 5.0),
        (1, 4.0),
        (2, 3.0),
        (3, 2.0),
        (4, 1.0),
    ]


def test_values_of_two_programs_and_of_threads_are_all_kept(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    mlflow.set_experiment("together")
    with mlflow.start_run() as active_run:
        model_id = mlflow.initialize_logged_model(name="m").model_id
    stores = [AmlTrackingStore.from_uri(azureml.tracking_uri) for _ in range(2)]

    def log(number: int) -> None:
        metric = Metric(f"loss-{number % 3}", number, number, number, model_id=model_id)
        stores[number % 2].log_metric(active_run.info.run_id, metric)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(log, range(40)))

    values = azureml_client.get_logged_model(model_id).metrics
    assert sorted(value.value for value in values) == list(range(40))


def test_values_beyond_the_tags_of_a_run_cost_no_upload_for_each_step(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    mlflow.set_experiment("full")
    with mlflow.start_run() as active_run:
        mlflow.set_tags({f"t{number:02}": "x" for number in range(60)})
        model_id = mlflow.initialize_logged_model(name="m").model_id
        for step in range(30):
            mlflow.log_metric("loss", step, step=step, model_id=model_id)
        uploads = azureml.requests(path="artifacts/batch/metadata")

    assert len(uploads) < 8
    values = MlflowClient(azureml.tracking_uri).get_logged_model(model_id).metrics
    assert [value.value for value in values] == list(range(30))
    assert len(azureml_client.get_run(active_run.info.run_id).data.tags) >= 60


class RecordingStore(AmlTrackingStore):
    """A store that keeps its calls and answers them from memory."""

    def __init__(self, run_tags: dict[str, str]) -> None:
        super().__init__(SimpleNamespace())
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._tags = run_tags

    def _call_endpoint(
        self, api: Any, json_body: str | None = None, endpoint: str | None = None, **_: Any
    ) -> Any:
        self.calls.append((api.__name__, json.loads(json_body or "{}")))
        response = api.Response()
        if api.__name__ == "GetMetricHistory":
            response.metrics.add(key="auc", value=0.5, timestamp=7, step=0)
        if api.__name__ == "GetRun":
            response.run.info.run_id = "r"
            for key, text in self._tags.items():
                response.run.data.tags.add(key=key, value=text)
        return response

    def logged(self, kind: str) -> list[tuple[str, Any]]:
        """Return keys and values of the logged "metrics" or "tags"."""
        batches = [body for name, body in self.calls if name == "LogBatch"]
        return [(item["key"], item["value"]) for body in batches for item in body.get(kind, [])]


def test_a_metric_that_was_just_read_is_linked_to_a_model_and_not_sent_again() -> None:
    key = "dbx_aml.logged_model.0a1b2c3d"
    document = {"name": "m", "folder": "m", "status": "PENDING", "created": 1, "updated": 1}
    store = RecordingStore(document_tags(key, document))
    model_id = "m-r-0a1b2c3d"
    (metric,) = store.get_metric_history("r", "auc")

    same = Metric("auc", metric.value, metric.timestamp, metric.step, model_id=model_id)
    new = Metric("auc", 0.75, 8, 0, model_id=model_id)
    store.log_batch("r", [same, new], [], [])

    assert store.logged("metrics") == [("auc", 0.75)]
    tags = dict(store.logged("tags"))
    (values_key,) = value_keys(key, tags)
    assert document_in_tags(values_key, tags, check_values) == {
        "values": [["auc", 0.5, 7, 0, "", "", "r"], ["auc", 0.75, 8, 0, "", "", "r"]]
    }
    # In one call, so a killed program has both or none.
    assert [name for name, _ in store.calls] == ["GetMetricHistory", "LogBatch"]


def test_a_metric_of_a_model_on_another_server_is_a_metric_of_the_run() -> None:
    store = RecordingStore({})

    store.log_metric("r", Metric("auc", 0.5, 1, 0, model_id="m-0123456789abcdef"))
    store.update_run_info("r", 3, 2, None)

    assert store.logged("metrics") == [("auc", 0.5)]


@pytest.mark.parametrize("name", ["..", "/model", "c:model", "a\nb", "."])
def test_a_name_that_is_no_folder_of_a_run_is_refused_before_anything_is_created(
    azureml_client: MlflowClient, name: str
) -> None:
    experiment_id = azureml_client.create_experiment("models")
    with pytest.raises(MlflowException, match="name of a logged model is that of its folder: "):
        azureml_client.create_logged_model(experiment_id, name=name)
    assert azureml_client.search_runs([experiment_id]) == []
