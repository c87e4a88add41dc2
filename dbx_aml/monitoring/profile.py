"""Numbers of each column in each window, from one Spark aggregate for all columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from dbx_aml.monitoring.bins import Bins, MonitoredColumn

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PERCENTILE_ACCURACY = 1_000
_WINDOW = "__window"


def profile_windows(
    rows: DataFrame,
    columns: Sequence[MonitoredColumn],
    bins: Mapping[str, Bins],
    window: Column | None = None,
) -> dict[int | None, dict[str, dict[str, Any]]]:
    """Return the numbers of each column, by window and by name of the column.

    The numbers have the names of columns of the profile table, for example "count" and "avg".

    Args:
        rows: Rows of all windows.
        columns: Columns.
        bins: Bins of each column.
        window: Start of a row's window, a bigint; None where all rows are one window.
    """
    key = F.lit(None).cast("bigint") if window is None else window
    # The values are computed once a row, not once for each of their aggregates.
    values = rows.select(
        key.alias(_WINDOW),
        *[column.value.alias(f"v{number}") for number, column in enumerate(columns)],
        *[column.finite_value.alias(f"f{number}") for number, column in enumerate(columns)],
    )
    aggregates = [F.count(F.lit(1)).alias("rows")]
    for number, column in enumerate(columns):
        parts = _column_aggregates(number, column, bins[column.name])
        aggregates += [part.alias(f"{name}_{number}") for name, part in parts.items()]
    grouped = values.groupBy(*([] if window is None else [_WINDOW]))
    profiles: dict[int | None, dict[str, dict[str, Any]]] = {}
    for row in grouped.agg(*aggregates).collect():
        numbers = row.asDict()
        start = numbers.get(_WINDOW)
        profiles[start] = {
            column.name: _column_numbers(numbers, number, column)
            for number, column in enumerate(columns)
        }
    return profiles


def _column_aggregates(number: int, column: MonitoredColumn, bins: Bins) -> dict[str, Column]:
    value, finite = F.col(f"v{number}"), F.col(f"f{number}")
    parts = {
        "nulls": F.count_if(value.isNull()),
        "distinct": F.approx_count_distinct(value),
    }
    if column.kind == "text":
        counts = [F.count_if(value == F.lit(text)) for text in bins.values]
        length = F.length(value)
        sizes = {"min_len": F.min(length), "max_len": F.max(length), "avg_len": F.avg(length)}
        return {**parts, **sizes, "counts": F.array(*counts, F.count(value))}
    return {
        **parts,
        "nan": F.count_if(F.isnan(value)),
        "finite": F.count(finite),
        "zeros": F.count_if(finite == 0),
        "sum": F.sum(finite),
        "avg": F.avg(finite),
        "stddev": F.stddev(finite),
        "min": F.min(finite),
        "max": F.max(finite),
        "quantiles": F.percentile_approx(finite, list(QUANTILES), _PERCENTILE_ACCURACY),
        "counts": F.array(*_below_and_above(finite, bins, F.count)),
        "sums": F.array(*_below_and_above(finite, bins, F.sum)),
    }


def _below_and_above(
    value: Column, bins: Bins, aggregate: Callable[[Column], Column]
) -> Iterable[Column]:
    """Yield an aggregate of the values below the first edge, then of those above each edge."""
    if bins.edges:
        yield aggregate(F.when(value < bins.edges[0], value))
    for edge in bins.edges:
        yield aggregate(F.when(value > edge, value))


def _column_numbers(
    numbers: Mapping[str, Any], number: int, column: MonitoredColumn
) -> dict[str, Any]:
    """Return the numbers of one column from the row of all aggregates."""

    def read(name: str) -> Any:
        return numbers.get(f"{name}_{number}")

    rows = numbers["rows"]
    shared = {
        "data_type": column.data_type,
        "count": rows,
        "num_nulls": read("nulls"),
        "percent_null": _percent(read("nulls"), rows),
        "distinct_count": read("distinct"),
        "percent_distinct": _percent(read("distinct"), rows),
    }
    if column.kind == "text":
        *counts, values = read("counts")
        return {
            **shared,
            **{name: read(name) for name in ("min_len", "max_len", "avg_len")},
            "dbx_aml_bin_counts": [*counts, values - sum(counts), read("nulls")],
            "dbx_aml_percent_out_of_range": _percent(values - sum(counts), values),
        }
    finite, counts = read("finite"), read("counts")
    bin_counts = _differences(finite, counts)
    out_of_range = bin_counts[0] + bin_counts[-1] if bin_counts else 0
    quantiles = read("quantiles")
    return {
        **shared,
        **{name: read(name) for name in ("avg", "stddev", "min", "max")},
        "quantiles": quantiles,
        "median": quantiles[QUANTILES.index(0.5)] if quantiles else None,
        "num_nan": read("nan"),
        "percent_nan": _percent(read("nan"), rows),
        "num_zeros": read("zeros"),
        "percent_zeros": _percent(read("zeros"), rows),
        "dbx_aml_num_infinite": rows - read("nulls") - read("nan") - finite,
        "dbx_aml_percent_out_of_range": _percent(out_of_range, finite),
        "dbx_aml_bin_counts": bin_counts,
        "dbx_aml_bin_sums": _differences(read("sum") or 0.0, [x or 0.0 for x in read("sums")]),
    }


def _differences(total: Any, below_and_above: Sequence[Any]) -> list[Any]:
    """Return the numbers of each bin from the number below the first edge and above each edge."""
    if not below_and_above:
        return []
    below, *above = below_and_above
    starts = [total - below, *(above[1:-1] if len(above) > 1 else [])]
    ends = above[1:] if len(above) > 1 else above
    inner = [start - end for start, end in zip(starts, ends, strict=True)]
    return [below, *inner, above[-1]]


def _percent(count: int, rows: int) -> float | None:
    return 100.0 * count / rows if rows else None
