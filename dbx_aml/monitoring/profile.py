"""Numbers of each column in each window, from one Spark job for all columns and windows.

The workers compute them with numpy (`column_numbers`), the driver adds them up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pyspark import cloudpickle
from pyspark.sql import functions as F

from dbx_aml.monitoring import column_numbers
from dbx_aml.monitoring.bins import Bins, MonitoredColumn
from dbx_aml.monitoring.column_numbers import ColumnBins, GroupedNumbers, profile_partition

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class ProfileKey(NamedTuple):
    """Rows that a profile describes.

    Args:
        window: Start of the window; None where all rows are one window.
        slice_value: Value of the slice; None for all rows of the window.
    """

    window: int | None
    slice_value: str | None


def profile_windows(
    rows: DataFrame,
    columns: Sequence[MonitoredColumn],
    bins: Mapping[str, Bins],
    window: Column | None = None,
    slice_by: Column | None = None,
) -> dict[ProfileKey, dict[str, dict[str, Any]]]:
    """Return the numbers of each column, by window and slice and by name of the column.

    The numbers have the names of columns of the profile table, for example "count" and "avg".

    Args:
        rows: Rows of all windows.
        columns: Columns.
        bins: Bins of each column.
        window: Start of a row's window, a bigint; None where all rows are one window.
        slice_by: Value of a row's slice; None without slices.
    """
    values = rows.select(
        (F.lit(None) if window is None else window).cast("bigint").alias("window"),
        (F.lit(None) if slice_by is None else slice_by).cast("string").alias("slice"),
        *[
            part.alias(f"c{number}_{position}")
            for number, column in enumerate(columns)
            for position, part in enumerate(_worker_columns(column))
        ],
    )
    worker_bins = [_worker_bins(column, bins[column.name]) for column in columns]
    # Spark sends the module with the job: the workers may not have this package.
    cloudpickle.register_pickle_by_value(column_numbers)
    parts = values.mapInArrow(
        lambda batches: profile_partition(batches, worker_bins), column_numbers.RESULT_COLUMNS
    ).collect()
    keys: dict[ProfileKey, int] = {}
    totals = [GroupedNumbers(bin_count=part.count) for part in worker_bins]
    for row in parts:
        # A row without a value of the slice counts for the window alone.
        for key in {ProfileKey(row.window, None), ProfileKey(row.window, row.slice)}:
            _add_part(totals[row.number], keys.setdefault(key, len(keys)), row)
    for total in totals:
        total.grow(len(keys))
        total.keep_smallest()
    return {
        key: {
            column.name: _column_numbers(total, group, column, bins[column.name])
            for column, total in zip(columns, totals, strict=True)
        }
        for key, group in keys.items()
    }


def _worker_columns(column: MonitoredColumn) -> list[Column]:
    """Return the columns that the workers get: of a text its hash, too."""
    if column.kind == "text":
        return [column.value, F.xxhash64(column.value)]
    return [column.value]


def _worker_bins(column: MonitoredColumn, bins: Bins) -> ColumnBins:
    if column.kind == "text":
        return ColumnBins(values=bins.values)
    if not bins.edges:
        return ColumnBins()
    # The smallest value belongs to the first bin between two edges, not to the one below.
    first = float(np.nextafter(bins.edges[0], -np.inf))
    return ColumnBins(edges=(first, *(bins.edges[1:] or bins.edges)))


def _add_part(total: GroupedNumbers, group: int, row: Any) -> None:
    """Add the numbers of a column in one partition to a group."""
    total.grow(group + 1)
    groups = np.array([group])
    total.add_numbers(groups, np.frombuffer(row.numbers).reshape(1, -1))
    total.bin_counts[group] += np.frombuffer(row.bin_counts, np.int64)
    total.bin_sums[group] += np.frombuffer(row.bin_sums)
    hashes = np.frombuffer(row.hashes, np.uint32).astype(np.uint64)
    total.add_hashes(np.full(len(hashes), group), hashes)


def _column_numbers(
    total: GroupedNumbers, group: int, column: MonitoredColumn, bins: Bins
) -> dict[str, Any]:
    """Return the numbers of one column with the names of the profile table."""
    numbers = total.numbers[group].tolist()
    nulls, nan, infinite, zeros, count = (int(number) for number in numbers[:5])
    moments: list[Any] = numbers[column_numbers.MEAN :] if count else [None] * 4
    mean, squares, low, high = moments
    rows = nulls + nan + infinite + count
    distinct = min(total.distinct_count(group), rows - nulls)
    bin_counts = total.bin_counts[group]
    shared = {
        "data_type": column.data_type,
        "count": rows,
        "num_nulls": nulls,
        "percent_null": _percent(nulls, rows),
        "distinct_count": distinct,
        "percent_distinct": _percent(distinct, rows),
    }
    if column.kind == "text":
        return {
            **shared,
            **{"min_length": low, "max_length": high, "avg_length": mean},
            "dbx_aml_bin_counts": bin_counts.tolist(),
            "dbx_aml_percent_out_of_range": _percent(int(bin_counts[-2]), count),
        }
    bin_sums = total.bin_sums[group]
    out_of_range = int(bin_counts[0] + bin_counts[-1]) if bins.edges else 0
    quantiles = None
    if bins.edges and count:
        quantiles = compute_quantiles(bins.edges, bin_counts, bin_sums, low, high)
    return {
        **shared,
        "avg": mean,
        "stddev": (squares / (count - 1)) ** 0.5 if count > 1 else None,
        **{"min": low, "max": high},
        "quantiles": quantiles,
        "median": quantiles[QUANTILES.index(0.5)] if quantiles else None,
        "num_nan": nan,
        "percent_nan": _percent(nan, rows),
        "num_zeros": zeros,
        "percent_zeros": _percent(zeros, rows),
        "dbx_aml_num_infinite": infinite,
        "dbx_aml_percent_out_of_range": _percent(out_of_range, count),
        "dbx_aml_bin_counts": bin_counts.tolist() if bins.edges else [],
        "dbx_aml_bin_sums": bin_sums.tolist() if bins.edges else [],
    }


def compute_quantiles(
    edges: Sequence[float],
    counts: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
    low: float,
    high: float,
) -> list[float]:
    """Return quantiles from the bins.

    The values of a bin count as spread evenly about its mean, as far as the bin goes.
    """
    points = [low, *edges, *(edges if len(edges) == 1 else []), high]
    bounds = np.array(list(pairwise(np.clip(points, low, high))))
    is_filled = counts > 0
    bounds, counts, means = (
        bounds[is_filled],
        counts[is_filled],
        sums[is_filled] / counts[is_filled],
    )
    widths = np.clip(np.minimum(means - bounds[:, 0], bounds[:, 1] - means), 0, None)
    ends = np.cumsum(counts)
    ranks = np.array(QUANTILES) * ends[-1]
    position = np.searchsorted(ends, ranks)
    share = (ranks - (ends - counts)[position]) / counts[position]
    values = means[position] + (2 * share - 1) * widths[position]
    return [float(value) for value in np.clip(values, low, high)]


def _percent(count: int, rows: int) -> float | None:
    return 100.0 * count / rows if rows else None
