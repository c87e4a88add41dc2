"""Numbers of the columns of a table's rows, computed by numpy in Spark's Python workers.

Spark hands each partition to `profile_partition` in batches of Arrow. One pass computes all numbers
of all columns. 2,000 Spark expressions for the same numbers make code that is too large to be
compiled: 400,000 rows of 50 columns took more than 150 s with them, and 3 s with this pass. Each
partition returns a few kilobytes a column. The driver adds them up with `GroupedNumbers`, as the
workers do. Python has no loop over rows.

Distinct values are estimated from the 512 smallest hashes: fewer values are counted exactly, more
with an error of about 4 %.

Spark sends this module to the workers by value: it imports no other module of the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

RESULT_COLUMNS = """
    window bigint, slice string, number int, numbers binary, bin_counts binary, bin_sums binary,
    hashes binary
"""
# Columns of `GroupedNumbers.numbers`. A text has the numbers of its length from `COUNT` to `HIGH`.
NULLS, NAN, INFINITE, ZEROS, COUNT, MEAN, SQUARES, LOW, HIGH = range(9)
_HASHES = 512
_HASH_BITS = np.uint64(32)
_RECENT = 4096


@dataclass(frozen=True, kw_only=True)
class ColumnBins:
    """Bins of a column in the form that the workers need.

    Args:
        edges: Edges of a number's bins, sorted; a value belongs to the bin that ends at or above
            it.
        values: Values of a text; None for a number.
    """

    edges: Sequence[float] = ()
    values: Sequence[str] | None = None

    @property
    def count(self) -> int:
        """Number of the bins: of a text one for each value, one for others, one for null."""
        return len(self.edges) + 1 if self.values is None else len(self.values) + 2


@dataclass(kw_only=True)
class GroupedNumbers:
    """Numbers of one column for groups of rows. Group n has the position n in all arrays.

    Args:
        bin_count: Number of the column's bins.
        numbers: Numbers of each group, in the order of `NULLS` to `HIGH`.
        bin_counts: Rows of each group and bin.
        bin_sums: Sum of the values of each group and bin.
        hashes: Smallest hashes of each group, sorted; the upper half of the bits is the group.
    """

    bin_count: int
    numbers: Floats = field(default_factory=lambda: np.zeros((0, HIGH + 1)))
    bin_counts: Integers = field(init=False)
    bin_sums: Floats = field(init=False)
    hashes: Hashes = field(default_factory=lambda: np.zeros(0, np.uint64))

    def __post_init__(self) -> None:
        self.bin_counts = np.zeros((0, self.bin_count), np.int64)
        self.bin_sums = np.zeros((0, self.bin_count))
        self._limits = np.zeros(0, np.uint64)
        self._new_hashes: list[Hashes] = []
        # Hashes that were added last. Most hashes of a column with few values are among them.
        self._recent = np.full(_RECENT, np.iinfo(np.uint64).max)

    def grow(self, groups: int) -> None:
        """Make room for more groups."""
        more = groups - len(self.numbers)
        if more <= 0:
            return
        empty = np.zeros((more, HIGH + 1))
        empty[:, LOW], empty[:, HIGH] = np.inf, -np.inf
        self.numbers = np.concatenate([self.numbers, empty])
        self.bin_counts = np.concatenate(
            [self.bin_counts, np.zeros((more, self.bin_count), np.int64)]
        )
        self.bin_sums = np.concatenate([self.bin_sums, np.zeros((more, self.bin_count))])
        self._limits = np.concatenate([self._limits, np.full(more, 2**32, np.uint64)])

    def add_count(self, name: int, groups: Integers) -> None:
        """Count rows, each with its group, as nulls, NaN or infinite numbers."""
        self.numbers[:, name] += np.bincount(groups, minlength=len(self.numbers))

    def add_values(self, groups: Integers, values: Floats) -> None:
        """Add finite values, sorted by their groups, to the moments."""
        if not len(values):
            return
        starts = np.zeros(1, np.int64)
        if groups[0] != groups[-1]:
            starts = np.flatnonzero(np.diff(groups, prepend=-1))
        counts = np.diff(starts, append=len(values))
        means = np.add.reduceat(values, starts) / counts
        squares = values - (means[0] if len(means) == 1 else np.repeat(means, counts))
        np.multiply(squares, squares, out=squares)
        new = np.zeros((len(starts), HIGH + 1))
        new[:, ZEROS] = np.add.reduceat((values == 0).astype(np.int64), starts)
        new[:, COUNT], new[:, MEAN] = counts, means
        new[:, SQUARES] = np.add.reduceat(squares, starts)
        new[:, LOW] = np.minimum.reduceat(values, starts)
        new[:, HIGH] = np.maximum.reduceat(values, starts)
        self.add_numbers(groups[starts], new)

    def add_numbers(self, groups: Integers, new: Floats) -> None:
        """Add the numbers of some groups, each of which occurs once."""
        old = self.numbers[groups]
        total = old[:, COUNT] + new[:, COUNT]
        share = np.divide(new[:, COUNT], total, out=np.zeros(len(total)), where=total > 0)
        difference = new[:, MEAN] - old[:, MEAN]
        merged = old + new
        merged[:, MEAN] = old[:, MEAN] + difference * share
        # The sum of the squared deviations from the mean of both.
        merged[:, SQUARES] += difference**2 * old[:, COUNT] * share
        merged[:, LOW] = np.minimum(old[:, LOW], new[:, LOW])
        merged[:, HIGH] = np.maximum(old[:, HIGH], new[:, HIGH])
        self.numbers[groups] = merged

    def add_bins(self, groups: Integers, bins: Integers, values: Floats | None) -> None:
        """Add rows to their bins.

        Args:
            groups: Group of each row.
            bins: Bin of each row.
            values: Value of each row; None for a text.
        """
        keys = bins if len(self.numbers) == 1 else groups * self.bin_count + bins
        shape = self.bin_counts.shape
        size = shape[0] * shape[1]
        self.bin_counts += np.bincount(keys, minlength=size).reshape(shape)
        if values is not None:
            self.bin_sums += np.bincount(keys, values, size).reshape(shape)

    def add_hashes(self, groups: Integers, hashes: Hashes) -> None:
        """Add hashes of 32 bits of values, each with its group."""
        limits = self._limits[0] if len(self._limits) == 1 else self._limits[groups]
        is_small = hashes < limits
        keys = (groups[is_small].astype(np.uint64) << _HASH_BITS) | hashes[is_small]
        places = (keys % np.uint64(_RECENT)).astype(np.int64)
        is_new = self._recent[places] != keys
        keys = keys[is_new]
        if not len(keys):
            return
        self._recent[places[is_new]] = keys
        self._new_hashes.append(keys)
        if sum(map(len, self._new_hashes)) > max(len(self.hashes), 8 * _HASHES):
            self.keep_smallest()

    def keep_smallest(self) -> None:
        """Keep the smallest hashes of each group."""
        keys = np.concatenate([self.hashes, *self._new_hashes])
        # Much faster than numpy's `unique`.
        keys.sort()
        keys = keys[np.diff(keys, prepend=~keys[:1]) != 0]
        self._new_hashes = []
        groups = (keys >> _HASH_BITS).astype(np.int64)
        starts = np.searchsorted(groups, np.arange(len(self._limits)))
        is_kept = np.arange(len(keys)) - starts[groups] < _HASHES
        self.hashes = keys[is_kept]
        counts = np.bincount(groups[is_kept], minlength=len(self._limits))
        full = np.flatnonzero(counts == _HASHES)
        lower_half = np.uint64(2**32 - 1)
        self._limits[full] = keys[starts[full] + _HASHES - 1] & lower_half

    def group_hashes(self, group: int) -> Hashes:
        """Return the smallest hashes of a group."""
        start = np.uint64(group) << _HASH_BITS
        first, end = np.searchsorted(self.hashes, [start, start + np.uint64(2**32)])
        return self.hashes[first:end] & np.uint64(2**32 - 1)

    def distinct_count(self, group: int) -> int:
        """Return the number of distinct values of a group, estimated above 511."""
        hashes = self.group_hashes(group)
        if len(hashes) < _HASHES:
            return len(hashes)
        return round((_HASHES - 1) * 2**32 / float(hashes[-1]))


def profile_partition(
    batches: Iterable[Any], columns: Sequence[ColumnBins]
) -> Iterator[Any]:  # pyarrow.RecordBatch
    """Yield the numbers of each column and group of a partition's rows.

    Args:
        batches: Batches of the columns `window`, `slice`, then for each number its value, for each
            text its value and the 64 bits of its hash.
        columns: Bins of each column.
    """
    import pyarrow as pa

    names: dict[tuple[int | None, str | None], int] = {}
    profiles = [GroupedNumbers(bin_count=bins.count) for bins in columns]
    for batch in batches:
        if not batch.num_rows:
            continue
        groups, order = _row_groups(batch, names)
        position = 2
        with np.errstate(all="ignore"):
            for bins, profile in zip(columns, profiles, strict=True):
                profile.grow(len(names))
                if bins.values is None:
                    _add_numbers(profile, groups, order, batch.column(position), bins.edges)
                    position += 1
                else:
                    text, hashes = batch.column(position), batch.column(position + 1)
                    _add_texts(profile, groups, order, text, hashes, bins.values)
                    position += 2
    rows: dict[str, list[Any]] = {name.split()[0]: [] for name in RESULT_COLUMNS.split(",")}
    for number, profile in enumerate(profiles):
        profile.keep_smallest()
        for (window, part), group in names.items():
            values = (
                window, part, number, profile.numbers[group].tobytes(),
                profile.bin_counts[group].tobytes(), profile.bin_sums[group].tobytes(),
                profile.group_hashes(group).astype(np.uint32).tobytes(),
            )  # fmt: skip
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    types = [pa.int64(), pa.string(), pa.int32(), *[pa.binary()] * 4]
    arrays = [pa.array(values, kind) for values, kind in zip(rows.values(), types, strict=True)]
    yield pa.RecordBatch.from_arrays(arrays, names=list(rows))


def _row_groups(
    batch: Any, names: dict[tuple[int | None, str | None], int]
) -> tuple[Integers, Integers | None]:
    """Return the group of each row, sorted, and the order that sorts the rows.

    The order is None where all rows belong to one group. New groups are added to the names.
    """
    windows, parts = batch.column(0).dictionary_encode(), batch.column(1).dictionary_encode()
    window_names, part_names = [*windows.dictionary.to_pylist(), None], [
        *parts.dictionary.to_pylist(), None,
    ]  # fmt: skip
    numbers = (
        windows.indices.fill_null(len(window_names) - 1).to_numpy().astype(np.int64)
        * len(part_names)
        + parts.indices.fill_null(len(part_names) - 1).to_numpy()
    )
    first = int(numbers[0])
    if (numbers == first).all():
        name = window_names[first // len(part_names)], part_names[first % len(part_names)]
        group = names.setdefault(name, len(names))
        return np.full(len(numbers), group), None
    found, inverse = np.unique(numbers, return_inverse=True)
    groups = np.array(
        [
            names.setdefault(
                (window_names[number // len(part_names)], part_names[number % len(part_names)]),
                len(names),
            )
            for number in found.tolist()
        ]
    )[inverse]
    order = np.argsort(groups, kind="stable")
    return groups[order], order


def _add_numbers(
    profile: GroupedNumbers,
    groups: Integers,
    order: Integers | None,
    array: Any,
    edges: Sequence[float],
) -> None:
    values = array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    is_null = None
    if array.null_count:
        is_null = array.is_null().to_numpy(zero_copy_only=False)
    if order is not None:
        values = values[order]
        is_null = None if is_null is None else is_null[order]
    if is_null is not None:
        profile.add_count(NULLS, groups[is_null])
        groups, values = groups[~is_null], values[~is_null]
    # The sum is finite only if all values are.
    if not np.isfinite(values.sum()):
        is_finite = np.isfinite(values)
        is_nan = np.isnan(values)
        profile.add_count(NAN, groups[is_nan])
        profile.add_count(INFINITE, groups[~is_finite & ~is_nan])
        profile.add_hashes(groups[~is_finite], hash_numbers(values[~is_finite]))
        groups, values = groups[is_finite], values[is_finite]
    profile.add_values(groups, values)
    profile.add_bins(groups, _find_bins(values, edges), values)
    profile.add_hashes(groups, hash_numbers(values))


def _find_bins(values: Floats, edges: Sequence[float]) -> Integers:
    """Return the number of edges below each value: as `searchsorted`, in a third of its time."""
    bins = np.zeros(len(values), np.int8)
    is_above = np.empty(len(values), np.bool_)
    for edge in edges:
        np.greater(values, edge, out=is_above)
        np.add(bins, is_above.view(np.int8), out=bins)
    return bins.astype(np.int64)


def _add_texts(
    profile: GroupedNumbers,
    groups: Integers,
    order: Integers | None,
    array: Any,
    hashes: Any,
    values: Sequence[str],
) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(array, value_set=pa.array(values, array.type)).fill_null(len(values))
    bins = found.to_numpy(zero_copy_only=False).astype(np.int64)
    is_null = array.is_null().to_numpy(zero_copy_only=False)
    bins[is_null] = len(values) + 1
    lengths = pc.utf8_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
    numbers = hashes.to_numpy(zero_copy_only=False).view(np.uint64) >> _HASH_BITS
    if order is not None:
        bins, is_null, lengths, numbers = (
            bins[order],
            is_null[order],
            lengths[order],
            numbers[order],
        )
    profile.add_bins(groups, bins, None)
    profile.add_count(NULLS, groups[is_null])
    profile.add_values(groups[~is_null], lengths[~is_null])
    profile.add_hashes(groups[~is_null], numbers[~is_null])


def hash_numbers(values: Floats) -> Hashes:
    """Return 32 bits of a hash of each number, the same for 0 and -0."""
    bits = (values + 0.0).view(np.uint64)
    # The steps of the hash function "splitmix64".
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits >> _HASH_BITS
