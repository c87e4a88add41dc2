"""Drift of a column: its numbers in a window, compared with the baseline or the window before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dbx_aml._common.errors import ArgumentError
from dbx_aml.monitoring import distances
from dbx_aml.monitoring.bins import ColumnKind
from dbx_aml.monitoring.distances import BinCounts

DriftStatus = Literal["ok", "drift", "too few rows"]

# Fewer rows have large distances by chance.
MIN_ROWS = 1000
# Columns of the drift table by the names of thresholds.
THRESHOLDS = {
    "psi": "population_stability_index",
    "js": "js_distance",
    "ks": "ks_test",
    "tv": "tv_distance",
    "l_infinity": "l_infinity_distance",
    "wasserstein": "wasserstein_distance",
    "normalized_wasserstein": "dbx_aml_normalized_wasserstein",
}
_DELTAS = ("count", "avg", "percent_null", "percent_zeros", "percent_distinct")


def check_thresholds(thresholds: Mapping[str, float]) -> None:
    """Raise an error for a threshold of no distance.

    Raises:
        ArgumentError: A threshold has no distance of `THRESHOLDS`, or is negative.
    """
    for name, limit in thresholds.items():
        if name not in THRESHOLDS:
            raise ArgumentError(
                f"threshold must be one of {', '.join(THRESHOLDS)}: got {name!r}; use for example "
                "psi=0.2"
            )
        if not limit >= 0:
            raise ArgumentError(f"threshold {name} must be 0 or more: got {limit}; use 0.2")


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


def _bins(profile: Mapping[str, Any]) -> BinCounts:
    return BinCounts(
        counts=profile.get("dbx_aml_bin_counts") or (), sums=profile.get("dbx_aml_bin_sums") or ()
    )


def find_distance(row: Mapping[str, Any], threshold: str) -> float | None:
    """Return the distance of a row of the drift table that a threshold limits, None without it."""
    value: Any = row.get(THRESHOLDS[threshold])
    distance: float | None = value.get("statistic") if isinstance(value, Mapping) else value
    return distance


def exceeded_thresholds(
    row: Mapping[str, Any], thresholds: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return value and limit of each distance above its threshold, by name of the threshold."""
    found = {name: (find_distance(row, name), limit) for name, limit in thresholds.items()}
    return {
        name: (value, limit)
        for name, (value, limit) in found.items()
        if value is not None and value > limit
    }


def drift_status(row: Mapping[str, Any], thresholds: Mapping[str, float]) -> DriftStatus:
    """Return whether a row of the drift table has a distance above its threshold."""
    if row["dbx_aml_rows"] < MIN_ROWS:
        return "too few rows"
    return "drift" if exceeded_thresholds(row, thresholds) else "ok"


def _test_result(numbers: tuple[float, float] | None) -> dict[str, float] | None:
    return None if numbers is None else {"statistic": numbers[0], "pvalue": numbers[1]}
