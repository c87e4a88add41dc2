"""What a scoring job will do, decided before anything is done: pure functions of plain data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dbx_aml._common.errors import ArgumentError

WRITE_MODES = ("append", "incremental", "merge", "replace")

# Their value changes from one run to the next, while the table's version does not.
_UNSTABLE = re.compile(
    r"\b(current_date|current_timestamp|localtimestamp|current_time|now|curdate|rand|random|randn"
    r"|uuid|current_user|session_user|user)\b\s*(\(|$|[-+<>=)\s])",
    re.IGNORECASE,
)
# Measured with and without a shuffle of 1M rows x 10 doubles: about a second for 80 MB.
_SHUFFLE_S_PER_BYTE = 12e-9
# A task should be worth its 0.1 to 0.4 core seconds.
_BYTES_PER_TASK = 8 << 20
# Rows that Arrow hands over at once: Spark's default, and where more gains nothing any more.
SMALLEST_BATCH, _LARGEST_BATCH = 10_000, 50_000
_BATCHES_A_TASK = 16
_BYTES_PER_VALUE = 8
# What Spark reads in one task at most, twice over.
_LARGE_FILE = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How many bad rows a job may have: a count, or a percentage of the rows read."""

    text: str
    count: int | None
    percent: float | None

    def exceeded(self, bad: int, read: int) -> bool:
        """Return whether `bad` of `read` rows are more than tolerated."""
        if self.count is not None:
            return bad > self.count
        return read > 0 and 100.0 * bad / read > (self.percent or 0.0)

    @property
    def everything(self) -> bool:
        """Whether a batch without one good row is fine as well."""
        return self.percent == 100.0


def tolerance(text: str | int) -> Tolerance:
    """Return how many bad rows are tolerated, from "250", 250 or "1%".

    Raises:
        ArgumentError: It is neither a count from 0 nor a percentage from 0% to 100%.
    """
    given = str(text).strip()
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)\s*%", given)
    if match and match[1]:
        return Tolerance(text=given, count=int(match[1]), percent=None)
    if match and float(match[2]) <= 100:
        return Tolerance(text=given, count=None, percent=float(match[2]))
    raise ArgumentError(
        f"max_quarantined_rows must be a count or a percentage: got {text!r}; "
        "use for example 100 or '1%'"
    )


def batch_id(identity: Mapping[str, Any]) -> str:
    """Return the id of the batch that scores exactly these rows with exactly this model.

    Args:
        identity: Input table and version, pinned model, filter, output.

    Returns:
        16 hexadecimal digits.
    """
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unstable_functions(row_filter: str) -> list[str]:
    """Return the functions in a filter whose value another run would not see again."""
    unquoted = re.sub(r"'(?:[^'\\]|\\.)*'|`[^`]*`", "''", row_filter)
    return sorted({match[1].lower() for match in _UNSTABLE.finditer(unquoted)})


def fewer_partitions(size_bytes: int | None, cores: int | None) -> int | None:
    """Return how many partitions small data is worth, or None to leave it as it is.

    Merging partitions needs no shuffle, so it is done whenever it cannot cost parallelism: at
    least one partition a core stays.

    Args:
        size_bytes: Estimated bytes of the input; None if unknown.
        cores: Tasks that run at once; None if unknown.
    """
    if size_bytes is None or cores is None:
        return None
    return max(cores, -(-size_bytes // _BYTES_PER_TASK))


def rows_a_batch(size_bytes: int, cores: int, columns: int) -> int:
    """Return how many rows Arrow hands to the model at once.

    Each batch costs a few milliseconds, whatever is in it. A task still gets several, so that
    Spark reads and writes while the model predicts.

    Args:
        size_bytes: Estimated bytes of the input.
        cores: Tasks that run at once.
        columns: The model's input columns.
    """
    bytes_a_batch = size_bytes // cores // _BATCHES_A_TASK
    most = bytes_a_batch // (_BYTES_PER_VALUE * max(columns, 1))
    return max(SMALLEST_BATCH, min(most, _LARGEST_BATCH))


def may_shuffle(cores: int, size_bytes: int) -> bool:
    """Return whether it is worth looking for what `more_partitions` asks.

    Small data is done before a shuffle would be; large data comes in many files, or in files
    that are read by many tasks.
    """
    return _BYTES_PER_TASK < size_bytes < cores * _LARGE_FILE


def more_partitions(
    files: int, cores: int, rows: int, size_bytes: int, seconds_per_row: float
) -> int | None:
    """Return the partitions to shuffle to, or None where a shuffle costs more than it saves.

    Args:
        files: Files to be read; one gives about one task.
        cores: Tasks that run at once.
        rows: Rows to be scored.
        size_bytes: Their bytes.
        seconds_per_row: The model's measured cost.
    """
    if not 0 < files < cores:
        return None
    model_s = rows * seconds_per_row
    saved = model_s / files - model_s / cores
    return cores if saved > 1.5 * size_bytes * _SHUFFLE_S_PER_BYTE else None
