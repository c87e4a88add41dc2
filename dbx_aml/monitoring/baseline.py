"""The baseline: the bins of each column and the numbers of the rows that all windows are compared
with. They are computed once and kept in the table `<output>_monitor_baseline`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbx_aml.monitoring.bins import Bins, MonitoredColumn, compute_bins
from dbx_aml.monitoring.metric_tables import MetricTable
from dbx_aml.monitoring.profile import ProfileKey, profile_windows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True, kw_only=True)
class ColumnBaseline:
    """Baseline of a column.

    Args:
        column: Column.
        source: Table and version of the rows, for example "flights_train at version 3".
        bins: Bins of the column.
        profile: Numbers of the rows, with the names of the profile table.
    """

    column: MonitoredColumn
    source: str
    bins: Bins
    profile: Mapping[str, Any]


def compute_baseline(
    rows: DataFrame, columns: list[MonitoredColumn], source: str
) -> dict[str, ColumnBaseline]:
    """Return the baseline of each column.

    Args:
        rows: Rows of the baseline.
        columns: Columns, which the rows have with the same kind.
        source: Table and version of the rows.
    """
    if not columns:
        return {}
    bins = compute_bins(rows, columns)
    profiles = profile_windows(rows, columns, bins).get(ProfileKey(None, None), {})
    return {
        column.name: ColumnBaseline(
            column=column,
            source=source,
            bins=bins[column.name],
            profile=profiles.get(column.name, {"count": 0}),
        )
        for column in columns
    }


def read_baseline(table: MetricTable) -> dict[str, ColumnBaseline]:
    """Return the baselines that a table keeps, by name of the column."""
    return {
        row["column_name"]: ColumnBaseline(
            column=MonitoredColumn(row["column_name"], row["data_type"]),
            source=row["source"],
            bins=Bins(edges=tuple(row["edges"]), values=tuple(row["values"])),
            profile=json.loads(row["profile"]),
        )
        for row in table.read()
    }


def write_baseline(table: MetricTable, baselines: Iterable[ColumnBaseline]) -> None:
    """Keep baselines in the place of those that the table has."""
    rows = [
        {
            "column_name": baseline.column.name,
            "data_type": baseline.column.data_type,
            "source": baseline.source,
            "edges": list(baseline.bins.edges),
            "values": list(baseline.bins.values),
            "profile": json.dumps(baseline.profile),
        }
        for baseline in baselines
    ]
    table.write(rows, replaced="true")
