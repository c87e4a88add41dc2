"""`profile_partition`: the numbers of batches of rows, against pandas."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from dbx_aml.monitoring import column_numbers, distances
from dbx_aml.monitoring.column_numbers import ColumnBins, GroupedNumbers, profile_partition
from dbx_aml.monitoring.distances import BinCounts
from dbx_aml.monitoring.profile import QUANTILES, compute_quantiles

WINDOWS = (10, 20, 30)


def batch(frame):
    """Return the batch that Spark hands to a worker: texts with a hash, numbers alone."""
    hashes = pd.util.hash_array(frame.text.fillna("").to_numpy(), categorize=False)
    columns = {
        "window": pa.array(frame.window, pa.int64()),
        "slice": pa.array(frame.part, pa.string()),
        "number": pa.array(frame.number, pa.float64(), from_pandas=False),
        "text": pa.array(frame.text, pa.string(), from_pandas=True),
        "hash": pa.array(hashes.view(np.int64)),
    }
    return pa.RecordBatch.from_pydict(columns)


def random_rows(seed, rows):
    random = np.random.default_rng(seed)
    number = random.normal(1e6, 1.0, size=rows).round(1)
    number[:4] = [np.nan, np.inf, -np.inf, 0]
    return pd.DataFrame(
        {
            "window": random.choice(WINDOWS, size=rows),
            "part": random.choice(["1", "2"], size=rows),
            "number": number,
            "text": random.choice(["a", "bb", "new", None], size=rows),
        }
    )


def read_part(row):
    return (
        np.frombuffer(row["numbers"]),
        np.frombuffer(row["bin_counts"], np.int64),
        np.frombuffer(row["bin_sums"]),
        np.frombuffer(row["hashes"], np.uint32),
    )


def test_numbers_of_many_groups_are_the_ones_of_pandas():
    frames = [random_rows(seed, 500) for seed in range(5)]
    edges = (0.0, 999_999.5, 1_000_000.0, 1_000_001.0)
    bins = [ColumnBins(edges=edges), ColumnBins(values=("a", "bb"))]
    (result,) = profile_partition(map(batch, frames), bins)
    parts = {(r["window"], r["slice"], r["number"]): read_part(r) for r in result.to_pylist()}
    rows = pd.concat(frames)
    assert len(parts) == 2 * rows.groupby(["window", "part"]).ngroups
    for (window, part), group in rows.groupby(["window", "part"]):
        numbers, counts, sums, hashes = parts[window, part, 0]
        finite = group.number[np.isfinite(group.number)]
        assert numbers[column_numbers.NAN] == group.number.isna().sum()
        assert numbers[column_numbers.INFINITE] == np.isinf(group.number).sum()
        assert numbers[column_numbers.ZEROS] == (finite == 0).sum()
        assert numbers[column_numbers.MEAN] == pytest.approx(finite.mean(), rel=1e-12)
        deviation = (numbers[column_numbers.SQUARES] / (len(finite) - 1)) ** 0.5
        assert deviation == pytest.approx(finite.std(), rel=1e-9)
        assert (numbers[column_numbers.LOW], numbers[column_numbers.HIGH]) == (
            finite.min(), finite.max()
        )  # fmt: skip
        place = pd.Series(np.searchsorted(edges, finite))
        assert counts.tolist() == [(place == number).sum() for number in range(5)]
        assert sums.sum() == pytest.approx(finite.sum())
        assert len(hashes) == group.number.nunique(dropna=False)
        numbers, counts, _, hashes = parts[window, part, 1]
        texts = group.text
        expected = [(texts == "a").sum(), (texts == "bb").sum(), (texts == "new").sum()]
        assert counts.tolist() == [*expected, texts.isna().sum()]
        assert numbers[column_numbers.MEAN] == pytest.approx(texts.dropna().str.len().mean())
        assert len(hashes) == 3


def profile_values(values, bins):
    """Return the counts of the bins of a column, in batches of 10,000 rows."""
    frame = pd.DataFrame({"number": values, "window": 1, "part": "1", "text": "a"})
    if bins.values is not None:
        frame["text"], frame["number"] = values, 0.0
    batches = [batch(frame[start : start + 10_000]) for start in range(0, len(frame), 10_000)]
    both = [ColumnBins(), bins] if bins.values is not None else [bins, ColumnBins(values=())]
    (result,) = profile_partition(batches, both)
    numbers, counts, sums, _ = read_part(result.to_pylist()[int(bins.values is not None)])
    return numbers, BinCounts(counts=counts.tolist(), sums=sums.tolist())


@pytest.mark.parametrize("distance", [0.0, 0.1, 0.5, 2.0, 5.0])
def test_two_normal_distributions_have_their_distance(distance):
    random = np.random.default_rng(0)
    before, now = random.normal(size=100_000), random.normal(distance, size=100_000)
    edges = np.quantile(before, np.linspace(0, 1, 21))
    _, before_bins = profile_values(before, ColumnBins(edges=edges.tolist()))
    _, now_bins = profile_values(now, ColumnBins(edges=edges.tolist()))
    found = distances.wasserstein_distance(before_bins, now_bins)
    assert found == pytest.approx(distance, rel=0.02, abs=0.02)
    assert distances.wasserstein_distance(before_bins, before_bins) == 0
    statistic, _ = distances.ks_test(before_bins, now_bins)
    # The two distributions differ most in the middle between them. A bin has 5 % of the rows.
    expected = 2 * stats.norm.cdf(distance / 2) - 1
    assert statistic == pytest.approx(expected, abs=0.05)


def test_the_chi_squared_test_of_texts_is_the_one_of_scipy():
    random = np.random.default_rng(0)
    before = random.choice(["a", "b", "c"], size=20_000)
    now = random.choice(["a", "b", "c", "new"], size=15_000, p=[0.3, 0.3, 0.3, 0.1])
    bins = ColumnBins(values=("a", "b", "c"))
    (_, before_bins), (_, now_bins) = profile_values(before, bins), profile_values(now, bins)
    names = ("a", "b", "c", "new")
    table = [[(values == name).sum() for name in names] for values in (before, now)]
    expected = stats.chi2_contingency(table, correction=False)
    assert distances.chi_squared_test(before_bins, now_bins) == pytest.approx(expected[:2])


def test_a_partition_without_rows_has_no_numbers():
    (result,) = profile_partition([], [ColumnBins()])
    assert result.num_rows == 0


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [
        (np.random.default_rng(1).normal(0.4, 1.3, size=50_000), 0.05),
        (np.random.default_rng(1).integers(0, 9, size=50_000).astype(float), 0.5),
        (np.full(1000, 7.0), 0),
    ],
)
def test_quantiles_from_the_bins_are_close_to_those_of_the_values(values, tolerance):
    edges = sorted(set(np.quantile(values[:1000], np.linspace(0, 1, 21), method="inverted_cdf")))
    worker_edges = [np.nextafter(edges[0], -np.inf), *(edges[1:] or edges)]
    numbers, found = profile_values(values, ColumnBins(edges=worker_edges))
    low, high = numbers[column_numbers.LOW], numbers[column_numbers.HIGH]
    quantiles = compute_quantiles(edges, np.array(found.counts), np.array(found.sums), low, high)
    expected = np.quantile(values, QUANTILES, method="inverted_cdf")
    assert quantiles == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("distinct", [1, 511, 5_000, 300_000])
def test_distinct_values_are_estimated(distinct):
    profile = GroupedNumbers(bin_count=1)
    profile.grow(2)
    for start in range(0, 300_000, 10_000):
        values = np.arange(start, start + 10_000, dtype=float) % distinct
        profile.add_hashes(np.ones(10_000, np.int64), column_numbers.hash_numbers(values))
    profile.keep_smallest()
    assert profile.distinct_count(0) == 0
    tolerance = 0 if distinct < 512 else 0.15
    assert profile.distinct_count(1) == pytest.approx(distinct, rel=tolerance)


def test_zero_and_minus_zero_are_one_value():
    hashes = column_numbers.hash_numbers(np.array([0.0, -0.0, 1.0]))
    assert hashes[0] == hashes[1] != hashes[2]
