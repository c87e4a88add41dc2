"""Decisions of a scoring job: pure functions of plain data, without Spark, clock or files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dbx_aml._common.errors import ArgumentError

WriteMode = Literal["append", "incremental", "merge", "replace", "follow"]
WRITE_MODES: tuple[WriteMode, ...] = get_args(WriteMode)
# Packages and Python that the model runs with.
Environment = Literal["local", "model", "auto"]
ENVIRONMENTS: tuple[Environment, ...] = get_args(Environment)
# Where the rows are from.
SOURCES = ("table", "kafka")

_SECONDS = {"second": 1, "minute": 60, "hour": 3600}
# Names of UTC in Java; "Europe/London" is another zone.
_UTC = re.compile(
    r"(Etc/)?(UTC|UCT|Universal|Zulu|GMT|Greenwich)|Z|(UTC|GMT)?[+-]00?(:00){0,2}|GMT0"
    r"|Etc/GMT[+-]?0"
)
# Measured with and without a shuffle of 1M rows x 10 doubles: about a second for 80 MB.
_SHUFFLE_S_PER_BYTE = 12e-9
# A task costs 0.1 to 0.4 core seconds, whatever is in it: it gets at least this much data.
_BYTES_PER_TASK = 8 << 20
# Rows that Arrow hands over at once: Spark's default, and the number above which nothing is gained.
DEFAULT_ARROW_ROWS, _MAX_ARROW_ROWS = 10_000, 50_000
_ARROW_BATCHES_PER_TASK = 16
# Each batch is split into the rows of each segment: fewer batches make fewer calls of the models.
_MAX_SEGMENT_ARROW_ROWS, _SEGMENT_BATCHES_PER_TASK = 200_000, 4
_BYTES_PER_VALUE = 8
# Measured with a model that costs nothing: a job without rows, and a core's time to read a value,
# hand it to Python and back, or write it.
_FIXED_S, _S_PER_VALUE = 1.5, 8e-8
_LARGE_INPUT = 1 << 30
# Twice the most that Spark reads in one task.
_LARGE_FILE = 256 << 20


@dataclass(frozen=True, kw_only=True)
class QuarantineLimit:
    """The most rows that a job may quarantine: a count, or a percentage of the rows read."""

    text: str
    count: int | None
    percent: float | None

    def is_exceeded(self, quarantined: int, read: int) -> bool:
        """Return whether `quarantined` of `read` rows are more than the limit."""
        if self.count is not None:
            return quarantined > self.count
        return read > 0 and 100.0 * quarantined / read > (self.percent or 0.0)

    @property
    def allows_all(self) -> bool:
        """Whether a batch without any scored row is within the limit."""
        return self.percent == 100.0


def parse_quarantine_limit(limit: str | int) -> QuarantineLimit:
    """Return the limit from "250", 250 or "1%".

    Raises:
        ArgumentError: The text is neither a count from 0 nor a percentage from 0% to 100%.
    """
    text = str(limit).strip()
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)\s*%", text)
    if match and match[1]:
        return QuarantineLimit(text=text, count=int(match[1]), percent=None)
    if match and float(match[2]) <= 100:
        return QuarantineLimit(text=text, count=None, percent=float(match[2]))
    raise ArgumentError(
        f"max_quarantined_rows must be a count or a percentage: got {limit!r}; "
        "use for example 100 or '1%'"
    )


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """When a stream reads its input: once, until it has all that there is, or at an interval."""

    interval_s: int | None = None

    @property
    def is_endless(self) -> bool:
        """Whether the stream runs until it is stopped."""
        return self.interval_s is not None

    @property
    def spark_arguments(self) -> dict[str, Any]:
        """Arguments of Spark's `trigger`."""
        if self.interval_s is None:
            return {"availableNow": True}
        return {"processingTime": f"{self.interval_s} seconds"}


def parse_trigger(text: str) -> Trigger:
    """Return the trigger from "available-now", or from an interval, for example "30 seconds".

    Raises:
        ArgumentError: The text is neither.
    """
    match = re.fullmatch(r"([1-9]\d*)\s*(second|minute|hour)s?", text.strip())
    if match:
        return Trigger(interval_s=int(match[1]) * _SECONDS[match[2]])
    if text.strip() == "available-now":
        return Trigger()
    raise ArgumentError(
        f"trigger must be 'available-now' or an interval: got {text!r}; "
        "use for example '30 seconds' or '5 minutes'"
    )


def batch_id(identity: Mapping[str, Any]) -> str:
    """Return the id of the batch that scores exactly these rows with exactly this model.

    Args:
        identity: Everything that decides the rows, as plain JSON values.

    Returns:
        16 hexadecimal digits.
    """
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_utc(time_zone: str) -> bool:
    """Return whether a Spark session's time zone has the wall time of UTC, now and ever."""
    return _UTC.fullmatch(time_zone) is not None


def merged_partitions(size_bytes: int, cores: int) -> int:
    """Return the most partitions that data of this size are worth.

    Merging partitions needs no shuffle. At least one partition a core stays, so that no core is
    idle.

    Args:
        size_bytes: Estimated bytes of the input.
        cores: Tasks that run at once.
    """
    return max(cores, -(-size_bytes // _BYTES_PER_TASK))


def arrow_rows(size_bytes: int, cores: int, columns: int, *, has_segments: bool = False) -> int:
    """Return how many rows Arrow hands to the model at once.

    Each such batch costs a few milliseconds, whatever is in it. A task still gets several, so
    that Spark reads and writes while the model predicts.

    Args:
        size_bytes: Estimated bytes of the input.
        cores: Tasks that run at once.
        columns: Input columns of the model.
        has_segments: Whether each segment of the rows has its model.
    """
    most, batches = _MAX_ARROW_ROWS, _ARROW_BATCHES_PER_TASK
    if has_segments:
        most, batches = _MAX_SEGMENT_ARROW_ROWS, _SEGMENT_BATCHES_PER_TASK
    rows = size_bytes // cores // batches // (_BYTES_PER_VALUE * max(columns, 1))
    return max(DEFAULT_ARROW_ROWS, min(rows, most))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The expected cost of a scoring job.

    Args:
        rows: Rows of the input, at most; None where nothing was estimated.
        seconds_per_row: Measured seconds of one core for a row in the model and its challenger;
            None where nothing was measured.
        memory_bytes: Memory of the model in each Python worker; None where nothing was measured.
        seconds: Expected seconds of the job; None where nothing was estimated.
        cores: Tasks that run at once; None where Spark does not tell.
        core_hours: Expected hours of all cores together; None where nothing was estimated.
        challenger_factor: Time of the challenger, divided by the time of the model; None without
            a challenger.
    """

    rows: int | None = None
    seconds_per_row: float | None = None
    memory_bytes: int | None = None
    seconds: float | None = None
    cores: int | None = None
    core_hours: float | None = None
    challenger_factor: float | None = None


def estimate_job(
    *,
    rows: int,
    values_per_row: int,
    cores: int | None,
    seconds_per_row: float | None,
    memory_bytes: int | None,
    last_run: tuple[int, float] | None,
) -> Estimate:
    """Estimate a job from the last run of the same model, or from the measured cost of the model.

    Args:
        rows: Rows of the input, at most.
        values_per_row: Values that each row reads, hands to the model and writes.
        cores: Tasks that run at once.
        seconds_per_row: Measured cost of the model.
        memory_bytes: Measured memory of the model.
        last_run: Rows and seconds of the last run of the same model.
    """
    seconds = core_hours = None
    if last_run is not None:
        last_rows, last_seconds = last_run
        seconds = _FIXED_S + rows * max(last_seconds - _FIXED_S, 0.0) / last_rows
    elif cores is not None and seconds_per_row is not None:
        seconds = _FIXED_S + rows * (seconds_per_row + values_per_row * _S_PER_VALUE) / cores
    if seconds is not None and cores is not None:
        core_hours = seconds * cores / 3600
    return Estimate(
        rows=rows,
        seconds_per_row=seconds_per_row,
        memory_bytes=memory_bytes,
        seconds=seconds,
        cores=cores,
        core_hours=core_hours,
    )


def parse_price(price: str | float | None) -> float | None:
    """Return a price as a number; None for an empty one.

    Raises:
        ArgumentError: The price is no number from 0.
    """
    if price is None or price == "":
        return None
    try:
        number = float(price)
    except ValueError:
        number = -1.0
    if 0 <= number < float("inf"):
        return number
    raise ArgumentError(
        f"price_per_core_hour must be a number from 0: got {price!r}; use for example 0.12"
    )


def is_small(size_bytes: int) -> bool:
    """Return whether data of this size are at most one task's worth, whatever columns are read."""
    return size_bytes <= _BYTES_PER_TASK


def is_large(size_bytes: int) -> bool:
    """Return whether scoring takes so long that timing the model before it hardly counts."""
    return size_bytes >= _LARGE_INPUT


def may_shuffle(cores: int, size_bytes: int) -> bool:
    """Return whether `shuffle_partitions` is worth its measurements.

    Small data are scored before a shuffle would end; large data come in many files, or in files
    that several tasks read.
    """
    return not is_small(size_bytes) and size_bytes < cores * _LARGE_FILE


def shuffle_partitions(
    files: int, cores: int, rows: int, size_bytes: int, seconds_per_row: float
) -> int | None:
    """Return the partitions to shuffle to, or None where a shuffle costs more than it saves.

    Args:
        files: Files of the input; each gives about one task.
        cores: Tasks that run at once.
        rows: Rows of the input.
        size_bytes: Bytes of the input.
        seconds_per_row: Measured cost of the model.
    """
    if not 0 < files < cores:
        return None
    model_s = rows * seconds_per_row
    saved_s = model_s / files - model_s / cores
    return cores if saved_s > 1.5 * size_bytes * _SHUFFLE_S_PER_BYTE else None
