"""Share and reasons of the rows that scoring put into the quarantine, by window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any

from dbx_aml.scoring.column_binding import QUARANTINE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from dbx_aml.monitoring.windows import TableWindows, Window
    from dbx_aml.scoring.delta_table import Table

# Value of `column_name` of a window's row.
QUARANTINE_ROW = ":quarantine"
_REASONS = 20


def read_quarantine(
    spark: SparkSession, tables: Iterable[Table], windows: TableWindows, first_batch: int
) -> DataFrame | None:
    """Return the quarantined rows of a scored table; None without a quarantine.

    Args:
        spark: Session.
        tables: Quarantine tables; one that does not exist has no rows.
        windows: Windows of the scored table.
        first_batch: First batch of the scored table: a table that had its name before may have
            left older rows.

    Shape:
        A row for each quarantined row: start of its window bigint, reason string.
    """
    start = windows.key_of(f"`{QUARANTINE}`.`batch`").alias("start")
    frames = [
        rows.where(f"{QUARANTINE}.batch >= {first_batch}").select(start, f"{QUARANTINE}.reason")
        for table in tables
        if (rows := table.read_if_exists(spark)) is not None
        and QUARANTINE in rows.columns
        and windows.has_time(rows)
    ]
    return reduce(lambda first, second: first.unionAll(second), frames) if frames else None


def quarantine_rows(
    rows: DataFrame | None, selected: list[Window], counts: Mapping[int, int]
) -> dict[int, dict[str, Any]]:
    """Return the row of the profile table about the quarantine, by start of the window.

    Args:
        rows: Rows of `read_quarantine`.
        selected: Windows to return.
        counts: Scored rows of each window.
    """
    found = {start: _row(count, []) for start, count in counts.items()}
    if rows is None or all(window.rows_quarantined == 0 for window in selected):
        return found
    for start, reasons in _reasons(rows, selected).items():
        found[start] = _row(counts.get(start, 0), reasons)
    return found


def _reasons(rows: DataFrame, selected: list[Window]) -> dict[int, list[tuple[str, int, int]]]:
    """Return reason, rows and rows of all reasons, the most frequent first, by window."""
    starts = ", ".join(str(window.start) for window in selected)
    counts = (
        rows.where(f"start IN ({starts})")
        .groupBy("start", "reason")
        .count()
        .selectExpr(
            "*",
            "sum(count) OVER (PARTITION BY start) AS total",
            "row_number() OVER (PARTITION BY start ORDER BY count DESC, reason) AS position",
        )
        .where(f"position <= {_REASONS}")
    )
    found: dict[int, list[tuple[str, int, int]]] = {}
    for row in sorted(counts.collect(), key=lambda row: row.position):
        found.setdefault(row.start, []).append((row.reason, row["count"], row.total))
    return found


def _row(scored: int, reasons: list[tuple[str, int, int]]) -> dict[str, Any]:
    total = reasons[0][2] if reasons else 0
    return {
        "column_name": QUARANTINE_ROW,
        "count": total,
        "frequent_items": [{"item": reason, "count": count} for reason, count, _ in reasons],
        "dbx_aml_percent_quarantined": 100.0 * total / (scored + total) if scored + total else None,
    }
