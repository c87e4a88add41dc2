"""Distances between two distributions, each given as the counts of the same bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dbx_aml.scoring import challenger


@dataclass(frozen=True, kw_only=True)
class BinCounts:
    """Rows of a column by bin.

    Args:
        counts: Rows of each bin.
        sums: Sum of the values of each bin; empty for a text column.
    """

    counts: Sequence[int]
    sums: Sequence[float] = ()

    @property
    def rows(self) -> int:
        """Rows of all bins."""
        return int(sum(self.counts))

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Share of each bin in the rows."""
        return np.asarray(self.counts, dtype=float) / self.rows


def population_stability_index(baseline: BinCounts, current: BinCounts) -> float:
    """Return the population stability index; 0 for equal shares, above 0.2 for a large change."""
    # Spark takes no number of numpy.
    shares, new_shares = baseline.shares.tolist(), current.shares.tolist()
    return challenger.population_stability_index(shares, new_shares)


def js_distance(baseline: BinCounts, current: BinCounts) -> float:
    """Return the Jensen-Shannon distance with logarithms of base 2, from 0 to 1."""
    from scipy.spatial.distance import jensenshannon

    # Rounding may leave a negative number below the square root of equal shares.
    return float(np.nan_to_num(jensenshannon(baseline.shares, current.shares, 2)))


def total_variation(baseline: BinCounts, current: BinCounts) -> float:
    """Return half of the sum of the absolute differences between the shares, from 0 to 1."""
    return float(np.abs(baseline.shares - current.shares).sum() / 2)


def l_infinity(baseline: BinCounts, current: BinCounts) -> float:
    """Return the largest absolute difference between two shares, from 0 to 1."""
    return float(np.abs(baseline.shares - current.shares).max())


def wasserstein_distance(baseline: BinCounts, current: BinCounts) -> float:
    """Return the Wasserstein distance in units of the column.

    The rows of a bin count as if each had the mean of the bin. The mean of the rows is then exact,
    also where values leave the range of the baseline.
    """
    from scipy.stats import wasserstein_distance as distance

    means, weights = zip(_bin_means(baseline), _bin_means(current), strict=True)
    return float(distance(*means, *weights))


def _bin_means(bins: BinCounts) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean and the rows of each bin that has rows."""
    counts = np.asarray(bins.counts, dtype=float)
    filled = counts > 0
    return np.asarray(bins.sums, dtype=float)[filled] / counts[filled], counts[filled]


def ks_test(baseline: BinCounts, current: BinCounts) -> tuple[float, float]:
    """Return statistic and p-value of the Kolmogorov-Smirnov test, at the edges of the bins."""
    from scipy.stats import kstwobign

    statistic = float(np.abs(np.cumsum(baseline.shares - current.shares)).max())
    rows = baseline.rows * current.rows / (baseline.rows + current.rows)
    return statistic, float(kstwobign.sf(statistic * np.sqrt(rows)))


def chi_squared_test(baseline: BinCounts, current: BinCounts) -> tuple[float, float] | None:
    """Return statistic and p-value of the chi-squared test; None where only one bin has rows."""
    from scipy.stats import chi2_contingency

    table = np.array([baseline.counts, current.counts])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return None
    result = chi2_contingency(table, correction=False)
    return float(result[0]), float(result[1])
