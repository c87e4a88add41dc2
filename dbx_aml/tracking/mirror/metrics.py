"""Metrics: read in pages, written in batches, compared as sets.

A point is a value with its time and step; a metric is the set of its points, for servers keep an
equal one once or twice as they like. Two sets are equal where their counts and the sums of their
points' hashes are, so millions of points are compared without being kept.
"""

from __future__ import annotations

import math
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from mlflow.entities import Metric, Run
from mlflow.utils.search_utils import SearchUtils

from dbx_aml.tracking.mirror.server import Side

# Value, time in ms since 1970, step.
Point = tuple[float, int, int]
_PACK = struct.Struct("<dqq").pack
_LANES = 4
_WAITS_S = (0.5, 1.0, 2.0)
# MLflow takes 1,000,000 bytes a call; a letter of a name may become six, the rest of a point 110.
_BYTES_A_CALL = 900_000
_BYTES_A_POINT = 110


@dataclass(frozen=True, kw_only=True)
class Series:
    """The points of a metric, told by little.

    Args:
        count: How many.
        digest: The sum of their hashes, which is of this process.
        last: In the order of a server.
    """

    count: int
    digest: int
    last: Point | None = field(compare=False)


class Points:
    """The distinct points of one metric, as bytes: a million of them is about 100 MB."""

    def __init__(self) -> None:
        self._packed: set[bytes] = set()
        # Time, step and value of the last one, as MLflow's server sorts them.
        self._last: tuple[int, int, float] | None = None

    def __contains__(self, point: Point) -> bool:
        return packed(point) in self._packed

    def add(self, point: Point) -> bool:
        """Add a point; tell whether it is new."""
        value, timestamp, step = point
        if self._last is None or (timestamp, step, value) > self._last:
            self._last = timestamp, step, value
        before = len(self._packed)
        self._packed.add(packed(point))
        return len(self._packed) > before

    @property
    def series(self) -> Series:
        """What two metrics are compared by."""
        last = (self._last[2], self._last[0], self._last[1]) if self._last else None
        digest = sum(map(hash, self._packed))
        return Series(count=len(self._packed), digest=digest, last=last)


def packed(point: Point) -> bytes:
    """Return a point such that it is the same from every server.

    MLflow's own keeps an infinite value as the largest there is, and any NaN as one.
    """
    value, timestamp, step = point
    if value != value:
        value = math.nan
    elif math.isinf(value):
        value = math.copysign(sys.float_info.max, value)
    # Adding zero makes a negative zero a positive one.
    return _PACK(value + 0.0, timestamp, step)


def pages(
    side: Side, run_id: str, key: str, *, token: str | None = None, size: int | None = None
) -> Iterator[tuple[list[Point], str | None]]:
    """Yield a metric's points by pages, each with the token of the next one.

    Args:
        side: Whose.
        run_id: Of a run there.
        key: The metric's name.
        token: Of the page to start at; the first one without it.
        size: Points a page.
    """
    while True:
        if side.is_remote:
            asked = {"run_id": run_id, "metric_key": key, "max_results": size or side.page}
            if token:
                asked["page_token"] = token
            answer = side.ask("GET", "metrics/get-history", params=asked)
            token = answer.get("next_page_token")
            yield [_point(one) for one in answer.get("metrics") or []], token
        else:
            found = side.store.get_metric_history(
                run_id, key, max_results=size or side.page, page_token=token
            )
            token = _text(found.token)
            yield [(one.value, one.timestamp, one.step) for one in found], token
        if not token:
            return


def _point(one: dict[str, Any]) -> Point:
    # NaN and infinities are words in JSON, and long integers may be.
    value = one.get("value", 0.0)
    return float(value), int(one.get("timestamp", 0)), int(one.get("step", 0))


def read(side: Side, run_id: str, key: str) -> Points:
    """Return all points of a metric."""
    found = Points()
    for page, _ in pages(side, run_id, key):
        for point in page:
            found.add(point)
    return found


def write(side: Side, run_id: str, points: Sequence[tuple[str, Point]]) -> None:
    """Write points of metrics of a run, in one call."""
    if not side.is_remote:
        metrics = [Metric(key, *point) for key, point in points]
        side.store.log_batch(run_id, metrics, [], [])
        return
    body = [
        {"key": key, "value": _spoken(value), "timestamp": timestamp, "step": step}
        for key, (value, timestamp, step) in points
    ]
    side.ask("POST", "runs/log-batch", json={"run_id": run_id, "metrics": body})


def _spoken(value: float) -> float | str:
    """Return a number as JSON has it."""
    if math.isfinite(value):
        return value
    return "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")


class Writer:
    """Collects points of a run into calls as large as the destination takes them.

    Args:
        dst: The destination.
        run_id: Of a run there.
        wrote: Called with the number of points after each call.
    """

    def __init__(self, dst: Side, run_id: str, wrote: Callable[[int], None]) -> None:
        self._dst = dst
        self._run_id = run_id
        self._wrote = wrote
        self._points: list[tuple[str, Point]] = []
        self._room = _BYTES_A_CALL

    def add(self, key: str, point: Point) -> None:
        """Take a point; write what there is where it is enough for a call."""
        size = _BYTES_A_POINT + 6 * len(key)
        if len(self._points) == self._dst.batch or self._room < size:
            self.flush()
        self._points.append((key, point))
        self._room -= size

    def flush(self) -> None:
        """Write what there is."""
        if self._points:
            write(self._dst, self._run_id, self._points)
            self._wrote(len(self._points))
        self._points = []
        self._room = _BYTES_A_CALL


def copy(
    src: Side,
    dst: Side,
    run: Run,
    target: Run,
    *,
    lanes: Executor | None,
    wrote: Callable[[int], None],
) -> list[str]:
    """Write the points that the mirror lacks, and compare both; return the differences.

    Args:
        src: The source.
        dst: The destination.
        run: Of the source.
        target: Its mirror.
        lanes: Does several metrics at once: each call costs a way there and back. None does one
            after the other, as the interpreter's end needs it. A metric's own points are written
            in their order.
        wrote: Called with the number of points after each call.
    """
    keys = sorted(run.data.metrics)
    if not keys:
        return []
    # The last steps tell about how many calls there will be: as few lanes, each with full calls.
    calls = sum(max(0, one.step) + 1 for one in run.data._metric_objs) // dst.batch
    count = max(1, min(_LANES, len(keys), calls)) if lanes else 1
    work = [keys[lane::count] for lane in range(count)]

    def one(some: list[str]) -> list[str]:
        return _lane(src, dst, run, target, some, wrote)

    done: Iterable[list[str]] = lanes.map(one, work) if lanes else map(one, work)
    return [problem for problems in done for problem in problems]


def _lane(
    src: Side, dst: Side, run: Run, target: Run, keys: list[str], wrote: Callable[[int], None]
) -> list[str]:
    run_id, target_id = run.info.run_id, target.info.run_id
    writer = Writer(dst, target_id, wrote)
    wanted: dict[str, Series] = {}
    same: set[str] = set()
    for key in keys:
        has = read(dst, target_id, key) if key in target.data.metrics else Points()
        seen, is_whole = Points(), True
        for page, _ in pages(src, run_id, key):
            for point in page:
                if seen.add(point) and point not in has:
                    is_whole = False
                    writer.add(key, point)
        wanted[key] = seen.series
        if is_whole and has.series == wanted[key]:
            same.add(key)
    writer.flush()
    problems = []
    for key in keys:
        if key in same or _ends_as(dst, target_id, key, wanted[key]):
            continue
        got = _settled(dst, target_id, key, wanted[key])
        if got != wanted[key]:
            problems.append(
                f"metric {key!r} must have the source's {wanted[key].count} points: got {got.count}"
            )
    return problems


def _ends_as(side: Side, run_id: str, key: str, wanted: Series) -> bool:
    """Tell by the last point alone whether a metric has as many, up to the same one.

    A server that keeps a point once reads all of them for nothing else than their number. MLflow's
    own takes a place as a page's token; where another server's tokens are its own, or anything is
    not as expected, this is False, and the points are read.
    """
    if wanted.last is None or wanted.count < 2:
        return False
    if side.pages_by_place is None:
        _, token = next(pages(side, run_id, key, size=1))
        side.pages_by_place = token == _token(1)
    if not side.pages_by_place:
        return False
    found, more = next(pages(side, run_id, key, token=_token(wanted.count - 1), size=2))
    return more is None and [*map(packed, found)] == [packed(wanted.last)]


def _token(place: int) -> str | None:
    return _text(SearchUtils.create_page_token(place))


def _text(token: str | bytes | None) -> str | None:
    return token.decode() if isinstance(token, bytes) else token


def _settled(side: Side, run_id: str, key: str, wanted: Series) -> Series:
    """Return what a metric has; what was just written may take a moment to be read."""
    for wait_s in _WAITS_S:
        got = read(side, run_id, key).series
        if got.count >= wanted.count:
            return got
        time.sleep(wait_s)
    return read(side, run_id, key).series
