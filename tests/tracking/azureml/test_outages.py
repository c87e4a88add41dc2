"""Outages of Azure ML: retried for as long as the user allows, then one clear error."""

import time
import traceback
from collections.abc import Callable
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.support.azureml import AzureMl

pytestmark = pytest.mark.azureml

LogStep = Callable[[int], None]


@pytest.fixture
def run_id(azureml_client: MlflowClient) -> str:
    return str(azureml_client.create_run(azureml_client.create_experiment("outages")).info.run_id)


def logged_steps(client: MlflowClient, run_id: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run_id, "m")]


@pytest.mark.parametrize(
    ("fault", "least_s"),
    [
        ({"kind": "status", "status": 429, "retry_after_s": 1, "count": 2}, 2),
        ({"kind": "status", "status": 503, "for_s": 1.5}, 1),
        ({"kind": "drop", "count": 1}, 0),
    ],
)
@pytest.mark.slow
def test_a_short_outage_is_waited_for_as_long_as_the_service_asks(
    azureml: AzureMl,
    azureml_client: MlflowClient,
    run_id: str,
    fault: dict[str, Any],
    least_s: float,
) -> None:
    azureml.fault(**fault, path="runs/log-metric")
    started = time.monotonic()

    azureml_client.log_metric(run_id, "m", 1, step=1)

    assert time.monotonic() - started >= least_s
    assert logged_steps(azureml_client, run_id) == [1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "status", "status": 503}, "status 503"),
        # The service asks for a longer wait than the user allows.
        ({"kind": "status", "status": 429, "retry_after_s": 60}, "status 429"),
        ({"kind": "black-hole"}, "no answer in time"),
    ],
)
def test_a_long_outage_ends_in_one_error_that_says_how_to_wait_longer(
    azureml: AzureMl,
    azureml_client: MlflowClient,
    run_id: str,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "2")
    azureml.fault(**fault, path="runs/log-metric")
    started = time.monotonic()

    with pytest.raises(MlflowException, match=reason) as error:
        azureml_client.log_metric(run_id, "m", 1)

    # MLflow alone retries for minutes.
    assert time.monotonic() - started < 30
    assert "POST runs/log-metric must succeed within 2 s" in error.value.message
    assert "DBX_AML_RETRY_TIMEOUT_S" in error.value.message


def test_a_limit_of_mlflow_retries_counts_and_a_wrong_timeout_is_an_error(
    azureml: AzureMl, azureml_client: MlflowClient, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    azureml.fault("status", status=503, path="runs/log-metric")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        with pytest.raises(MlflowException, match="2 attempts failed"):
            azureml_client.log_metric(run_id, "m", 1)
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "soon")
    with pytest.raises(MlflowException, match=r"DBX_AML_RETRY_TIMEOUT_S must be .* got 'soon'"):
        azureml_client.log_metric(run_id, "m", 1)


def test_a_permanent_error_is_raised_at_once(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    with pytest.raises(MlflowException, match=r"RESOURCE_DOES_NOT_EXIST|not found"):
        azureml_client.log_metric("0" * 36, "m", 1)
    assert len(azureml.requests(path="runs/log-metric")) == 1


def test_a_run_whose_answer_was_lost_is_not_created_twice(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    experiment_id = azureml_client.create_experiment("once")
    azureml.fault("lost-answer", path="runs/create", count=1)
    run = azureml_client.create_run(experiment_id, run_name="lost")
    azureml.fault("drop", path="runs/create", count=2)
    azureml_client.create_run(experiment_id, run_name="dropped")
    azureml.fault("status", status=500, path="runs/create", count=1)
    azureml_client.create_run(experiment_id, run_name="failed")
    azureml.fault("lost-answer", path="experiments/create", count=1)
    experiment = mlflow.set_experiment("lost experiment")

    runs = azureml_client.search_runs([experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["dropped", "failed", "lost"]
    assert run.info.run_id in [run.info.run_id for run in runs]
    assert not [key for run in runs for key in run.data.tags if key.startswith("dbx_aml")]
    assert experiment.name == "lost experiment"


def test_a_version_whose_answer_was_lost_is_not_created_twice(
    azureml: AzureMl, azureml_client: MlflowClient, log_model: Callable[..., Any]
) -> None:
    mlflow.set_experiment("versions")
    with mlflow.start_run():
        model_uri = log_model().model_uri
    azureml.fault("lost-answer", path="model-versions/create", count=1)

    version = mlflow.register_model(model_uri, "once")

    assert version.version == "1"
    versions = azureml_client.search_model_versions("name='once'")
    assert [(version.version, version.tags) for version in versions] == [("1", {})]


@pytest.mark.parametrize("fault", [{"kind": "drop"}, {"kind": "status", "status": 403}])
@pytest.mark.parametrize("host", [".", "blob"])
def test_an_error_shows_no_token_and_no_signature(
    azureml: AzureMl,
    azureml_client: MlflowClient,
    run_id: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: dict[str, Any],
    host: str,
) -> None:
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "1")
    azureml.fault(**fault, host=host)
    output = ""

    try:
        azureml_client.log_text(run_id, "a", "a.txt")
    except MlflowException:
        output = traceback.format_exc()

    assert "PUT a.txt" in output or host == "."
    assert output
    for secret in ("Bearer", "sig=", azureml.environment()["AZURE_CLIENT_SECRET"], "eyJ"):
        assert secret not in output + caplog.text


@pytest.mark.slow
def test_an_expiring_token_is_renewed_during_a_run(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    # Long enough for one request on a busy machine.
    azureml.token_lifetime(4)
    mlflow.set_experiment("token")
    started = time.monotonic()
    steps = 0
    with mlflow.start_run() as active_run:
        while time.monotonic() - started < 5:
            mlflow.log_metric("m", steps, step=steps)
            steps += 1
        mlflow.log_text("hello", "a.txt")

    history = logged_steps(azureml_client, active_run.info.run_id)
    assert history == list(range(steps))
    assert all(entry.status != 401 for entry in azureml.requests())
