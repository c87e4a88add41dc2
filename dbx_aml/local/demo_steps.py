"""The demo's story: each step runs, checks what it did and returns its numbers."""

from __future__ import annotations

import json
import time
from calendar import month_name
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import DbxAmlError
from dbx_aml.local.demo_screen import Screen
from dbx_aml.local.notebook.cell_run import CellRun
from dbx_aml.local.notebook.run import run_notebook

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.status import Status

INPUT_TABLE = "flights"
OUTPUT_TABLE = "flights_scored"
QUARANTINE_TABLE = "flights_scored_quarantine"
MODEL_NAME = "arrival_delay"
ALPHAS = ("20000", "1000")
_NUMBERS = ("rows_read", "rows_scored", "rows_quarantined", "model_version", "batch_id")


@dataclass(frozen=True, kw_only=True)
class DemoStep:
    """One row of the demo's last table; None where a step has no such number.

    Args:
        name: For example "score October".
        rows_read: Rows that the step took in.
        rows_scored: Rows it wrote to the output table.
        rows_quarantined: Rows it set aside.
        model_version: The version that it made or used, for example "1".
        batch_id: As in `_scoring.batch_id`.
        seconds: Wall clock.
    """

    name: str
    rows_read: int | None = None
    rows_scored: int | None = None
    rows_quarantined: int | None = None
    model_version: str | None = None
    batch_id: str | None = None
    seconds: float


class Story:
    """The steps: each runs, checks what it did and returns its numbers for the last table.

    `pages` has, by step, where the page of its notebook is.
    """

    def __init__(
        self,
        screen: Screen,
        spark: Any,
        notebooks: Path,
        folder: Path,
        flights: pa.Table,
        tracking_uri: str,
    ) -> None:
        self._screen = screen
        self._spark = spark
        self._notebooks = notebooks
        self._pages_folder = folder / "pages"
        self._step = ""
        self.pages: dict[str, str] = {}
        self._checkpoint = str(folder / "checkpoint")
        self._landing = folder / "landing"
        self._landing.mkdir()
        self._flights = flights
        self._tracking_uri = tracking_uri
        counts = flights.group_by("month").aggregate([([], "count_all"), ("dep_delay", "count")])
        # By month: all rows, and those of flights that did take off.
        self._rows = {row["month"]: row["count_all"] for row in counts.to_pylist()}
        self._flown = {row["month"]: row["dep_delay_count"] for row in counts.to_pylist()}
        self._versions: dict[int, str] = {}
        self._run: dict[str, Any] = {}
        self._champion: dict[str, Any] = {}

    def tell(self) -> tuple[DemoStep, ...]:
        """Run every step, each on what the one before left; return their numbers."""
        story: list[tuple[str, Callable[[Status], dict[str, Any]]]] = [
            ("link: who tracks, who registers", self._link),
            ("ten months arrive", lambda _: self._arrive(*range(1, 11))),
            ("train on nine of them", lambda status: self._train(status, ALPHAS[0])),
            ("register version 1", lambda status: self._register(status, "1")),
            ("score October", lambda status: self._score(status, 10)),
            ("score again: no news", lambda status: self._score(status, None)),
            ("November arrives", lambda _: self._arrive(11)),
            ("score November", lambda status: self._score(status, 11)),
            ("train, other alpha", lambda status: self._train(status, ALPHAS[1])),
            ("register version 2", lambda status: self._register(status, "2")),
            ("December arrives", lambda _: self._arrive(12)),
            ("score December", lambda status: self._score(status, 12)),
            ("check every flight", lambda _: self._check()),
        ]
        steps = []
        for number, (name, act) in enumerate(story, start=1):
            start = time.monotonic()
            self._screen.title(f"{number:2}/{len(story)} {name}")
            self._step = f"{number:02} {name.partition(':')[0]}"
            with self._screen.working(name) as status:
                numbers = act(status)
            steps.append(DemoStep(name=name, seconds=time.monotonic() - start, **numbers))
            self._screen.say(f"{steps[-1].seconds:.1f} s")
        return tuple(steps)

    def tables(self) -> dict[str, str]:
        """Return where the three tables are, by name."""
        tables = (INPUT_TABLE, OUTPUT_TABLE, QUARANTINE_TABLE)
        details = {name: self._spark.sql(f"describe detail {name}").first() for name in tables}
        return {f"table {name}": detail["location"] for name, detail in details.items()}

    def _link(self, status: Status) -> dict[str, Any]:
        """Connect as the environment says: it names this machine's MLflow store."""
        done = self._notebook(status, "01_link.py", {})
        for service in ("tracking_uri", "registry_uri"):
            _expect(f"the {service}", self._tracking_uri, done[service])
        return {}

    def _arrive(self, *months: int) -> dict[str, Any]:
        import pyarrow.compute as pc
        from pyarrow import parquet

        files = [str(self._landing / f"2013-{month:02}.parquet") for month in months]
        for month, file in zip(months, files, strict=True):
            parquet.write_table(self._flights.filter(pc.field("month") == month), file)
        frame = self._spark.read.parquet(*files)
        frame.write.format("delta").mode("append").saveAsTable(INPUT_TABLE)
        rows = sum(self._rows[month] for month in months)
        cancelled = rows - sum(self._flown[month] for month in months)
        self._screen.say(
            f"{rows:,} rows into {INPUT_TABLE}, {cancelled:,} of them cancelled flights"
        )
        return {"rows_read": rows}

    def _train(self, status: Status, alpha: str) -> dict[str, Any]:
        widgets = {"input_table": INPUT_TABLE, "row_filter": "month <= 9", "alpha": alpha}
        self._run = self._notebook(status, "02_track.py", widgets)
        return {"rows_read": self._run["rows"]}

    def _register(self, status: Status, version: str) -> dict[str, Any]:
        widgets = {"model_uri": self._run["model_uri"], "model_name": MODEL_NAME}
        self._champion = self._notebook(status, "03_register.py", widgets)
        _expect("the champion's version", version, self._champion["model_version"])
        return {"model_version": version}

    def _score(self, status: Status, month: int | None) -> dict[str, Any]:
        """Score what is new, which must be this month's flights, or nothing."""
        widgets = {
            "model_uri": self._champion["model_uri"],
            "input_table": INPUT_TABLE,
            "output_table": OUTPUT_TABLE,
            "quarantine_table": QUARANTINE_TABLE,
            "row_filter": "month >= 10",
            "write_mode": "incremental",
            "checkpoint_location": self._checkpoint,
            "max_quarantined_rows": "5%",
        }
        done = self._notebook(status, "04_score.py", widgets)
        numbers = {name: done[name] for name in _NUMBERS}
        if month is None:
            _expect("the status of a rerun", "no_new_rows", done["status"])
            _expect("rows that a rerun read", 0, done["rows_read"])
            return numbers
        self._versions[month] = self._champion["model_version"]
        _expect(f"rows read for month {month}", self._rows[month], done["rows_read"])
        _expect(f"rows scored of month {month}", self._flown[month], done["rows_scored"])
        _expect("the model version", self._champion["model_version"], str(done["model_version"]))
        return numbers

    def _check(self) -> dict[str, Any]:
        """Compare both tables with the file: each new flight is in one of them, once."""
        scored = self._spark.sql(
            f"select month, _scoring.model_version as version, count(*) as n, "
            f"avg(abs(prediction - arr_delay)) as error from {OUTPUT_TABLE} group by 1, 2"
        ).collect()
        aside = self._spark.sql(
            f"select month, count(*) as n, count(dep_delay) as flown from {QUARANTINE_TABLE} "
            "group by 1"
        ).collect()
        expected = {month: (self._versions[month], self._flown[month]) for month in self._versions}
        got = {row.month: (str(row.version), row.n) for row in scored}
        _expect("model version and rows by month in the output", expected, got)
        cancelled = {month: (self._rows[month] - n, 0) for month, (_, n) in expected.items()}
        _expect(
            "rows, and flown ones, by month in the quarantine",
            cancelled,
            {row.month: (row.n, row.flown) for row in aside},
        )
        for row in sorted(scored, key=lambda row: int(row.month)):
            self._screen.say(
                f"{month_name[row.month]}: {row.n:,} flights scored by version {row.version}, "
                f"{row.error:.1f} minutes off on average; "
                f"{cancelled[row.month][0]:,} cancelled ones set aside"
            )
        total = sum(self._rows[month] for month in expected)
        return {
            "rows_read": total,
            "rows_scored": sum(row.n for row in scored),
            "rows_quarantined": sum(row.n for row in aside),
        }

    def _notebook(self, status: Status, name: str, widgets: dict[str, str]) -> dict[str, Any]:
        def show(run: CellRun) -> None:
            status.update(f"{name}: cell {run.cell.number} of {run.of}")

        page = self._pages_folder / f"{self._step.replace(' ', '-').replace(',', '')}.html"
        self.pages[f"page of {self._step}"] = str(page)
        done = run_notebook(
            self._notebooks / name, widgets, spark=self._spark, html=page, on_cell=show
        )
        value: dict[str, Any] = json.loads(done.exit_value or "{}")
        return value


def _expect(what: str, expected: object, got: object) -> None:
    if got != expected:
        raise DbxAmlError(f"demo must end as its title says: {what} must be {expected}: got {got}")
