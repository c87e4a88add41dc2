"""Runs: a table, all of a run, URLs and sparklines."""

import shutil

import mlflow
import pytest

from dbx_aml._common.errors import ArgumentError, RunError
from dbx_aml.testing.mlflow_store import empty_mlflow_database
from dbx_aml.tracking.runs import list_runs, show_run, sparkline


@pytest.fixture
def run_id(mlflow_store, tmp_path):
    """A run with a param, a tag, two metrics of which one has a history, and two artifacts."""
    (tmp_path / "größe.txt").write_text("abc")
    with mlflow.start_run(run_name="one") as run:
        mlflow.log_param("alpha", 0.5)
        mlflow.set_tag("team", "ö")
        for step in range(8):
            mlflow.log_metric("loss", 8.0 - step, step=step)
        mlflow.log_metric("rmse", float("nan"))
        mlflow.log_artifact(str(tmp_path / "größe.txt"))
        mlflow.log_text("abcde", "deep/er/file.txt")
    return run.info.run_id


def test_runs_are_listed_newest_first_with_their_last_metrics(run_id):
    with mlflow.start_run(run_name="two"), pytest.raises(ZeroDivisionError):
        mlflow.log_metric("loss", 1 / 0)
    mlflow.start_run(run_name="three")
    rows = list_runs("tests")
    assert [(r.name, r.status) for r in rows] == [
        ("three", "RUNNING"),
        ("two", "FINISHED"),
        ("one", "FINISHED"),
    ]
    assert rows[2].metrics["loss"] == 1.0
    assert rows[2].run_id == run_id
    assert rows[0].seconds is None
    assert rows[2].seconds >= 0
    assert rows[2].started.utcoffset().total_seconds() == 0
    assert [r.name for r in list_runs("tests", max_results=1)] == ["three"]
    assert [r.name for r in list_runs()] == ["three", "two", "one"], "the active experiment"


def test_a_run_is_shown_with_all_that_was_logged(run_id):
    run = show_run(run_id)
    assert run["params"] == {"alpha": "0.5"}
    assert run["tags"] == {"team": "ö"}
    assert run["metrics"]["loss"] == {"last": 1.0, "points": 8, "sparkline": "█▇▆▅▄▃▂▁"}
    assert run["metrics"]["rmse"]["sparkline"] == " "
    assert run["artifacts"] == [
        {"path": "deep/er/file.txt", "bytes": 5},
        {"path": "größe.txt", "bytes": 3},
    ]
    assert run["run"].name == "one"


def test_a_missing_run_or_experiment_is_one_line(mlflow_store):
    with pytest.raises(RunError, match=r"^experiment must exist: got 'nope'; .*path$"):
        list_runs("nope")
    with pytest.raises(RunError, match=r"^run must exist: got 'abc'; Run with id=abc not found$"):
        show_run("abc")


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([2.0, 2.0, 2.0], "▁▁▁"),
        ([0.0, 1.0], "▁█"),
        ([float("nan"), float("inf")], "  "),
        ([0.0, float("nan"), 7.0], "▁ █"),
        ([float(i // 1000) for i in range(8000)], "▁▁▁▂▂▂▃▃▃▄▄▄▅▅▅▆▆▆▇▇▇███"),
    ],
)
def test_a_sparkline_has_a_bar_a_point_and_at_most_24(values, bars):
    assert sparkline(values) == bars


def test_the_default_experiment_is_searched_on_the_server_of_the_call_and_never_created(
    mlflow_store, monkeypatch, tmp_path
):
    def names(client):
        return {experiment.name for experiment in client.search_experiments()}

    own = mlflow.MlflowClient()
    shutil.copy(empty_mlflow_database(), tmp_path / "other.db")
    other = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'other.db'}")
    experiment_id = other.create_experiment("theirs")
    other.create_run(experiment_id, run_name="their run")
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)

    assert [run.name for run in list_runs(tracking_uri=other.tracking_uri)] == ["their run"]
    with pytest.raises(RunError, match=r"^experiment must exist: got 'theirs'; look"):
        list_runs()
    assert "theirs" not in names(own)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    with pytest.raises(RunError, match=r"^experiment must exist: got '77'; "):
        list_runs()


def test_artifacts_that_cannot_be_listed_and_unknown_servers_are_one_line(mlflow_store):
    client = mlflow.MlflowClient()
    experiment_id = client.create_experiment("elsewhere", artifact_location="s4://bucket/a")
    run_id = client.create_run(experiment_id).info.run_id
    with pytest.raises(RunError, match=r"^artifacts must be readable: got 's4://bucket/a/"):
        show_run(run_id)
    with pytest.raises(ArgumentError, match=r"^tracking URI must have a scheme .* got 'nonsense:"):
        list_runs(tracking_uri="nonsense://server")
