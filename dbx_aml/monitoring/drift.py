"""Drift of a column: its numbers in a window, compared with the baseline or the window before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dbx_aml.monitoring import distances
from dbx_aml.monitoring.bins import ColumnKind
from dbx_aml.monitoring.distances import BinCounts
from dbx_aml.monitoring.thresholds import exceeded_distances

DriftStatus = Literal["ok", "drift", "too few rows"]

# Fewer rows have large distances by chance.
MIN_ROWS = 1000
_DELTAS = ("count", "avg", "percent_null", "percent_zeros", "percent_distinct")


def compare_profiles(
    kind: ColumnKind, reference: Mapping[str, Any], current: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the columns of the drift table for two profiles of one column.

    A distance is None where one of the two has no values.

    Args:
        kind: Kind of the column.
        reference: Numbers of the baseline or of the window before.
        current: Numbers of the window.
    """
    row: dict[str, Any] = {}
    for name in _DELTAS:
        numbers = reference.get(name), current.get(name)
        row[f"{name}_delta"] = None if None in numbers else numbers[1] - numbers[0]  # type: ignore[operator]
    before, now = _bins(reference), _bins(current)
    if not before.counts or not before.rows or not now.rows:
        return row
    row["population_stability_index"] = distances.population_stability_index(before, now)
    row["js_distance"] = distances.js_distance(before, now)
    row["tv_distance"] = distances.total_variation(before, now)
    row["l_infinity_distance"] = distances.l_infinity(before, now)
    if kind == "text":
        row["chi_squared_test"] = _test_result(distances.chi_squared_test(before, now))
        return row
    row["ks_test"] = _test_result(distances.ks_test(before, now))
    row["wasserstein_distance"] = distances.wasserstein_distance(before, now)
    if reference.get("stddev"):
        normalized = row["wasserstein_distance"] / reference["stddev"]
        row["dbx_aml_normalized_wasserstein"] = normalized
    return row


def compare_tables(reference: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of the drift table for two rows about all columns.

    A column counts as added or missing where one of the two has only nulls in it.
    """
    before, now = set(reference["non_null_columns"] or ()), set(current["non_null_columns"] or ())
    return {
        "count_delta": current["count"] - reference["count"],
        "non_null_columns_delta": {"added": len(now - before), "missing": len(before - now)},
    }


def _bins(profile: Mapping[str, Any]) -> BinCounts:
    return BinCounts(
        counts=profile.get("dbx_aml_bin_counts") or (), sums=profile.get("dbx_aml_bin_sums") or ()
    )


def drift_status(row: Mapping[str, Any], thresholds: Mapping[str, float]) -> DriftStatus:
    """Return whether a row of the drift table has a distance above its threshold."""
    if row["dbx_aml_rows"] < MIN_ROWS:
        return "too few rows"
    return "drift" if exceeded_distances(row, thresholds) else "ok"


def _test_result(numbers: tuple[float, float] | None) -> dict[str, float] | None:
    return None if numbers is None else {"statistic": numbers[0], "pvalue": numbers[1]}
