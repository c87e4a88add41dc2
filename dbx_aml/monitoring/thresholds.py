"""Thresholds of a run: largest distances and errors, smallest scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dbx_aml._common.errors import ArgumentError

# Columns of the drift table by the names of thresholds.
DISTANCES = {
    "psi": "population_stability_index",
    "js": "js_distance",
    "ks": "ks_test",
    "tv": "tv_distance",
    "l_infinity": "l_infinity_distance",
    "wasserstein": "wasserstein_distance",
    "normalized_wasserstein": "dbx_aml_normalized_wasserstein",
}
# Numbers of `quality_numbers` by the names of thresholds. An error is limited from above, a score
# from below.
ERRORS = {
    "mae": "mean_average_error",
    "rmse": "root_mean_squared_error",
    "mse": "mean_squared_error",
    "mape": "mean_absolute_percentage_error",
}
SCORES = {
    "r2": "r2_score",
    "accuracy": "accuracy_score",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1_score",
}
QUARANTINED = "percent_quarantined"
THRESHOLDS = (*DISTANCES, *ERRORS, *SCORES, QUARANTINED)


def check_thresholds(thresholds: Mapping[str, float], *, has_labels: bool) -> None:
    """Raise an error for a threshold that no run can check.

    Raises:
        ArgumentError: A threshold has a name that `THRESHOLDS` lacks, is no number, is negative,
            or needs labels.
    """
    for name, limit in thresholds.items():
        if name not in THRESHOLDS:
            raise ArgumentError(
                f"threshold must be one of {', '.join(THRESHOLDS)}: got {name!r}; use for example "
                "psi=0.2"
            )
        # Only R2 can be below 0.
        is_number = isinstance(limit, int | float) and math.isfinite(limit)
        if not is_number or (limit < 0 and name != "r2"):
            raise ArgumentError(f"threshold {name} must be 0 or more: got {limit!r}; use 0.2")
        if not has_labels and name in (*ERRORS, *SCORES):
            raise ArgumentError(
                f"threshold {name} must go with labels: got no label; give label, the column of "
                "the labels"
            )


def check_problem_type(thresholds: Mapping[str, float], problem_type: str) -> None:
    """Raise an error for a threshold on a number that labels of this kind do not have.

    Args:
        thresholds: Thresholds of the run.
        problem_type: "classification" or "regression".

    Raises:
        ArgumentError: A threshold needs labels of the other kind.
    """
    for name in thresholds:
        needed = "classification" if name in SCORES and name != "r2" else "regression"
        if name in (*ERRORS, *SCORES) and needed != problem_type:
            raise ArgumentError(
                f"threshold {name} must go with labels of problem_type {needed!r}: got "
                f"{problem_type!r}; give problem_type={needed!r} or another threshold"
            )


def find_distance(row: Mapping[str, Any], threshold: str) -> float | None:
    """Return the distance of a row of the drift table that a threshold limits, None without it."""
    value: Any = row.get(DISTANCES[threshold])
    distance: float | None = value.get("statistic") if isinstance(value, Mapping) else value
    return distance


def exceeded_distances(
    row: Mapping[str, Any], thresholds: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return value and limit of each distance above its threshold, by name of the threshold."""
    found = {
        name: (find_distance(row, name), limit)
        for name, limit in thresholds.items()
        if name in DISTANCES
    }
    return {
        name: (value, limit)
        for name, (value, limit) in found.items()
        if value is not None and value > limit
    }


def exceeded_quality(
    quality: Mapping[str, float], thresholds: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return value and limit of each error above and each score below its threshold.

    Args:
        quality: Numbers of `quality_numbers`.
        thresholds: Thresholds of the run.
    """
    names = {**ERRORS, **SCORES}
    found = {
        name: (quality[names[name]], limit)
        for name, limit in thresholds.items()
        if name in names and names[name] in quality
    }
    return {
        name: (value, limit)
        for name, (value, limit) in found.items()
        if (value < limit if name in SCORES else value > limit)
    }
