"""The windows of a source, and which of them changed since the last run.

A window is a batch of the ledger, or the hours, days, weeks or months of a column of times. The
module `collected_windows` has the windows of the files of a data collector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pyspark.errors import AnalysisException
from pyspark.sql import functions as F

from dbx_aml._common.errors import ArgumentError, TableNotFoundError
from dbx_aml._common.text import sql_identifier
from dbx_aml.monitoring.quarantine import quarantine_rows, read_quarantine
from dbx_aml.monitoring.result import WINDOW_KINDS, WindowKind
from dbx_aml.scoring.delta_table import Table, column_types
from dbx_aml.scoring.ledger import Ledger, LedgerEntry
from dbx_aml.scoring.table_identity import identify_table, removes_no_row

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_BATCH = "`_scoring`.`batch`"
_LENGTHS = {
    "batch": timedelta(),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_OFFSET = re.compile(r"(?:UTC|GMT|UT)?([+-])(\d\d?)(?::?(\d\d?))?(?::?(\d\d))?")
# The years 2 to 9998: Python cannot show the end of others, and "without an end" is no time.
_HAS_TIME = "start BETWEEN -62104060800000000 AND 253370764799999999"
_APPENDS = ("WRITE", "STREAMING UPDATE")


@dataclass(frozen=True, kw_only=True)
class Window:
    """Rows of a source that are compared with the baseline.

    Args:
        start: Number of the batch, or start of the period: microseconds since 1970.
        state: Rows and version of the window. The window is computed again where this differs.
        rows_quarantined: Rows of the batch in the quarantine; None where the ledger does not know.
        is_empty: Whether every row of the batch is in the quarantine.
    """

    start: int
    state: str
    rows_quarantined: int | None = None
    is_empty: bool = False


class Windows:
    """Windows of rows by time.

    Args:
        spark: Session.
        rows: Rows of all windows.
        kind: Kind of the windows.

    Raises:
        ArgumentError: There is no such kind.
    """

    def __init__(self, spark: SparkSession, rows: DataFrame, kind: WindowKind) -> None:
        if kind not in WINDOW_KINDS:
            raise ArgumentError(f"by must be one of {', '.join(WINDOW_KINDS)}: got {kind!r}")
        self._spark = spark
        self.rows = rows
        self.kind = kind
        self.model_run_id: str | None = None
        # Columns whose drift says nothing: the time has another range in each window.
        self.columns_left_out: set[str] = set()

    @property
    def key(self) -> Column:
        """Start of the window of a row."""
        raise NotImplementedError

    def read(self) -> list[Window]:
        """Return all windows, oldest first; find the model's run."""
        raise NotImplementedError

    def quarantine_rows(
        self, windows: list[Window], counts: Mapping[int, int]
    ) -> dict[int, dict[str, Any]]:
        """Return the row of the profile table about the quarantine, by start of the window.

        Args:
            windows: Windows to return.
            counts: Scored rows of each window.
        """
        return {}

    def select(self, windows: list[Window]) -> DataFrame:
        """Return the rows of some windows."""
        starts = sorted(window.start for window in windows)
        # Delta skips the files of other batches.
        return self.rows.where(self.key.isin(starts))

    def start_of(self, time: str) -> Column:
        """Return the start of the period of a time.

        Args:
            time: SQL of the time.
        """
        return F.expr(f"unix_micros(date_trunc('{self.kind}', CAST({time} AS TIMESTAMP)))")

    def period(self, start: int) -> tuple[datetime, datetime]:
        """Return start and end of a window; a batch has its start for both."""
        begin = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=start)
        begin = begin.astimezone(self._zone)
        if self.kind == "month":
            return begin, (begin.replace(day=1) + timedelta(days=32)).replace(day=1)
        if self.kind == "hour":
            return begin, (begin.astimezone(UTC) + timedelta(hours=1)).astimezone(self._zone)
        # The sum is a time on the wall: a day may have 23 or 25 hours.
        return begin, begin + _LENGTHS[self.kind]

    @cached_property
    def _zone(self) -> tzinfo:
        """Time zone of the session, which may be an offset such as "+05:30" or "-08"."""
        name = self._spark.conf.get("spark.sql.session.timeZone") or "UTC"
        try:
            return UTC if name == "Z" else ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            offset = _OFFSET.fullmatch(name)
        if offset is None:
            raise ArgumentError(
                f"time zone of the session must be a region or an offset: got {name!r}; set "
                "spark.sql.session.timeZone for example to 'America/Los_Angeles'"
            )
        sign, *parts = offset.groups("0")
        hours, minutes, seconds = map(int, parts)
        length = timedelta(hours=hours, minutes=minutes, seconds=seconds)
        return timezone(-length if sign == "-" else length)


class TableWindows(Windows):
    """The windows of a table.

    Args:
        spark: Session.
        table: Table.
        kind: Kind of the windows.
        time_column: Column of times; None for the time of the batch.

    Raises:
        ArgumentError: The table has no batches, or no such column of times.
        TableNotFoundError: The table does not exist.
    """

    def __init__(
        self, spark: SparkSession, table: Table, kind: WindowKind, time_column: str | None
    ) -> None:
        identity = identify_table(spark, table)
        if identity is None:
            raise TableNotFoundError(
                f"output_table must exist and be readable: got {table.name!r}; name the "
                "output_table of a scoring job"
            )
        super().__init__(spark, table.read(spark), kind)
        self._table = table
        self._table_id = identity.id
        self._time_column = time_column
        self.columns_left_out = {time_column} if time_column else set()
        types = column_types(self.rows)
        self._has_batches = "batch:bigint" in types.get("_scoring", "")
        self._quarantine_tables = [table.sibling("quarantine").name]
        self._first_batch = 0
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
        if self._time_column is None:
            return self.start_of(f"timestamp_micros({batch})")
        return self.start_of(sql_identifier(self._time_column))

    def read(self) -> list[Window]:
        """Return the windows of the table, oldest first; find the model's run."""
        rewritten = read_history(self._spark, self._table).rewritten_version
        ledger = Ledger(self._spark, self._table, self._table_id)
        entries = ledger.read() if self._has_batches else []
        if entries:
            self.model_run_id = entries[0].facts.model_run_id
            self._first_batch = entries[-1].facts.batch
            self._quarantine_tables = sorted({e.facts.quarantine_table for e in entries} - {""})
            if self.kind == "batch":
                removed = self._removed_batches(entries, rewritten)
                return sorted(
                    (
                        Window(
                            start=entry.facts.batch,
                            state=f"{entry.rows_scored} rows, {entry.rows_quarantined} "
                            "quarantined, version "
                            f"{max(entry.output_version or 0, rewritten)}",
                            rows_quarantined=entry.rows_quarantined,
                            is_empty=not entry.rows_scored,
                        )
                        for entry in entries
                        if entry.rows_read and entry.facts.batch not in removed
                    ),
                    key=lambda window: window.start,
                )
        newest = F.max(F.expr(_BATCH)) if "_scoring" in self.rows.columns else F.lit(0)
        counts = self.rows.groupBy(self.key.alias("start")).agg(
            F.count(F.lit(1)).alias("rows"), newest.alias("newest")
        )
        found = {row.start: row for row in counts.where(_HAS_TIME).collect()}
        quarantined = self._count_quarantined()
        # A wrong time in the quarantine makes no window: it may be the newest of all.
        starts = {*found, *(quarantined if self._time_column is None else ())}
        source = f"version {rewritten} of {self._table_id}, {self._time_column or 'batch'}"
        return [
            Window(
                start=start,
                state=(
                    f"{found[start].rows if start in found else 0} rows, "
                    f"{quarantined.get(start, 0)} quarantined, "
                    f"{found[start].newest if start in found else None}, {source}"
                ),
                rows_quarantined=quarantined.get(start, 0),
                is_empty=start not in found,
            )
            for start in sorted(starts)
        ]

    def _removed_batches(self, entries: Sequence[LedgerEntry], rewritten: int) -> set[int]:
        """Return the batches whose rows other commits have taken out of the table."""
        older = {
            entry.facts.batch
            for entry in entries
            if entry.rows_scored and (entry.output_version or 0) < rewritten
        }
        if not older:
            return older
        rows = self.rows.select(self.key.alias("batch")).where("batch IS NOT NULL").distinct()
        return older - {row.batch for row in rows.collect()}

    def _count_quarantined(self) -> dict[int, int]:
        """Return the number of quarantined rows by start of the window."""
        rows = self._read_quarantine()
        if rows is None:
            return {}
        counts = rows.where(_HAS_TIME).groupBy("start").count().collect()
        return {row["start"]: row["count"] for row in counts}

    def _read_quarantine(self) -> DataFrame | None:
        tables = [Table(name) for name in self._quarantine_tables]
        return read_quarantine(self._spark, tables, self, self._first_batch)

    def quarantine_rows(
        self, windows: list[Window], counts: Mapping[int, int]
    ) -> dict[int, dict[str, Any]]:
        """Return the row of the profile table about the quarantine, by start of the window."""
        return quarantine_rows(self._read_quarantine(), windows, counts)


class TableHistory(NamedTuple):
    """Versions of a table.

    Args:
        version: Newest version; None for a view or a table without versions.
        rewritten_version: Newest version that changed or removed older rows; 0 without such a
            version.
    """

    version: int | None
    rewritten_version: int


def read_history(spark: SparkSession, table: Table) -> TableHistory:
    """Return the versions of a table, from one look at its history."""
    try:
        commits = (
            spark.sql(f"DESCRIBE HISTORY {table.name}")
            .select("version", "operation", "operationParameters")
            .collect()
        )
    except AnalysisException:
        return TableHistory(None, 0)
    return TableHistory(
        max(int(c.version) for c in commits),
        max((int(c.version) for c in commits if _changes_older_rows(c)), default=0),
    )


def _changes_older_rows(commit: Any) -> bool:
    operation = commit.operation or ""
    if operation in _APPENDS:
        return bool((commit.operationParameters or {}).get("mode", "Append") != "Append")
    return operation == "UPDATE" or not removes_no_row(operation)
