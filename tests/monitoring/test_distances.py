"""Distances of two vectors of counts, against scipy and against numbers known from theory."""

import math

import numpy as np
import pytest
from scipy import stats

from dbx_aml.monitoring import distances
from dbx_aml.monitoring.distances import BinCounts


def bin_values(values, edges):
    """Return the bins of values: below the first edge, between two edges, above the last edge."""
    number = np.searchsorted(edges, values)
    number[values == edges[0]] = 1
    counts = np.bincount(number, minlength=len(edges) + 1)
    sums = np.bincount(number, weights=values, minlength=len(edges) + 1)
    return BinCounts(counts=counts.tolist(), sums=sums.tolist())


def bin_both(baseline, current):
    edges = np.unique(np.quantile(baseline, np.linspace(0, 1, 21)))
    return bin_values(baseline, edges), bin_values(current, edges)


@pytest.mark.parametrize(
    "distance",
    [
        distances.population_stability_index,
        distances.js_distance,
        distances.total_variation,
        distances.l_infinity,
        distances.wasserstein_distance,
        lambda baseline, current: distances.ks_test(baseline, current)[0],
    ],
)
def test_equal_data_has_distance_0(distance):
    bins = BinCounts(counts=[5, 0, 3, 2], sums=[1.0, 0.0, 9.0, 10.0])
    assert distance(bins, bins) == 0
    assert type(distance(bins, bins)) is float, "Spark takes no number of numpy"


def test_distances_of_two_shares_are_the_ones_of_their_formulas():
    baseline, current = BinCounts(counts=[50, 50]), BinCounts(counts=[25, 75])
    expected = -0.25 * math.log(0.5) + 0.25 * math.log(1.5)
    assert distances.population_stability_index(baseline, current) == pytest.approx(expected)
    assert distances.total_variation(baseline, current) == pytest.approx(0.25)
    assert distances.l_infinity(baseline, current) == pytest.approx(0.25)
    assert distances.ks_test(baseline, current)[0] == pytest.approx(0.25)


def test_shares_without_a_common_bin_have_a_finite_stability_index():
    baseline, current = BinCounts(counts=[10, 0]), BinCounts(counts=[0, 10])
    expected = 2 * (1 - 1e-4) * math.log(1e4)
    assert distances.population_stability_index(baseline, current) == pytest.approx(expected)
    assert distances.js_distance(baseline, current) == pytest.approx(1)


@pytest.mark.parametrize("shift", [0.1, 0.5, 1.0, 3.0])
def test_two_normal_distributions_have_their_shift_as_wasserstein_distance(shift):
    numbers = np.random.default_rng(0).normal(size=100_000)
    baseline, current = bin_both(numbers, numbers + shift)
    assert distances.wasserstein_distance(baseline, current) == pytest.approx(shift, rel=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_distances_on_bins_are_close_to_those_of_the_values(seed):
    random = np.random.default_rng(seed)
    baseline = random.gamma(random.uniform(1, 5), size=20_000)
    current = random.gamma(random.uniform(1, 5), size=20_000)
    bins = bin_both(baseline, current)
    expected = stats.wasserstein_distance(baseline, current)
    assert distances.wasserstein_distance(*bins) == pytest.approx(expected, rel=0.02, abs=0.01)
    statistic, _ = distances.ks_test(*bins)
    expected = stats.ks_2samp(baseline, current).statistic
    # The largest difference of the two may lie between two of the 20 edges.
    assert expected - 0.05 <= statistic <= expected + 1e-9


def test_the_chi_squared_test_is_the_one_of_scipy_without_empty_bins():
    baseline, current = BinCounts(counts=[10, 20, 0]), BinCounts(counts=[20, 20, 0])
    expected = stats.chi2_contingency([[10, 20], [20, 20]], correction=False)
    assert distances.chi_squared_test(baseline, current) == pytest.approx(expected[:2])


def test_a_single_value_has_no_chi_squared_test():
    bins = BinCounts(counts=[10, 0])
    assert distances.chi_squared_test(bins, bins) is None
