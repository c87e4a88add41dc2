"""Monitor a table: compare each of its batches or days with a baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import MonitoringError, TableNotFoundError
from dbx_aml._common.log import get_logger
from dbx_aml.local.spark import current_spark
from dbx_aml.monitoring import drift
from dbx_aml.monitoring.baseline import (
    ColumnBaseline,
    compute_baseline,
    read_baseline,
    write_baseline,
)
from dbx_aml.monitoring.bins import MonitoredColumn, find_columns
from dbx_aml.monitoring.metric_tables import (
    BASELINE_COLUMNS,
    DRIFT_COLUMNS,
    PROFILE_COLUMNS,
    MetricTable,
)
from dbx_aml.monitoring.page import render_page
from dbx_aml.monitoring.profile import ProfileKey, profile_windows
from dbx_aml.monitoring.result import DriftAlert, MonitoringResult
from dbx_aml.monitoring.windows import TableWindows, Window, WindowKind
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.table_identity import identify_table, read_versions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = get_logger(__name__)

_FIRST_WINDOW = "the first window"


def monitor_table(
    output_table: str,
    baseline_table: str | None = None,
    *,
    baseline_version: int | None = None,
    by: WindowKind = "batch",
    time_column: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    page: str | Path | None = None,
    spark: SparkSession | None = None,
    progress: Callable[..., None] | None = None,
) -> MonitoringResult:
    """Compare each window of a table with a baseline, and write tables of profiles and drift.

    A window is computed once, and again only if its rows changed. The baseline is read once: a
    later run reads only the rows of new windows.

    Args:
        output_table: Table to monitor, for example the output table of `score_table`.
        baseline_table: Table of rows as they should be, for example the training rows. Default:
            the kept baseline, else the first window.
        baseline_version: Delta version of the baseline table. Default: the newest version when the
            baseline is first read.
        by: Kind of the windows: "batch", "hour", "day", "week" or "month".
        time_column: Column of times, for windows other than batches. Default: the batch's time.
        thresholds: Largest distances from the baseline, for example {"psi": 0.2}.
        page: HTML file to write, with plots of the drift of each column. Default: none.
        spark: Session. Default: the active one, else a local one.
        progress: Function that gets the name of each step.

    Shape:
        `<output>_profile_metrics`: a row for each window and column.
        `<output>_drift_metrics`: a row for each window and column, once against the baseline and
        once against the window before.
        `<output>_monitor_baseline`: a row for each column.

    Returns:
        The drift of the newest window, and the distances above a threshold.

    Raises:
        ArgumentError: An argument is not valid.
        MonitoringError: The baseline has no column of the table, or no row.
        TableNotFoundError: The table or the baseline does not exist.
    """
    start_time = time.monotonic()
    thresholds = dict(thresholds or {})
    drift.check_thresholds(thresholds)
    run = _MonitoringRun(
        spark or current_spark(),
        Table(output_table),
        by,
        time_column,
        thresholds,
        progress or _log_step,
    )
    run.load_baseline(baseline_table, baseline_version)
    run.compute_windows()
    result = run.result(start_time)
    if page is not None:
        run.write_page(Path(page), result)
    return result


class _MonitoringRun:
    """A run of monitoring of a table."""

    def __init__(
        self,
        spark: SparkSession,
        table: Table,
        by: WindowKind,
        time_column: str | None,
        thresholds: Mapping[str, float],
        progress: Callable[..., None],
    ) -> None:
        self._spark = spark
        self._table = table
        self._thresholds = thresholds
        self._progress = progress
        progress("Looking up the windows")
        identity = identify_table(spark, table)
        if identity is None:
            raise TableNotFoundError(
                f"output_table must exist and be readable: got {table.name!r}; name the "
                "output_table of a scoring job"
            )
        rows = table.read(spark)
        self._columns = [column for column in find_columns(rows) if column.name != time_column]
        self._windows = TableWindows(spark, table, rows, by, time_column)
        self._all_windows = self._windows.read(identity.id)
        self._granularity = by if by == "batch" else f"1 {by}"
        self._profile_table = MetricTable(spark, table.sibling("profile_metrics"), PROFILE_COLUMNS)
        self._drift_table = MetricTable(spark, table.sibling("drift_metrics"), DRIFT_COLUMNS)
        self._baseline_table = MetricTable(
            spark, table.sibling("monitor_baseline"), BASELINE_COLUMNS
        )
        self._baselines: dict[str, ColumnBaseline] = {}
        self._source = _FIRST_WINDOW
        self._windows_computed = 0

    def load_baseline(self, name: str | None, version: int | None) -> None:
        """Read the kept baseline, or compute and keep the baseline."""
        kept = read_baseline(self._baseline_table)
        sources = {baseline.source for baseline in kept.values()} - {_FIRST_WINDOW}
        self._source = next(iter(sources), _FIRST_WINDOW)
        is_kept = name is None or self._source.startswith(f"{name} at version ")
        if version is not None:
            is_kept = is_kept and self._source == f"{name} at version {version}"
        if kept and is_kept:
            self._baselines = kept
        elif name is not None:
            self._compute_baseline(Table(name), version)
        new_columns = [c for c in self._columns if c.name not in self._baselines]
        if new_columns and self._all_windows:
            self._progress("Reading the first window")
            first = self._windows.select(self._all_windows[:1])
            self._baselines |= compute_baseline(first, new_columns, _FIRST_WINDOW)
        if self._baselines != kept:
            write_baseline(self._baseline_table, self._baselines.values())

    def _compute_baseline(self, table: Table, version: int | None) -> None:
        self._progress("Reading the baseline")
        identity = identify_table(self._spark, table)
        if identity is None:
            raise TableNotFoundError(
                f"baseline_table must exist and be readable: got {table.name!r}; name the table of "
                "the training rows"
            )
        if version is None:
            version = read_versions(self._spark, table, identity).version
        rows = table.read(self._spark, version)
        kinds = {column.name: column for column in find_columns(rows)}
        shared = [
            kinds[column.name]
            for column in self._columns
            if column.name in kinds and kinds[column.name].kind == column.kind
        ]
        if not shared:
            raise MonitoringError(
                f"baseline_table must have columns of the output table: got {table.name!r} with "
                f"{', '.join(rows.columns)}; the output table has "
                f"{', '.join(column.name for column in self._columns)}"
            )
        self._source = f"{table.name} at version {version}"
        self._baselines = compute_baseline(rows, shared, self._source)
        if not next(iter(self._baselines.values())).profile["count"]:
            raise MonitoringError(
                f"baseline_table must have rows: got {self._source} without a row; name the table "
                "of the training rows"
            )

    def compute_windows(self) -> None:
        """Compute the windows that are new or changed, and write them into the tables."""
        states = self._computed_states()
        new = [
            window for window in self._all_windows if states.get(window.start) != self._key(window)
        ]
        gone = set(states) - {window.start for window in self._all_windows}
        self._windows_computed = len(new)
        if not new and not gone:
            return
        self._progress(f"Computing {len(new)} windows")
        columns = [column for column in self._columns if column.name in self._baselines]
        bins = {name: baseline.bins for name, baseline in self._baselines.items()}
        profiles = (
            profile_windows(self._windows.select(new), columns, bins, self._windows.key)
            if new
            else {}
        )
        rows = [
            {**self._window_columns(window), "dbx_aml_window_state": self._key(window), **numbers}
            | {"column_name": name, "dbx_aml_baseline": self._baselines[name].source}
            for window in new
            for name, numbers in profiles.get(ProfileKey(window.start, None), {}).items()
        ]
        granularity = f"granularity = '{self._granularity}'"
        starts = ", ".join(map(str, sorted({window.start for window in new} | gone)))
        self._progress("Writing the tables")
        # The states are in the profile table: it is written last.
        kept = self._profile_table.read(f"{granularity} AND dbx_aml_window NOT IN ({starts})")
        self._write_drift(columns, [*kept, *rows], {window.start for window in new} | gone)
        self._profile_table.write(rows, f"{granularity} AND dbx_aml_window IN ({starts})")

    def _computed_states(self) -> dict[int, str]:
        rows = self._profile_table.read(f"granularity = '{self._granularity}'")
        return {row["dbx_aml_window"]: row["dbx_aml_window_state"] for row in rows}

    def _key(self, window: Window) -> str:
        """Return the state of a window with its baseline."""
        return f"{window.state}, baseline {self._source}"

    def _window_columns(self, window: Window) -> dict[str, Any]:
        return {
            "window": self._windows.period(window.start),
            "granularity": self._granularity,
            "log_type": "INPUT",
            "dbx_aml_window": window.start,
        }

    def _write_drift(
        self, columns: Sequence[MonitoredColumn], profiles: list[dict[str, Any]], changed: set[int]
    ) -> None:
        """Write the drift of changed windows, and of the window after each of them."""
        by_window: dict[int, dict[str, dict[str, Any]]] = {}
        for profile in profiles:
            by_window.setdefault(profile["dbx_aml_window"], {})[profile["column_name"]] = profile
        written, rows, previous = set(changed), [], None
        for window in self._all_windows:
            if window.start in changed or (previous is not None and previous in changed):
                written.add(window.start)
                for column in columns:
                    rows += self._drift_rows(column, window, previous, by_window)
            previous = window.start
        starts = ", ".join(map(str, sorted(written)))
        self._drift_table.write(
            rows, f"granularity = '{self._granularity}' AND dbx_aml_window IN ({starts})"
        )

    def _drift_rows(
        self,
        column: MonitoredColumn,
        window: Window,
        previous: int | None,
        profiles: Mapping[int, Mapping[str, Mapping[str, Any]]],
    ) -> list[dict[str, Any]]:
        """Return the rows of a column in a window: against the baseline and the window before."""
        current = profiles.get(window.start, {}).get(column.name)
        baseline = self._baselines[column.name]
        if current is None:
            return []
        references: list[tuple[str, Any, Any]] = []
        if baseline.source == self._source:
            references.append(("BASELINE", baseline.profile, None))
        before = profiles.get(previous, {}).get(column.name) if previous is not None else None
        if before is not None and previous is not None:
            references.append(("CONSECUTIVE", before, self._windows.period(previous)))
        drift_rows: list[dict[str, Any]] = [
            {
                **self._window_columns(window),
                "column_name": column.name,
                "data_type": column.data_type,
                "drift_type": drift_type,
                "window_cmp": period,
                **drift.compare_profiles(column.kind, reference, current),
                "dbx_aml_rows": current["count"],
            }
            for drift_type, reference, period in references
        ]
        for row in drift_rows:
            row["dbx_aml_status"] = drift.drift_status(row, self._thresholds)
        return drift_rows

    def result(self, start_time: float) -> MonitoringResult:
        """Return the result, from the tables."""
        newest = self._all_windows[-1] if self._all_windows else None
        rows: list[dict[str, Any]] = []
        alerts: list[DriftAlert] = []
        count = 0
        if newest is not None:
            condition = f"granularity = '{self._granularity}' AND dbx_aml_window = {newest.start}"
            rows = self._drift_table.read(f"{condition} AND drift_type = 'BASELINE'")
            count = max((row["dbx_aml_rows"] for row in rows), default=0)
            begin, _ = self._windows.period(newest.start)
            for row in rows:
                # The run that wrote the row may have had other thresholds.
                row["dbx_aml_status"] = drift.drift_status(row, self._thresholds)
                if row["dbx_aml_status"] == "drift":
                    exceeded = drift.exceeded_thresholds(row, self._thresholds)
                    alerts += [
                        DriftAlert(
                            window_start=begin,
                            column_name=row["column_name"],
                            threshold=name,
                            value=value,
                            limit=limit,
                        )
                        for name, (value, limit) in exceeded.items()
                    ]
        return MonitoringResult(
            output_table=self._table.name,
            baseline=self._source,
            windows=len(self._all_windows),
            windows_computed=self._windows_computed,
            newest_window=self._windows.period(newest.start)[0] if newest else None,
            rows=count,
            drift=sorted(rows, key=lambda row: -(row["population_stability_index"] or 0)),
            alerts=alerts,
            columns_without_baseline=[
                name for name, b in self._baselines.items() if b.source != self._source
            ],
            profile_table=self._profile_table.table.name,
            drift_table=self._drift_table.table.name,
            baseline_table=self._baseline_table.table.name,
            seconds=time.monotonic() - start_time,
        )

    def write_page(self, path: Path, result: MonitoringResult) -> None:
        """Write the page of a result, from the tables."""
        self._progress("Writing the page")
        condition = f"granularity = '{self._granularity}'"
        profiles = self._profile_table.read(
            f"{condition} AND dbx_aml_window = {self._all_windows[-1].start}"
            if self._all_windows
            else "false"
        )
        rows = self._drift_table.read(f"{condition} AND drift_type = 'BASELINE'")
        html = render_page(result, self._baselines, profiles, rows, self._thresholds)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")


def _log_step(step: str, done: int = 0, total: int = 0, detail: str = "") -> None:
    log.info("%s", step)
