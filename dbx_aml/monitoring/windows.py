"""The windows of a table, and which of them changed since the last run.

A window is a batch of the ledger, or the hours, days, weeks or months of a column of times.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pyspark.sql import functions as F

from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.text import sql_identifier
from dbx_aml.monitoring.result import WINDOW_KINDS, WindowKind
from dbx_aml.scoring.delta_table import Table, column_types
from dbx_aml.scoring.ledger import Ledger, LedgerEntry
from dbx_aml.scoring.table_identity import removes_no_row

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_BATCH = "`_scoring`.`batch`"
_LENGTHS = {
    "batch": timedelta(),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_APPENDS = ("WRITE", "STREAMING UPDATE")


@dataclass(frozen=True, kw_only=True)
class Window:
    """Rows of a table that are compared with the baseline.

    Args:
        start: Number of the batch, or start of the period: microseconds since 1970.
        state: Rows and version of the window. The window is computed again where this differs.
    """

    start: int
    state: str


class TableWindows:
    """The windows of a table.

    Args:
        spark: Session.
        table: Table.
        rows: Rows of the table.
        kind: Kind of the windows.
        time_column: Column of times; None for the time of the batch.

    Raises:
        ArgumentError: The table has no batches, or no such column of times.
    """

    def __init__(
        self,
        spark: SparkSession,
        table: Table,
        rows: DataFrame,
        kind: WindowKind,
        time_column: str | None,
    ) -> None:
        self._spark = spark
        self._table = table
        self._rows = rows
        self.kind = kind
        self._time_column = time_column
        self.model_run_id: str | None = None
        self._has_batches = "batch:bigint" in column_types(rows).get("_scoring", "")
        self.quarantine_tables = [table.sibling("quarantine").name]
        types = column_types(rows)
        if kind not in WINDOW_KINDS:
            raise ArgumentError(f"by must be one of {', '.join(WINDOW_KINDS)}: got {kind!r}")
        if time_column is None and not self._has_batches:
            raise ArgumentError(
                f"output_table must have the column _scoring of a scoring job: got {table.name!r} "
                "without it; give by='day' and time_column, a column of dates or times"
            )
        if time_column is not None and kind == "batch":
            raise ArgumentError(
                f"time_column must go with hours, days, weeks or months: got {time_column!r} and "
                "by='batch'; use for example by='day'"
            )
        if time_column is not None and not types.get(time_column, "").startswith(
            ("date", "timestamp")
        ):
            raise ArgumentError(
                f"time_column must be a column of dates or times: got {time_column!r} of type "
                f"{types.get(time_column, 'none')}; the table has {', '.join(types)}"
            )

    @property
    def key(self) -> Column:
        """Start of the window of a row."""
        return self.key_of(_BATCH)

    def has_time(self, rows: DataFrame) -> bool:
        """Return whether rows of another table have the column of times, where one is used."""
        return self._time_column is None or self._time_column in rows.columns

    def key_of(self, batch: str) -> Column:
        """Return the start of the window of a row in another table.

        Args:
            batch: SQL of the row's batch.
        """
        if self.kind == "batch":
            return F.expr(batch)
        time = (
            f"timestamp_micros({batch})"
            if self._time_column is None
            else sql_identifier(self._time_column)
        )
        return F.expr(f"unix_micros(date_trunc('{self.kind}', CAST({time} AS TIMESTAMP)))")

    def select(self, windows: list[Window]) -> DataFrame:
        """Return the rows of some windows."""
        starts = sorted(window.start for window in windows)
        # Delta skips the files of other batches.
        return self._rows.where(self.key.isin(starts))

    def period(self, start: int) -> tuple[datetime, datetime]:
        """Return start and end of a window; a batch has its start for both."""
        zone = ZoneInfo(self._spark.conf.get("spark.sql.session.timeZone") or "UTC")
        begin = (datetime.fromtimestamp(0, UTC) + timedelta(microseconds=start)).astimezone(zone)
        if self.kind == "month":
            return begin, (begin.replace(day=1) + timedelta(days=32)).replace(day=1)
        # The sum is a time on the wall: a day may have 23 or 25 hours.
        return begin, begin + _LENGTHS[self.kind]

    def read(self, output_id: str | None) -> list[Window]:
        """Return the windows of the table, oldest first; find the model's run and the quarantine.

        Args:
            output_id: Id of the table.
        """
        rewritten = rewritten_version(self._spark, self._table)
        entries: list[LedgerEntry] = []
        if self._has_batches:
            entries = Ledger(self._spark, self._table, output_id).read()
        if entries:
            self.model_run_id = entries[0].facts.model_run_id
            self.quarantine_tables = sorted({e.facts.quarantine_table for e in entries} - {""})
            if self.kind == "batch":
                return sorted(
                    (
                        Window(
                            start=entry.facts.batch,
                            state=f"{entry.rows_scored} rows, {entry.rows_quarantined} "
                            "quarantined, version "
                            f"{max(entry.output_version or 0, rewritten)}",
                        )
                        for entry in entries
                        if entry.rows_scored
                    ),
                    key=lambda window: window.start,
                )
        newest = F.max(F.expr(_BATCH)) if "_scoring" in self._rows.columns else F.lit(0)
        counts = self._rows.groupBy(self.key.alias("start")).agg(
            F.count(F.lit(1)).alias("rows"), newest.alias("newest")
        )
        return [
            Window(start=row.start, state=f"{row.rows} rows, {row.newest}, version {rewritten}")
            for row in counts.where("start IS NOT NULL").orderBy("start").collect()
        ]


def rewritten_version(spark: SparkSession, table: Table) -> int:
    """Return the newest version that changed or removed older rows; 0 without such a version."""
    if table.version(spark) is None:
        return 0
    commits = (
        spark.sql(f"DESCRIBE HISTORY {table.name}")
        .select("version", "operation", "operationParameters")
        .collect()
    )
    return max((int(c.version) for c in commits if _changes_older_rows(c)), default=0)


def _changes_older_rows(commit: Any) -> bool:
    operation = commit.operation or ""
    if operation in _APPENDS:
        return bool((commit.operationParameters or {}).get("mode", "Append") != "Append")
    return operation == "UPDATE" or not removes_no_row(operation)
