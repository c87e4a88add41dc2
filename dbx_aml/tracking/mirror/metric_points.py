"""The points of a metric as a set, and the digest by which two sets are compared.

A metric point is a value with its time and step. A server may keep equal points once or twice, so
metrics are compared as sets. Two sets count as equal if their counts and the sums of their points'
hashes are equal. In this way millions of points are compared without being kept.
"""

from __future__ import annotations

import math
import struct
import sys
from dataclasses import dataclass, field

# Value, time in ms since 1970, step.
MetricPoint = tuple[float, int, int]
_pack_struct = struct.Struct("<dqq").pack


@dataclass(frozen=True, kw_only=True)
class MetricDigest:
    """Count and hash of a metric's points.

    Args:
        count: Number of distinct points.
        hash_sum: Sum of the points' hashes, which only this process can compare.
        last_point: Last point in MLflow's order.
    """

    count: int
    hash_sum: int
    last_point: MetricPoint | None = field(compare=False)


class MetricPoints:
    """The distinct points of one metric as bytes: a million points take about 100 MB."""

    def __init__(self) -> None:
        self._packed_points: set[bytes] = set()
        # Time, step and value of the last point, in the order of MLflow's server.
        self._last: tuple[int, int, float] | None = None

    def __contains__(self, metric_point: MetricPoint) -> bool:
        return pack_point(metric_point) in self._packed_points

    def add(self, metric_point: MetricPoint) -> bool:
        """Add a point; tell whether it is new."""
        value, timestamp, step = metric_point
        if self._last is None or (timestamp, step, value) > self._last:
            self._last = timestamp, step, value
        old_count = len(self._packed_points)
        self._packed_points.add(pack_point(metric_point))
        return len(self._packed_points) > old_count

    @property
    def digest(self) -> MetricDigest:
        """Digest of these points."""
        last_point = (self._last[2], self._last[0], self._last[1]) if self._last else None
        hash_sum = sum(map(hash, self._packed_points))
        return MetricDigest(
            count=len(self._packed_points), hash_sum=hash_sum, last_point=last_point
        )


def pack_point(metric_point: MetricPoint) -> bytes:
    """Return a point as bytes that are equal for every server that keeps the point."""
    value, timestamp, step = metric_point
    return _pack_struct(stored_value(value), timestamp, step)


def stored_value(value: float) -> float:
    """Return a value as MLflow's own server keeps it.

    The server keeps an infinite value as the largest float, and each NaN as the same NaN.
    """
    if value != value:
        return math.nan
    if math.isinf(value):
        return math.copysign(sys.float_info.max, value)
    # The sum turns a negative zero into a positive zero.
    return value + 0.0
