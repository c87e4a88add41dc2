"""Runs that other users wrote to are shown as the service has them, with one warning a run."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.azureml.service_context import service_context_of
from dbx_aml.tracking.azureml.store import AmlTrackingStore
from tests.support.azureml import AzureMl
from tests.support.azureml.plain_client import plain_artifacts

pytestmark = pytest.mark.azureml

MODEL = "dbx_aml.logged_model.0a1b2c3d.0"
INPUTS = "dbx_aml.run_inputs.0"
DOCUMENT = {"name": "m", "folder": "m", "status": "READY", "created": 1, "updated": 1}
LATER_MODEL = {**DOCUMENT, "folder": "../../another-run/artifacts/model"}
DATASET = {"dataset": {"name": "d"}, "tags": {}}
NO_OVERFLOW = {"dbx_aml.overflow": "1000000000000000000000"}
WRONG_TAGS = [
    NO_OVERFLOW,
    {"dbx_aml.overflow": "\u00b2"},
    {"dbx_aml.overflow": "-1"},
    {"dbx_aml.overflow": "7"},
    {INPUTS: "1|[]"},
    {INPUTS: "\u00b2|{}"},
    {INPUTS: "1|" + "[" * 900},
    {INPUTS: '1|{"outputs":{"m":"no step"}}'},
    {INPUTS: '1|{"inputs":{"m":1}}'},
    {INPUTS: f'1|{{"datasets":[{json.dumps(DATASET)}]}}'},
    {INPUTS: "1|z:AAAA"},
    {MODEL: "1|{}"},
    {MODEL: f"1|{json.dumps(LATER_MODEL)}"},
]
WRONG_ARTIFACTS = [
    b"[]",
    b"[" * 200_000,
    b'{"params": {"a": 1}}',
    b'{"values": {"000000000000": ""}}',
]


def write_run(
    azureml: AzureMl, tmp_path: Path, tags: Mapping[str, str], overflow: bytes | None = None
) -> str:
    """Return the id of a run with a parameter, as a client without this package writes it."""
    client = MlflowClient()
    experiment = mlflow.set_experiment("foreign")
    run = client.create_run(experiment.experiment_id)
    client.log_param(run.info.run_id, "alpha", "0.5")
    if overflow is not None:
        file = tmp_path / "overflow.json"
        file.write_bytes(overflow)
        plain_artifacts(run.info.artifact_uri).log_artifact(str(file), "dbx_aml")
    for key, text in {"dbx_aml.has_logged_models": "true", **tags}.items():
        client.set_tag(run.info.run_id, key, text)
    return run.info.run_id


@pytest.mark.slow
def test_runs_with_wrong_tags_and_artifacts_are_found_with_one_warning_each(
    azureml: AzureMl, azureml_client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fine_id = write_run(azureml, tmp_path, {MODEL: f"1|{json.dumps(DOCUMENT)}"})
    wrong_ids = [write_run(azureml, tmp_path, tags) for tags in WRONG_TAGS]
    wrong_ids += [
        write_run(azureml, tmp_path, {"dbx_aml.overflow": "1"}, content)
        for content in WRONG_ARTIFACTS
    ]
    # Another program, which has not seen the runs yet.
    mlflow.set_tracking_uri(f"{mlflow.get_tracking_uri()}&reader=1")
    caplog.clear()
    azureml.reset()
    experiment = mlflow.set_experiment("foreign")

    with caplog.at_level(logging.WARNING, "dbx_aml"):
        for _ in range(2):
            runs = MlflowClient().search_runs([experiment.experiment_id])
            assert sorted(run.info.run_id for run in runs) == sorted([fine_id, *wrong_ids])
            assert all(run.data.params == {"alpha": "0.5"} for run in runs)
            models = mlflow.search_logged_models([experiment.experiment_id], output_format="list")
            assert [model.model_id for model in models] == [f"m-{fine_id}-0a1b2c3d"]
        for run_id in wrong_ids:
            assert mlflow.get_run(run_id).data.params == {"alpha": "0.5"}

    messages = [record.getMessage() for record in caplog.records]
    for run_id in wrong_ids:
        (message,) = [message for message in messages if run_id in message]
        assert message.startswith(f"run {run_id} is shown as Azure ML has it: ")
        assert "\n" not in message
    assert len(messages) == len(wrong_ids)
    assert len(azureml.requests()) < 200


def test_a_wrong_model_is_one_error_for_who_asks_for_it(
    azureml: AzureMl, azureml_client: MlflowClient, tmp_path: Path
) -> None:
    run_id = write_run(azureml, tmp_path, {MODEL: f"1|{json.dumps(LATER_MODEL)}"})

    with pytest.raises(MlflowException, match=f"of run {run_id} must be .* folder of the run"):
        mlflow.get_logged_model(f"m-{run_id}-0a1b2c3d")


def test_a_wrong_document_of_inputs_is_replaced_by_what_the_run_logs(
    azureml: AzureMl, azureml_client: MlflowClient, tmp_path: Path
) -> None:
    run_id = write_run(azureml, tmp_path, {INPUTS: "1|[]"})

    with mlflow.start_run(run_id=run_id):
        azureml_client.log_outputs(
            run_id, [mlflow.entities.LoggedModelOutput(f"m-{run_id}-0a1b2c3d", 3)]
        )

    (output,) = azureml_client.get_run(run_id).outputs.model_outputs
    assert (output.model_id, output.step) == (f"m-{run_id}-0a1b2c3d", 3)


def test_nothing_is_logged_where_it_could_not_be_read_again(
    azureml: AzureMl, azureml_client: MlflowClient, tmp_path: Path
) -> None:
    run_id = write_run(azureml, tmp_path, NO_OVERFLOW)

    azureml_client.log_param(run_id, "short", "1")
    with pytest.raises(MlflowException, match=f"tag 'dbx_aml.overflow' of run {run_id} must"):
        azureml_client.log_param(run_id, "long", "x" * 600)
    azureml_client.delete_tag(run_id, "dbx_aml.overflow")
    azureml_client.log_param(run_id, "long", "x" * 600)

    assert azureml_client.get_run(run_id).data.params["long"] == "x" * 600


HOST = "westeurope.api.azureml.ms"
WORKSPACE = (
    "/subscriptions/8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42/resourceGroups/rg"
    "/providers/Microsoft.MachineLearningServices/workspaces/mlw"
)


class CannedStore(AmlTrackingStore):
    """A store whose service answers a search with one run, and that refuses every other call."""

    def __init__(self, artifact_uri: str) -> None:
        super().__init__(service_context_of(f"azureml://{HOST}/mlflow/v1.0{WORKSPACE}"))
        self._artifact_uri = artifact_uri

    def _call_endpoint(self, api: Any, *arguments: Any, **options: Any) -> Any:
        response = api.Response()
        run = response.runs.add()
        run.info.run_id, run.info.status, run.info.artifact_uri = "r", 3, self._artifact_uri
        run.data.tags.add(key="dbx_aml.overflow", value="1")
        return response


@pytest.mark.parametrize(
    "uri",
    [
        f"azureml://collector.example/mlflow/v2.0{WORKSPACE}/experiments/1/runs/r/artifacts",
        f"azureml://{HOST}/mlflow/v2.0{WORKSPACE}-two/experiments/1/runs/r/artifacts",
        "https://collector.example/artifacts",
        "azureml://",
        "",
    ],
)
def test_a_run_whose_artifacts_are_elsewhere_is_found_without_a_request_there(
    uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
    store = CannedStore(uri)

    with caplog.at_level(logging.WARNING, "dbx_aml"):
        (run,) = store.search_runs(["1"], "", 1)

    assert run.data.params == {}
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("run r is shown as Azure ML has it: artifacts of run r")
    if "collector" in uri:
        assert "collector.example" in message
