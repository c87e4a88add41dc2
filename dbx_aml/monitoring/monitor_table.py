"""Monitor a table or an endpoint: compare each of its batches or days with a baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from dbx_aml._common.errors import ArgumentError, MonitoringError, TableNotFoundError
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import plural, sql_identifier
from dbx_aml.local.spark import current_spark
from dbx_aml.monitoring import drift
from dbx_aml.monitoring.baseline import (
    ColumnBaseline,
    compute_baseline,
    read_baseline,
    write_baseline,
)
from dbx_aml.monitoring.bins import Bins, MonitoredColumn, find_columns
from dbx_aml.monitoring.collected_rows import find_collected_columns
from dbx_aml.monitoring.collected_windows import CollectedWindows
from dbx_aml.monitoring.metric_tables import (
    BASELINE_COLUMNS,
    DRIFT_COLUMNS,
    PROFILE_COLUMNS,
    MetricTable,
)
from dbx_aml.monitoring.monitoring_run import find_run_dataset, log_monitoring_run
from dbx_aml.monitoring.page import check_page, render_page
from dbx_aml.monitoring.profile import ProfileKey, profile_windows
from dbx_aml.monitoring.quality import (
    CHALLENGER_PREDICTION,
    CHALLENGER_ROW,
    QUALITY_METRICS,
    LabelColumn,
    Labels,
    ProblemType,
    quality_numbers,
)
from dbx_aml.monitoring.quarantine import QUARANTINE_ROW
from dbx_aml.monitoring.result import MonitoringResult, ThresholdAlert, WindowKind
from dbx_aml.monitoring.thresholds import (
    QUARANTINED,
    check_problem_type,
    check_thresholds,
    exceeded_distances,
    exceeded_quality,
)
from dbx_aml.monitoring.windows import TableWindows, Window, Windows
from dbx_aml.scoring.column_binding import SCORING
from dbx_aml.scoring.delta_table import Table, column_types
from dbx_aml.scoring.spark_errors import SPARK_ERRORS, spark_error_line
from dbx_aml.scoring.table_identity import identify_table, read_versions

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

log = get_logger(__name__)

_FIRST_WINDOW = "the first window"
# Value of `column_name` of a row about all columns.
TABLE_ROW = ":table"
_IS_DRIFT = f"drift_type = 'BASELINE' AND slice_key IS NULL AND column_name <> '{TABLE_ROW}'"
# Rows of each version of the model are a slice.
SLICE_KEY = f"{SCORING}.model_version"
# Columns of the profile table that a run needs of windows that it does not compute.
_KEPT_COLUMNS = (
    "dbx_aml_window",
    "dbx_aml_window_state",
    "column_name",
    "slice_key",
    "slice_value",
    "count",
    "avg",
    "stddev",
    "percent_null",
    "percent_zeros",
    "percent_distinct",
    "non_null_columns",
    "frequent_items",
    *QUALITY_METRICS,
    "dbx_aml_bin_counts",
    "dbx_aml_bin_sums",
    "dbx_aml_labels",
    "dbx_aml_label_version",
    "dbx_aml_labeled_rows",
    "dbx_aml_percent_quarantined",
)


def monitor_table(
    output_table: str,
    baseline: str | None = None,
    *,
    baseline_version: int | None = None,
    by: WindowKind = "batch",
    time_column: str | None = None,
    collected_folder: str | None = None,
    label: str | None = None,
    label_table: str | None = None,
    key: str | None = None,
    problem_type: ProblemType | None = None,
    thresholds: Mapping[str, float] | None = None,
    page: str | Path | None = None,
    spark: SparkSession | None = None,
    progress: Callable[..., None] | None = None,
) -> MonitoringResult:
    """Compare each window of a table with a baseline, and write tables of profiles and drift.

    A window is computed once, and again only if its rows changed. The baseline is read once: a
    later run reads only the rows of new windows.

    Args:
        output_table: Table to monitor, for example the output table of `score_table`. With a
            collected_folder this table need not exist: it gives the three tables their names.
        baseline: Table of rows as they should be, for example the training rows; or the run that
            was trained on a table, for example "runs:/9f2c41d0". Default: the kept baseline, else
            the first window.
        baseline_version: Delta version of the baseline table. Default: the newest version when the
            baseline is first read.
        by: Kind of the windows: "batch", "hour", "day", "week" or "month".
        time_column: Column of times, for windows other than batches. Default: the batch's time.
        collected_folder: Folder of an Azure ML endpoint's data collector, which is monitored in
            the place of the table, for example "abfss://.../model_inputs".
        label: Column of the labels. With labels, the quality of the predictions is computed, too;
            labels that come later fill older windows.
        label_table: Table of the labels. Default: the output table.
        key: Column of both tables that identifies a row.
        problem_type: "classification" or "regression". Default: text and boolean labels are
            classes, other labels are numbers.
        thresholds: Largest distances from the baseline and errors, smallest scores, for example
            {"psi": 0.2, "rmse": 20, "r2": 0.5}.
        page: HTML file to write, with plots of the drift of each column. Default: none.
        spark: Session. Default: the active one, else a local one.
        progress: Function that gets the name of each step.

    Shape:
        `<output>_profile_metrics`: a row for each window and column, one for all columns
        (":table") with the quality, one for the rows that were not scored (":quarantine"), and
        one for the quality of the challenger's predictions (":challenger").
        `<output>_drift_metrics`: a row for each window and column, once against the baseline and
        once against the window before.
        `<output>_monitor_baseline`: a row for each column.

    Returns:
        The drift and the quality of the newest window, and the numbers beyond a threshold.

    Raises:
        ArgumentError: An argument is not valid.
        MonitoringError: The baseline has no column of the table, or no row; a key has several
            labels; or Spark cannot read a table, for example at a version that VACUUM has removed.
        TableNotFoundError: The table, the folder, the baseline or the table of the labels does not
            exist.
    """
    start_time = time.monotonic()
    thresholds = dict(thresholds or {})
    check_thresholds(thresholds, has_labels=label is not None)
    labels = None
    if label is not None:
        labels = LabelColumn(name=label, table=label_table, key=key, problem_type=problem_type)
    if page is not None:
        check_page(Path(page))
    spark = spark or current_spark()
    try:
        run = _MonitoringRun(spark, Table(output_table), thresholds, progress or _log_step)
        run.find_baseline(baseline, baseline_version)
        if collected_folder is None:
            windows: Windows = TableWindows(spark, Table(output_table), by, time_column)
        else:
            schema = run.find_collected_schema(collected_folder)
            windows = CollectedWindows(spark, collected_folder, schema, by)
        run.find_windows(windows, labels)
        run.load_baseline()
        run.compute_windows()
        result = run.result(start_time)
        if page is not None:
            run.write_page(Path(page), result)
        return run.log_to_mlflow(result, None if page is None else Path(page))
    except SPARK_ERRORS as err:
        raise MonitoringError(
            f"output_table, baseline and labels must be readable: got {output_table!r}; "
            f"{spark_error_line(err)}"
        ) from err


class _MonitoringRun:
    """A run of monitoring of a table or of a folder of the data collector."""

    def __init__(
        self,
        spark: SparkSession,
        table: Table,
        thresholds: Mapping[str, float],
        progress: Callable[..., None],
    ) -> None:
        self._spark = spark
        self._table = table
        self._thresholds = thresholds
        self._progress = progress
        self._profile_table = MetricTable(spark, table.sibling("profile_metrics"), PROFILE_COLUMNS)
        self._drift_table = MetricTable(spark, table.sibling("drift_metrics"), DRIFT_COLUMNS)
        self._baseline_table = MetricTable(
            spark, table.sibling("monitor_baseline"), BASELINE_COLUMNS
        )
        self._kept_baselines: dict[str, ColumnBaseline] = {}
        # Rows of the baseline table; None where the kept baseline is used.
        self._baseline_rows: DataFrame | None = None
        self._baselines: dict[str, ColumnBaseline] = {}
        self._source = _FIRST_WINDOW
        self._all_windows: list[Window] = []
        self._columns: list[MonitoredColumn] = []
        self._windows_computed = 0
        # Rows that this run writes into the two tables.
        self._new_profiles: list[dict[str, Any]] = []
        self._new_drift: list[dict[str, Any]] = []
        # Rows about all columns and about the quarantine, of all windows.
        self._table_rows: dict[tuple[int, str], dict[str, Any]] = {}

    def find_baseline(self, name: str | None, version: int | None) -> None:
        """Read the kept baseline, or find the table of another baseline."""
        self._progress("Looking up the baseline")
        if name is not None and name.startswith("runs:/"):
            name, run_version = find_run_dataset(name)
            version = run_version if version is None else version
        self._kept_baselines = read_baseline(self._baseline_table)
        sources = {baseline.source for baseline in self._kept_baselines.values()}
        self._source = next(iter(sources - {_FIRST_WINDOW}), _FIRST_WINDOW)
        if name is None and version is not None:
            # A version without a table is one of the kept table.
            name = self._source.rpartition(" at version ")[0]
            if not name:
                raise ArgumentError(
                    f"baseline_version must go with a baseline table: got {version} and no kept "
                    "table; give baseline, the table of the training rows"
                )
        is_kept = name is None or self._source.startswith(f"{name} at version ")
        if version is not None:
            is_kept = is_kept and self._source == f"{name} at version {version}"
        if self._kept_baselines and is_kept:
            self._baselines = dict(self._kept_baselines)
            return
        if name is None:
            return
        table = Table(name)
        identity = identify_table(self._spark, table)
        if identity is None:
            raise TableNotFoundError(
                f"baseline must exist and be readable: got {name!r}; name the table of the "
                "training rows"
            )
        if version is None:
            version = read_versions(self._spark, table, identity).version
        self._source = f"{name} at version {version}"
        self._baseline_rows = table.read(self._spark, version)

    def find_collected_schema(self, folder: str) -> StructType:
        """Return the columns of the baseline that the data collector wrote, with their types.

        Raises:
            ArgumentError: No table gives the types.
            MonitoringError: The collected rows have no column of the baseline.
        """
        if self._baseline_rows is None and not self._baselines:
            raise ArgumentError(
                f"baseline must be a table where collected_folder is first read: got none for "
                f"{folder!r}; name the table of the training rows, which has the types"
            )
        if self._baseline_rows is not None:
            names = find_collected_columns(self._spark, folder)
            columns = find_columns(self._baseline_rows)
            types = {c.name: c.data_type for c in columns if c.name in names or not names}
            if not types:
                raise MonitoringError(
                    f"baseline must have columns that the endpoint collects: got {self._source} "
                    f"with {', '.join(c.name for c in columns)}; the first request of {folder} has "
                    f"{', '.join(names)}"
                )
        else:
            types = {name: kept.column.data_type for name, kept in self._baselines.items()}
        ddl = ", ".join(f"{sql_identifier(name)} {kind}" for name, kind in types.items())
        return self._spark.createDataFrame([], ddl).schema

    def find_windows(self, windows: Windows, label: LabelColumn | None) -> None:
        """Find the columns, the windows and the labels."""
        self._progress("Looking up the windows")
        self._windows = windows
        # The drift of a key says nothing.
        left_out = {*windows.columns_left_out, None if label is None else label.key}
        columns = find_columns(windows.rows)
        self._columns = [column for column in columns if column.name not in left_out]
        self._all_windows = windows.read()
        self._granularity = windows.kind if windows.kind == "batch" else f"1 {windows.kind}"
        self._is_granularity = f"granularity = '{self._granularity}'"
        has_version = "model_version:" in column_types(windows.rows).get(SCORING, "")
        self._slice_by = F.expr(SLICE_KEY) if has_version else None
        self._labels = None
        if label is not None:
            self._labels = Labels(self._spark, label, windows.rows)
            check_problem_type(self._thresholds, self._labels.problem_type)

    def load_baseline(self) -> None:
        """Compute the baseline of new columns, and keep it."""
        if self._baseline_rows is not None:
            self._progress("Reading the baseline")
            self._baselines = self._compute_baseline(self._baseline_rows)
        units = {name: baseline.column.unit for name, baseline in self._baselines.items()}
        new_columns = [c for c in self._columns if units.get(c.name) != c.unit]
        windows = [window for window in self._all_windows if not window.is_empty]
        if new_columns and windows:
            self._progress("Reading the first window")
            self._baselines |= self._first_window_baseline(new_columns, windows)
        if self._baselines != self._kept_baselines:
            write_baseline(self._baseline_table, self._baselines.values())

    def _first_window_baseline(
        self, columns: Sequence[MonitoredColumn], windows: list[Window]
    ) -> dict[str, ColumnBaseline]:
        """Return the baseline of each column from the first window that has a value of it."""
        found: dict[str, ColumnBaseline] = {}
        missing, first = list(columns), windows[:1]
        while missing and first:
            computed = compute_baseline(self._windows.select(first), missing, _FIRST_WINDOW)
            found |= {name: b for name, b in computed.items() if b.profile["count"]}
            missing = [c for c in missing if computed[c.name].bins == Bins()]
            first = []
            if missing and len(windows) > 1:
                # A table gains columns: its older windows have only nulls in them.
                has_value = reduce(or_, [column.finite_value.isNotNull() for column in missing])
                rows = self._windows.select(windows).where(has_value)
                start = rows.agg(F.min(self._windows.key)).collect()[0][0]
                first = [window for window in windows if window.start == start]
        return found

    def _compute_baseline(self, rows: DataFrame) -> dict[str, ColumnBaseline]:
        kinds = {column.name: column for column in find_columns(rows)}
        shared = [
            kinds[column.name]
            for column in self._columns
            if column.name in kinds and kinds[column.name].unit == column.unit
        ]
        if not shared:
            raise MonitoringError(
                f"baseline must have columns of the output table: got {self._source} with "
                f"{', '.join(rows.columns)}; the output table has "
                f"{', '.join(column.name for column in self._columns)}"
            )
        baselines = compute_baseline(rows, shared, self._source)
        if not next(iter(baselines.values())).profile["count"]:
            raise MonitoringError(
                f"baseline must have rows: got {self._source} without a row; name the table "
                "of the training rows"
            )
        return baselines

    def compute_windows(self) -> None:
        """Compute the windows that are new or changed, and write them into the tables."""
        kept = self._read_kept_rows()
        self._table_rows = {
            (row["dbx_aml_window"], row["column_name"]): row for row in kept if _is_table_row(row)
        }
        table_rows = {
            start: row for (start, name), row in self._table_rows.items() if name == TABLE_ROW
        }
        new = [
            window
            for window in self._all_windows
            if table_rows.get(window.start, {}).get("dbx_aml_window_state") != self._key(window)
        ]
        changed = {window.start for window in new}
        gone = set(table_rows) - {window.start for window in self._all_windows}
        relabeled = self._windows_with_new_labels(table_rows, changed)
        self._windows_computed = len(new)
        if not new and not gone and not relabeled:
            return
        rows = self._profile_rows(new) if new else []
        if self._labels is not None and (new or relabeled):
            rows += self._read_relabeled_rows([window.start for window in relabeled])
            self._add_quality(rows, [*new, *relabeled])
        self._new_profiles = rows
        self._update_table_rows(changed | gone, rows)
        self._progress("Writing the tables")
        # The states are in the profile table: it is written last.
        if changed or gone:
            unchanged = [row for row in kept if row["dbx_aml_window"] not in changed]
            self._write_drift([*unchanged, *rows], changed, gone)
        conditions = [f"dbx_aml_window IN ({_numbers(changed | gone)})"] if changed | gone else []
        if relabeled:
            starts = _numbers(window.start for window in relabeled)
            names = f"'{TABLE_ROW}', '{CHALLENGER_ROW}'"
            conditions.append(f"(dbx_aml_window IN ({starts}) AND column_name IN ({names}))")
        self._profile_table.write(rows, f"{self._is_granularity} AND ({' OR '.join(conditions)})")

    def _read_kept_rows(self) -> list[dict[str, Any]]:
        """Return the rows about all columns of all windows, and all rows of the last but one.

        A new window is compared with the window before it, which is nearly always the last but one:
        one read of the table gives both.
        """
        condition = "column_name LIKE ':%' AND slice_key IS NULL"
        if len(self._all_windows) > 1:
            condition += f" OR dbx_aml_window = {self._all_windows[-2].start}"
        return self._profile_table.read(f"{self._is_granularity} AND ({condition})", _KEPT_COLUMNS)

    def _update_table_rows(self, replaced: set[int], rows: Iterable[dict[str, Any]]) -> None:
        """Replace the rows about all columns of some windows."""
        self._table_rows = {
            key: row for key, row in self._table_rows.items() if key[0] not in replaced
        }
        for row in rows:
            if _is_table_row(row):
                self._table_rows[row["dbx_aml_window"], row["column_name"]] = row

    def _windows_with_new_labels(
        self, table_rows: Mapping[int, Mapping[str, Any]], changed: set[int]
    ) -> list[Window]:
        """Return the windows that are not computed again and may have new labels."""
        if self._labels is None:
            return []
        return [
            window
            for window in self._all_windows
            if window.start in table_rows
            and window.start not in changed
            and self._labels.is_new_for(table_rows[window.start])
        ]

    def _profile_rows(self, windows: list[Window]) -> list[dict[str, Any]]:
        """Return the rows of the profile table for some windows."""
        self._progress(f"Computing {plural(len(windows), 'window')}")
        columns = [column for column in self._columns if column.name in self._baselines]
        bins = {name: baseline.bins for name, baseline in self._baselines.items()}
        rows = self._windows.select(windows)
        profiles = profile_windows(rows, columns, bins, self._windows.key, self._slice_by)
        # A window without rows has a row, too: the next run then knows its state.
        profiles = {**{ProfileKey(window.start, None): {} for window in windows}, **profiles}
        by_start = {window.start: window for window in windows}
        found: list[dict[str, Any]] = []
        for key, profile in profiles.items():
            if key.window not in by_start:
                continue
            shared = self._row_columns(by_start[key.window], key)
            found.append({**shared, **_table_row(profile)})
            found += [
                {
                    **shared,
                    **numbers,
                    "column_name": name,
                    "dbx_aml_baseline": self._baselines[name].source,
                }
                for name, numbers in profile.items()
            ]
        counts = {row["dbx_aml_window"]: row["count"] for row in found if _is_table_row(row)}
        quarantined = self._windows.quarantine_rows(windows, counts)
        return found + [
            {**self._row_columns(by_start[start], ProfileKey(start, None)), **row}
            for start, row in quarantined.items()
            if row["count"]
        ]

    def _read_relabeled_rows(self, starts: list[int]) -> list[dict[str, Any]]:
        """Return the whole rows about all columns of some windows, of which only labels changed."""
        if not starts:
            return []
        return self._profile_table.read(
            f"{self._is_granularity} AND dbx_aml_window IN ({_numbers(starts)}) "
            f"AND column_name = '{TABLE_ROW}'"
        )

    def _add_quality(self, rows: list[dict[str, Any]], windows: list[Window]) -> None:
        """Add the quality of the predictions to the rows about all columns."""
        if self._labels is None:
            return
        self._progress("Reading the labels")
        self._labels.check_keys()
        labels, scored = self._labels, self._windows.select(windows)
        quality = labels.compute_quality(scored, self._windows.key, self._slice_by)
        labels_of_row = {
            # The row may have the numbers of other labels.
            **dict.fromkeys((*QUALITY_METRICS, "confusion_matrix")),
            "dbx_aml_labels": labels.name,
            "dbx_aml_label_version": labels.version,
            "dbx_aml_labeled_rows": 0,
        }
        for row in rows:
            if row["column_name"] == TABLE_ROW:
                key = ProfileKey(row["dbx_aml_window"], row["slice_value"])
                row.update({**labels_of_row, **quality.get(key, {})})
        if labels.has_challenger:
            found = labels.compute_quality(
                scored, self._windows.key, None, prediction=CHALLENGER_PREDICTION
            )
            rows += [
                {
                    **self._row_columns(window, key),
                    **labels_of_row,
                    **found[key],
                    "column_name": CHALLENGER_ROW,
                    "count": found[key]["dbx_aml_labeled_rows"],
                }
                for window in windows
                if (key := ProfileKey(window.start, None)) in found
            ]

    def _key(self, window: Window) -> str:
        """Return the state of a window with its baseline."""
        return f"{window.state}, baseline {self._source}"

    def _row_columns(self, window: Window, key: ProfileKey) -> dict[str, Any]:
        """Return the columns that identify a row of the profile table."""
        return {
            **self._window_columns(window.start, key.slice_value),
            "log_type": "INPUT",
            "dbx_aml_window_state": self._key(window),
        }

    def _window_columns(self, start: int, slice_value: str | None) -> dict[str, Any]:
        return {
            "window": self._period(start),
            "granularity": self._granularity,
            "slice_key": None if slice_value is None else SLICE_KEY,
            "slice_value": slice_value,
            "dbx_aml_window": start,
        }

    def _period(self, start: int) -> dict[str, datetime]:
        begin, end = self._windows.period(start)
        return {"start": begin, "end": end}

    def _write_drift(
        self, rows: Sequence[Mapping[str, Any]], changed: set[int], gone: set[int]
    ) -> None:
        """Write the drift of changed windows, and of the window after each changed or gone one.

        Args:
            rows: New rows of the profile table, and the rows that were read of unchanged windows.
            changed: Starts of the windows that are new or changed.
            gone: Starts of windows that have no more rows.
        """
        starts = [window.start for window in self._all_windows]
        compared = windows_to_compare(starts, changed, gone)
        needed = {start for pair in compared.items() for start in pair if start is not None}
        missing = needed - changed - {row["dbx_aml_window"] for row in rows if _is_column_row(row)}
        if missing:
            rows = [
                *rows,
                *self._profile_table.read(
                    f"{self._is_granularity} AND dbx_aml_window IN ({_numbers(missing)})",
                    _KEPT_COLUMNS,
                ),
            ]
        profiles: dict[ProfileKey, dict[str, Mapping[str, Any]]] = {}
        for row in rows:
            key = ProfileKey(row["dbx_aml_window"], row["slice_value"])
            profiles.setdefault(key, {})[row["column_name"]] = row
        names = [TABLE_ROW, *(column.name for column in self._columns)]
        self._new_drift = [
            row
            for key, profile in profiles.items()
            if key.window in compared
            for name in names
            if name in profile
            for row in self._drift_rows(name, key, compared[key.window], profiles)
        ]
        written = _numbers(set(compared) | gone)
        self._drift_table.write(
            self._new_drift, f"{self._is_granularity} AND dbx_aml_window IN ({written})"
        )

    def _drift_rows(
        self,
        name: str,
        key: ProfileKey,
        previous: int | None,
        profiles: Mapping[ProfileKey, Mapping[str, Mapping[str, Any]]],
    ) -> list[dict[str, Any]]:
        """Return the rows of a column in a window: against the baseline and the window before."""
        current = profiles[key][name]
        references: list[tuple[str, Any, Any]] = []
        baseline = self._baseline_profile(name)
        if baseline is not None:
            references.append(("BASELINE", baseline, None))
        before = profiles.get(ProfileKey(previous, key.slice_value), {}).get(name)
        if before is not None and previous is not None:
            references.append(("CONSECUTIVE", before, self._period(previous)))
        drift_rows: list[dict[str, Any]] = [
            {
                **self._window_columns(current["dbx_aml_window"], key.slice_value),
                "column_name": name,
                "drift_type": drift_type,
                "window_cmp": period,
                **self._compare(name, reference, current),
                "dbx_aml_rows": current["count"],
            }
            for drift_type, reference, period in references
        ]
        for row in drift_rows:
            row["dbx_aml_status"] = drift.drift_status(row, self._thresholds)
        return drift_rows

    def _baseline_profile(self, name: str) -> Mapping[str, Any] | None:
        """Return the numbers of a column or of all columns; None if the baseline lacks it."""
        profiles = {
            name: baseline.profile
            for name, baseline in self._baselines.items()
            if baseline.source == self._source
        }
        return _table_row(profiles) if name == TABLE_ROW else profiles.get(name)

    def _compare(
        self, name: str, reference: Mapping[str, Any], current: Mapping[str, Any]
    ) -> dict[str, Any]:
        if name == TABLE_ROW:
            return drift.compare_tables(reference, current)
        column = next(column for column in self._columns if column.name == name)
        return {
            "data_type": column.data_type,
            **drift.compare_profiles(column.kind, reference, current),
        }

    def result(self, start_time: float) -> MonitoringResult:
        """Return the result, from the tables."""
        newest = self._all_windows[-1].start if self._all_windows else None
        rows = [] if newest is None else self._newest_drift(newest)
        for row in rows:
            # The run that wrote the row may have had other thresholds.
            row["dbx_aml_status"] = drift.drift_status(row, self._thresholds)
        judged = self._judged_row()
        quarantined = self._table_rows.get((newest or 0, QUARANTINE_ROW), {})
        judged_window = None if judged is None else judged["dbx_aml_window"]
        challenger = self._table_rows.get((judged_window or 0, CHALLENGER_ROW), {})
        return MonitoringResult(
            quality={} if judged is None else quality_numbers(judged),
            challenger_quality=quality_numbers(challenger),
            quality_window=None if judged is None else self._start_time(judged),
            percent_quarantined=quarantined.get("dbx_aml_percent_quarantined"),
            output_table=self._table.name,
            baseline=self._source,
            windows=len(self._all_windows),
            windows_computed=self._windows_computed,
            newest_window=None if newest is None else self._windows.period(newest)[0],
            rows=max((row["dbx_aml_rows"] for row in rows), default=0),
            drift=sorted(rows, key=lambda row: -(row["population_stability_index"] or 0)),
            alerts=self._find_alerts(rows, judged, quarantined),
            columns_without_baseline=[
                name for name, b in self._baselines.items() if b.source != self._source
            ],
            profile_table=self._profile_table.table.name,
            drift_table=self._drift_table.table.name,
            baseline_table=self._baseline_table.table.name,
            seconds=time.monotonic() - start_time,
        )

    def _start_time(self, row: Mapping[str, Any]) -> datetime:
        return self._windows.period(row["dbx_aml_window"])[0]

    def _judged_row(self) -> dict[str, Any] | None:
        """Return the row of the newest window with enough labels, else the newest with labels."""
        if self._labels is None:
            return None
        labeled = [
            row
            for (_, name), row in self._table_rows.items()
            if name == TABLE_ROW and quality_numbers(row)
        ]
        return max(
            labeled,
            key=lambda row: (_has_enough_labels(row), row["dbx_aml_window"]),
            default=None,
        )

    def _find_alerts(
        self,
        drift_rows: Iterable[Mapping[str, Any]],
        judged: Mapping[str, Any] | None,
        quarantined: Mapping[str, Any],
    ) -> list[ThresholdAlert]:
        """Return the numbers beyond their thresholds."""
        found = [
            (row, exceeded_distances(row, self._thresholds))
            for row in drift_rows
            if row["dbx_aml_status"] == "drift"
        ]
        if judged is not None and _has_enough_labels(judged):
            found.append((judged, exceeded_quality(quality_numbers(judged), self._thresholds)))
        limit = self._thresholds.get(QUARANTINED)
        percent = quarantined.get("dbx_aml_percent_quarantined")
        if limit is not None and percent is not None and percent > limit:
            found.append((quarantined, {QUARANTINED: (percent, limit)}))
        return [
            ThresholdAlert(
                window_start=self._start_time(row),
                column_name=row["column_name"],
                threshold=name,
                value=value,
                limit=limit,
            )
            for row, exceeded in found
            for name, (value, limit) in exceeded.items()
        ]

    def _newest_drift(self, start: int) -> list[dict[str, Any]]:
        """Return the drift of a window against the baseline, with all columns of the table."""
        if not any(row["dbx_aml_window"] == start for row in self._new_drift):
            rows = self._drift_table.read(
                f"{self._is_granularity} AND dbx_aml_window = {start} AND {_IS_DRIFT}"
            )
            return [{**row, "window": self._period(start)} for row in rows]
        return [
            self._drift_table.complete(row)
            for row in self._new_drift
            if row["dbx_aml_window"] == start
            and row["column_name"] != TABLE_ROW
            and row["drift_type"] == "BASELINE"
            and row["slice_key"] is None
        ]

    def log_to_mlflow(self, result: MonitoringResult, page: Path | None) -> MonitoringResult:
        """Log new numbers as metrics, where the ledger knows the run of the model."""
        model_run_id = self._windows.model_run_id
        if model_run_id is None or not self._new_profiles:
            return result
        self._progress("Logging to MLflow")
        run_id = log_monitoring_run(
            model_run_id, self._table.name, self._new_drift, self._new_profiles, page
        )
        return replace(result, run_id=run_id)

    def write_page(self, path: Path, result: MonitoringResult) -> None:
        """Write the page of a result, from the tables."""
        self._progress("Writing the page")
        profiles = self._profile_table.read(
            f"{self._is_granularity} AND dbx_aml_window = {self._all_windows[-1].start} "
            "AND slice_key IS NULL AND column_name NOT LIKE ':%'"
            if self._all_windows
            else "false"
        )
        rows = self._drift_table.read(f"{self._is_granularity} AND {_IS_DRIFT}")
        history = [self._table_rows[key] for key in sorted(self._table_rows)]
        html = render_page(
            result,
            self._baselines,
            profiles,
            # Python shows times of a table in the zone of its process.
            [{**row, "window": self._period(row["dbx_aml_window"])} for row in rows],
            [{**row, "window": self._period(row["dbx_aml_window"])} for row in history],
            self._thresholds,
        )
        path.write_text(html, encoding="utf-8")


def _log_step(step: str, done: int = 0, total: int = 0, detail: str = "") -> None:
    log.info("%s", step)


def windows_to_compare(
    starts: Sequence[int], changed: set[int], gone: set[int]
) -> dict[int, int | None]:
    """Return the windows whose drift is computed, each with the window before it.

    These are the changed windows, and the window after each window that changed or went away.

    Args:
        starts: Starts of all windows, oldest first.
        changed: Starts of the windows that are new or changed.
        gone: Starts of windows that have no more rows.
    """
    compared: dict[int, int | None] = {}
    previous, is_after_change = None, False
    for start in sorted({*starts, *gone}):
        if start in gone:
            is_after_change = True
            continue
        if start in changed or is_after_change:
            compared[start] = previous
        previous, is_after_change = start, start in changed
    return compared


def _numbers(starts: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(starts)))


def _is_column_row(row: Mapping[str, Any]) -> bool:
    return not row["column_name"].startswith(":")


def _is_table_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row is about a whole window: all columns, quarantine, or challenger."""
    return not _is_column_row(row) and row["slice_key"] is None


def _has_enough_labels(row: Mapping[str, Any]) -> bool:
    return bool((row["dbx_aml_labeled_rows"] or 0) >= drift.MIN_ROWS)


def _table_row(profile: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns of a row about all columns."""
    return {
        "column_name": TABLE_ROW,
        "count": max((numbers["count"] for numbers in profile.values()), default=0),
        "non_null_columns": [
            name
            for name, numbers in profile.items()
            if numbers["count"] > numbers.get("num_nulls", 0)
        ],
    }
