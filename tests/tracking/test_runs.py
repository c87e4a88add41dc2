"""Runs: a table, all of a run, URLs and sparklines."""

import mlflow
import pytest

from dbx_aml._common.errors import RunError
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
