"""The steps of the demo: each step runs a notebook or loads rows, and checks the result."""

from __future__ import annotations

import json
import re
import sys
import time
from calendar import month_name
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import DbxAmlError
from dbx_aml.local.notebook.cells import CellRun
from dbx_aml.local.notebook.process import NotebookProcess
from dbx_aml.local.notebook.run import run_notebook

if TYPE_CHECKING:
    import pyarrow as pa

INPUT_TABLE = "flights"
OUTPUT_TABLE = "flights_scored"
QUARANTINE_TABLE = "flights_scored_quarantine"
MODEL_NAME = "arrival_delay"
ALPHAS = ("20000", "1000")
DRIFT_LIMIT = 0.1
_NUMBERS = ("rows_read", "rows_scored", "rows_quarantined", "model_version", "batch_id")


@dataclass(frozen=True, kw_only=True)
class DemoStep:
    """Numbers of a finished step; None for a number that the step does not have.

    Args:
        name: Title of the step, for example "score October".
        rows_read: Rows of the input table that the step read.
        rows_scored: Rows that it wrote to the output table.
        rows_quarantined: Rows that it wrote to the quarantine table.
        model_version: Version that it registered or scored with, for example "1".
        batch_id: Name of the batch that it wrote.
        seconds: Wall clock of the step.
    """

    name: str
    rows_read: int | None = None
    rows_scored: int | None = None
    rows_quarantined: int | None = None
    model_version: str | None = None
    batch_id: str | None = None
    seconds: float


class DemoFlow:
    """The demo's steps, each on the tables and models of the steps before.

    Args:
        spark: Session for all steps.
        notebooks: Folder of `01_link.py` to `06_monitor.py`.
        folder: Empty folder for landing files, checkpoint and pages.
        flights: Table from `read_flights`.
        tracking_uri: MLflow store that the link must resolve to, for tracking and registry.
        on_cell: Callback for each cell of a notebook that starts or ends.

    Attributes:
        pages: Paths of the pages of notebooks that ran, by name.
    """

    def __init__(
        self,
        spark: Any,
        notebooks: Path,
        folder: Path,
        flights: pa.Table,
        tracking_uri: str,
        *,
        on_cell: Callable[[CellRun], None],
    ) -> None:
        self._spark = spark
        self._notebooks = notebooks
        self._flights = flights
        self._tracking_uri = tracking_uri
        self._on_cell = on_cell
        self._checkpoint = str(folder / "checkpoint")
        self._landing = folder / "landing"
        self._landing.mkdir()
        self._page_folder = folder / "pages"
        self._page_name = ""
        self._next_process: NotebookProcess | None = None
        self.pages: dict[str, str] = {}
        counts = flights.group_by("month").aggregate([([], "count_all"), ("dep_delay", "count")])
        # Rows by month, and how many of them are flights that were not cancelled.
        self._row_counts = {row["month"]: row["count_all"] for row in counts.to_pylist()}
        self._flown_counts = {row["month"]: row["dep_delay_count"] for row in counts.to_pylist()}
        self._versions: dict[int, str] = {}
        self._training: dict[str, Any] = {}
        self._champion: dict[str, Any] = {}
        self._steps: dict[str, Callable[[], dict[str, Any]]] = {
            "link tracking and registry": self._link,
            "load ten months": lambda: self._load_months(*range(1, 11)),
            "train on nine months": lambda: self._train(ALPHAS[0]),
            "register version 1": lambda: self._register("1"),
            "score October": lambda: self._score(10),
            "score again: no new rows": lambda: self._score(None),
            "load November": lambda: self._load_months(11),
            "score November": lambda: self._score(11),
            "train with another alpha": lambda: self._train(ALPHAS[1]),
            "register version 2": lambda: self._register("2"),
            "load December": lambda: self._load_months(12),
            "score December": lambda: self._score(12),
            "serve version 2 on this machine": self._serve,
            "compare with the training months": self._monitor,
            "check every flight": self._check_tables,
        }

    @property
    def titles(self) -> list[str]:
        """Titles of the steps, in order."""
        return list(self._steps)

    def run_step(self, number: int) -> DemoStep:
        """Run a step and return its numbers; the first step has number 1."""
        title, step = list(self._steps.items())[number - 1]
        self._page_name = f"{number:02}-{re.sub('[^a-z0-9]+', '-', title.lower())}"
        start = time.monotonic()
        numbers = step()
        return DemoStep(name=title, seconds=time.monotonic() - start, **numbers)

    def close(self) -> None:
        """End the process that waits for a further notebook."""
        if self._next_process is not None:
            self._next_process.stop(0)

    def table_locations(self) -> dict[str, str]:
        """Return the locations of the three tables, by name."""
        tables = (INPUT_TABLE, OUTPUT_TABLE, QUARANTINE_TABLE)
        details = {name: self._spark.sql(f"describe detail {name}").first() for name in tables}
        return {f"table {name}": detail["location"] for name, detail in details.items()}

    def _link(self) -> dict[str, Any]:
        link = self._run_notebook("01_link.py", {})
        for name in ("tracking_uri", "registry_uri"):
            _check_equal(name, self._tracking_uri, link[name])
        return {}

    def _load_months(self, *months: int) -> dict[str, Any]:
        """Append months to the input table, from files as another system would deliver them."""
        import pyarrow.compute as pc
        from pyarrow import parquet

        files = [str(self._landing / f"2013-{month:02}.parquet") for month in months]
        for month, file in zip(months, files, strict=True):
            parquet.write_table(self._flights.filter(pc.field("month") == month), file)
        frame = self._spark.read.parquet(*files)
        frame.write.format("delta").mode("append").saveAsTable(INPUT_TABLE)
        rows = sum(self._row_counts[month] for month in months)
        cancelled = rows - sum(self._flown_counts[month] for month in months)
        _print(f"{rows:,} rows into {INPUT_TABLE}, {cancelled:,} of them cancelled flights")
        return {"rows_read": rows}

    def _train(self, alpha: str) -> dict[str, Any]:
        widgets = {"input_table": INPUT_TABLE, "row_filter": "month <= 9", "alpha": alpha}
        self._training = self._run_notebook("02_track.py", widgets)
        return {"rows_read": self._training["rows"]}

    def _register(self, version: str) -> dict[str, Any]:
        widgets = {"model_uri": self._training["model_uri"], "model_name": MODEL_NAME}
        self._champion = self._run_notebook("03_register.py", widgets)
        _check_equal("version of the champion", version, self._champion["model_version"])
        return {"model_version": version}

    def _score(self, month: int | None) -> dict[str, Any]:
        """Score the new rows: the flights of this month, or no rows for None."""
        widgets = {
            "model_uri": self._champion["model_uri"],
            "input_table": INPUT_TABLE,
            "output_table": OUTPUT_TABLE,
            "quarantine_table": QUARANTINE_TABLE,
            "row_filter": "month >= 10",
            "write_mode": "incremental",
            "checkpoint_location": self._checkpoint,
            "max_quarantined_rows": "5%",
            "replay": "yes" if month == 10 else "no",
        }
        result = self._run_notebook("04_score.py", widgets)
        numbers = {name: result[name] for name in _NUMBERS}
        if month is None:
            _check_equal("status of the second run", "no_new_rows", result["status"])
            _check_equal("rows read by the second run", 0, result["rows_read"])
            return numbers
        self._versions[month] = self._champion["model_version"]
        _check_equal(f"rows read for month {month}", self._row_counts[month], result["rows_read"])
        _check_equal(
            f"rows scored of month {month}", self._flown_counts[month], result["rows_scored"]
        )
        _check_equal("model version", self._champion["model_version"], str(result["model_version"]))
        return numbers

    def _serve(self) -> dict[str, Any]:
        """Start Azure ML's scoring server with the champion, and compare its answers."""
        result = self._run_notebook("05_serve.py", {"model_uri": self._champion["model_uri"]})
        version = self._champion["model_version"]
        _check_equal("served model", f"models:/{MODEL_NAME}/{version}", result["model_uri"])
        _check_equal("difference from pyfunc.predict", "", result["difference"])
        return {"model_version": version}

    def _monitor(self) -> dict[str, Any]:
        """Compare the three scored months with the training months: December has drift.

        The labels are in the output table: the flights have landed.
        """
        page = self._page_folder.parent / "drift.html"
        self.pages["drift"] = str(page)
        widgets = {
            "output_table": OUTPUT_TABLE,
            "input_table": INPUT_TABLE,
            "row_filter": "month <= 9",
            "thresholds": json.dumps({"psi": DRIFT_LIMIT}),
            "page": str(page),
        }
        result = self._run_notebook("06_monitor.py", widgets)
        _check_equal("monitored batches", len(self._versions), result["batches"])
        _check_equal("rows of the newest batch", self._flown_counts[12], result["rows"])
        _check_equal("drift of the delay in December", True, "arr_delay" in result["drifted"])
        (december,) = self._spark.sql(
            f"select avg(abs(prediction - arr_delay)) as error from {OUTPUT_TABLE} where month = 12"
        ).collect()
        error = result["quality"]["mean_average_error"]
        _check_equal("error of December in minutes", f"{december.error:.6f}", f"{error:.6f}")
        return {"rows_read": result["rows"]}

    def _check_tables(self) -> dict[str, Any]:
        """Check that each new flight is in exactly one of output table and quarantine table."""
        scored = self._spark.sql(
            f"select month, _scoring.model_version as version, count(*) as n, "
            f"avg(abs(prediction - arr_delay)) as error from {OUTPUT_TABLE} group by 1, 2"
        ).collect()
        quarantined = self._spark.sql(
            f"select month, count(*) as n, count(dep_delay) as flown from {QUARANTINE_TABLE} "
            "group by 1"
        ).collect()
        months = self._versions
        cancelled = {month: self._row_counts[month] - self._flown_counts[month] for month in months}
        _check_equal(
            "model version and rows by month in the output table",
            {month: (months[month], self._flown_counts[month]) for month in months},
            {row.month: (str(row.version), row.n) for row in scored},
        )
        _check_equal(
            "rows, and flights not cancelled, by month in the quarantine table",
            {month: (count, 0) for month, count in cancelled.items()},
            {row.month: (row.n, row.flown) for row in quarantined},
        )
        for row in sorted(scored, key=lambda row: int(row.month)):
            _print(
                f"{month_name[row.month]}: {row.n:,} flights scored by version {row.version}, "
                f"{row.error:.1f} minutes off on average; "
                f"{cancelled[row.month]:,} cancelled flights in quarantine"
            )
        return {
            "rows_read": sum(self._row_counts[month] for month in months),
            "rows_scored": sum(row.n for row in scored),
            "rows_quarantined": sum(row.n for row in quarantined),
        }

    def _run_notebook(self, name: str, widgets: dict[str, str]) -> dict[str, Any]:
        page = self._page_folder / f"{self._page_name}.html"
        self.pages[f"page {self._page_name[:2]}"] = str(page)
        # The process of the next notebook imports MLflow while this notebook runs.
        process, self._next_process = self._next_process, NotebookProcess(["mlflow.sklearn"])
        result = run_notebook(
            self._notebooks / name,
            widgets,
            spark=self._spark,
            html=page,
            on_cell=self._on_cell,
            process=process,
        )
        exit_value: dict[str, Any] = json.loads(result.exit_value or "{}")
        return exit_value


def _check_equal(quantity: str, required: object, actual: object) -> None:
    if actual != required:
        raise DbxAmlError(
            f"demo must end as its title says: {quantity} must be {required}: got {actual}"
        )


def _print(line: str) -> None:
    # As the output of the notebooks, which run_demo indents below the step's title.
    sys.stdout.write(f"{line}\n")
