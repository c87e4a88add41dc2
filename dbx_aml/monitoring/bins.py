"""The columns that are monitored, and the bins of each column.

A number, a date or a time has at most 20 bins between the smallest and the largest value of the
baseline, one bin below them and one bin above them. A text or a boolean has a bin for each of the
50 most frequent values of the baseline, one for all other values and one for null.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pyspark.sql import functions as F

from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring.delta_table import column_types

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

ColumnKind = Literal["number", "text"]

_BIN_COUNT = 20
_VALUE_COUNT = 50
_PERCENTILE_ACCURACY = 10_000
_NUMBERS = re.compile(r"tinyint|smallint|int|bigint|float|double|decimal\(.*\)")
_TEXTS = re.compile(r"string|boolean|char\(.*\)|varchar\(.*\)")
# SQL of a date or time as a number: days or seconds since 1970.
_TIMES = {
    "date": "unix_date({})",
    "timestamp": "unix_micros({}) / 1e6",
    # The number does not depend on the time zone of the session.
    "timestamp_ntz": "unix_micros(from_utc_timestamp({0}, current_timezone())) / 1e6",
}


@dataclass(frozen=True)
class MonitoredColumn:
    """A column of numbers, dates, times, texts or booleans.

    Args:
        name: Name of the column.
        data_type: Type in Spark, for example "bigint".
    """

    name: str
    data_type: str

    @property
    def kind(self) -> ColumnKind:
        """Whether its values are compared as numbers or as texts."""
        return "text" if _TEXTS.fullmatch(self.data_type) else "number"

    @property
    def unit(self) -> str:
        """Unit of its values. Columns of two units cannot be compared."""
        if self.kind == "text" or self.data_type not in _TIMES:
            return self.kind
        return "day" if self.data_type == "date" else "second"

    @property
    def value(self) -> Column:
        """The value as a double or as a string."""
        name = sql_identifier(self.name)
        if self.kind == "text":
            return F.expr(f"CAST({name} AS STRING)")
        return F.expr(f"CAST({_TIMES.get(self.data_type, '{}').format(name)} AS DOUBLE)")

    @property
    def finite_value(self) -> Column:
        """The value, with null for NaN and for an infinite number."""
        if self.data_type not in ("float", "double"):
            return self.value
        return F.when(F.abs(self.value) < F.lit(float("inf")), self.value)


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Bins of a column.

    Args:
        edges: Edges of a number's bins from the smallest to the largest value; a bin has its right
            edge, the first bin has both.
        values: Values of a text.
    """

    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """Names of the bins, in the order of the counts."""
        if not self.edges:
            return [*self.values, "(other)", "(null)"]
        numbers = [f"{edge:.6g}" for edge in self.edges]
        inner = [
            f"{low} to {high}"
            for low, high in zip(numbers[:-1] or numbers, numbers[1:] or numbers, strict=True)
        ]
        return [f"below {numbers[0]}", *inner, f"above {numbers[-1]}"]


def find_columns(rows: DataFrame) -> list[MonitoredColumn]:
    """Return the columns of a table that can be monitored; not arrays, maps or structs."""
    columns = [MonitoredColumn(*column) for column in column_types(rows).items()]
    return [
        column
        for column in columns
        if _NUMBERS.fullmatch(column.data_type)
        or _TEXTS.fullmatch(column.data_type)
        or column.data_type in _TIMES
    ]


def compute_bins(rows: DataFrame, columns: Sequence[MonitoredColumn]) -> dict[str, Bins]:
    """Return the bins of each column, from the rows of the baseline.

    A column without a value has no edges or no values.
    """
    numbers = [column for column in columns if column.kind == "number"]
    texts = [column for column in columns if column.kind == "text"]
    return {**_number_bins(rows, numbers), **_text_bins(rows, texts)}


def _number_bins(rows: DataFrame, columns: Sequence[MonitoredColumn]) -> dict[str, Bins]:
    if not columns:
        return {}
    shares = [number / _BIN_COUNT for number in range(_BIN_COUNT + 1)]
    row = rows.agg(
        *[
            F.struct(
                F.min(column.finite_value),
                F.percentile_approx(column.finite_value, shares[1:-1], _PERCENTILE_ACCURACY),
                F.max(column.finite_value),
            )
            for column in columns
        ]
    ).collect()[0]
    return {
        column.name: Bins(
            edges=() if low is None else tuple(sorted({low, *quantiles, high})),
        )
        for column, (low, quantiles, high) in zip(columns, row, strict=True)
    }


def _text_bins(rows: DataFrame, columns: Sequence[MonitoredColumn]) -> dict[str, Bins]:
    """Return the most frequent values of all columns, from one Spark job."""
    if not columns:
        return {}
    names = {str(number): column.name for number, column in enumerate(columns)}
    values = F.map_from_arrays(
        F.array(*map(F.lit, names)), F.array(*[column.value for column in columns])
    )
    counts = (
        rows.select(F.explode(values).alias("number", "value"))
        .where("value IS NOT NULL")
        .groupBy("number", "value")
        .count()
    )
    # Values with equal counts are sorted, so that each run has the same bins.
    frequent = counts.selectExpr(
        "*", "row_number() OVER (PARTITION BY number ORDER BY count DESC, value) AS position"
    ).where(f"position <= {_VALUE_COUNT}")
    found: dict[str, list[tuple[int, str]]] = {name: [] for name in names.values()}
    for row in frequent.collect():
        found[names[row.number]].append((row.position, row.value))
    return {name: Bins(values=_second(sorted(items))) for name, items in found.items()}


def _second(items: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(value for _, value in items)
