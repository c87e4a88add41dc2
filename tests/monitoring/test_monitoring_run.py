"""The MLflow run of monitoring, and the dataset of a run as baseline."""

import json

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag

from dbx_aml._common.errors import MonitoringError
from dbx_aml.monitoring.monitoring_run import TABLE_TAG, find_run_dataset, log_monitoring_run

START = 1_750_000_000_000_000


def drift_row(start, psi, **changes):
    row = {"drift_type": "BASELINE", "slice_key": None, "column_name": "a(b)"}
    return {**row, "dbx_aml_window": start, "population_stability_index": psi, **changes}


def profile_row(start, column_name, **numbers):
    return {"slice_key": None, "column_name": column_name, "dbx_aml_window": start, **numbers}


@pytest.fixture
def model_run_id(mlflow_store):
    with mlflow.start_run() as run:
        return run.info.run_id


def add_dataset(run_id, source_type, source, context=None):
    dataset = Dataset(json.dumps(source), "digest", source_type, json.dumps(source))
    tags = [] if context is None else [InputTag("mlflow.data.context", context)]
    MlflowClient().log_inputs(run_id, [DatasetInput(dataset, tags)])


def test_each_window_is_a_step_of_one_run_a_table(model_run_id, tmp_path):
    page = tmp_path / "drift.html"
    page.write_text("<html></html>")
    profiles = [
        profile_row(START, ":table", count=50, root_mean_squared_error=2.5),
        profile_row(START, ":quarantine", dbx_aml_percent_quarantined=1.5),
        profile_row(START, "a(b)", count=50),
        {**profile_row(START, ":table", count=20), "slice_key": "_scoring.model_version"},
    ]
    rows = [drift_row(START, 0.1), drift_row(START, 9.0, drift_type="CONSECUTIVE")]
    run_id = log_monitoring_run(model_run_id, "scored", rows, profiles, page)
    later = [drift_row(START + 86_400_000_000, 0.3)]
    assert log_monitoring_run(model_run_id, "scored", later, [], None) == run_id
    client = MlflowClient()
    run = client.get_run(run_id)
    assert run.info.experiment_id == client.get_run(model_run_id).info.experiment_id
    assert (run.info.status, run.data.tags[TABLE_TAG]) == ("FINISHED", "scored")
    assert run.data.metrics == {
        "psi/a_b_": 0.3,
        "rows": 50,
        "quality/root_mean_squared_error": 2.5,
        "percent_quarantined": 1.5,
    }
    points = client.get_metric_history(run_id, "psi/a_b_")
    assert [(point.step, point.timestamp, point.value) for point in points] == [
        (1_750_000_000, 1_750_000_000_000, 0.1),
        (1_750_086_400, 1_750_086_400_000, 0.3),
    ]
    assert [file.path for file in client.list_artifacts(run_id)] == ["drift.html"]
    assert log_monitoring_run(model_run_id, "other", later, [], None) != run_id


def test_a_column_whose_name_is_no_path_keeps_the_metrics_of_the_others(model_run_id):
    names = ("a", "a//b", "c/", "d" * 255)
    rows = [drift_row(START, 0.1, column_name=name) for name in names]
    run = MlflowClient().get_run(log_monitoring_run(model_run_id, "scored", rows, [], None))
    assert sorted(run.data.metrics) == ["psi/a", "psi/a/b", "psi/c", f"psi/{'d' * 246}"]


@pytest.mark.parametrize("table", ["delta.`/data/it's`", "main.`a\\b`.c", 'main.`a"b`.c'])
def test_a_table_with_quotes_in_its_name_has_one_run(model_run_id, table):
    run_ids = {
        log_monitoring_run(model_run_id, table, [drift_row(START, n)], [], None) for n in (1, 2)
    }
    assert len(run_ids) == 1


def test_a_missing_run_of_the_model_costs_a_warning(mlflow_store, caplog):
    assert log_monitoring_run("0" * 32, "scored", [drift_row(START, 0.1)], [], None) is None
    assert "the run of monitoring was not logged" in caplog.text


def test_a_page_that_cannot_be_stored_costs_a_warning(model_run_id, tmp_path, monkeypatch, caplog):
    def refuse(self, run_id, path):
        raise PermissionError("no space for artifacts")

    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    row = drift_row(START, 0.1)
    assert log_monitoring_run(model_run_id, "scored", [row], [], tmp_path / "drift.html") is None
    assert "not logged: no space for artifacts" in caplog.text


def test_the_training_dataset_of_a_run_is_the_baseline(model_run_id):
    add_dataset(model_run_id, "local", {"uri": "rows.csv"}, "training")
    add_dataset(model_run_id, "delta_table", {"path": "/data/eval"})
    add_dataset(
        model_run_id,
        "delta_table",
        {"delta_table_name": "main.ml.train", "delta_table_version": 3},
        "training",
    )
    assert find_run_dataset(f"runs:/{model_run_id}") == ("main.ml.train", 3)


def test_a_dataset_by_path_has_no_version(model_run_id):
    add_dataset(model_run_id, "spark", {"path": "/data/train"})
    assert find_run_dataset(f"runs:/{model_run_id}") == ("delta.`/data/train`", None)


def test_a_run_without_a_table_is_no_baseline(model_run_id):
    add_dataset(model_run_id, "local", {"uri": "rows.csv"})
    with pytest.raises(MonitoringError, match=r"must be a run with a dataset that is a table"):
        find_run_dataset(f"runs:/{model_run_id}")
    with pytest.raises(MonitoringError, match="must be a run that exists"):
        find_run_dataset(f"runs:/{'0' * 32}")
