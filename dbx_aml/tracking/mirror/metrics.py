"""Metrics of a run: read in pages, written in batches, compared as sets of points."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

from mlflow.entities import Metric, Run
from mlflow.utils.search_utils import SearchUtils

from dbx_aml._common.http import paged
from dbx_aml.tracking.mirror.metric_points import (
    MetricDigest,
    MetricPoint,
    MetricPoints,
    pack_point,
)
from dbx_aml.tracking.mirror.server import MlflowServer

_METRICS_AT_ONCE = 4
# A point that was just written may be readable only after a moment.
_READ_DELAYS_S = (0.5, 1.0, 2.0)
# MLflow accepts 1,000,000 bytes a call. JSON turns a letter of a metric's name into up to six
# bytes; the rest of a point takes up to 110.
_BYTES_PER_CALL = 900_000
_BYTES_PER_POINT = 110


def point_pages(
    server: MlflowServer,
    run_id: str,
    key: str,
    *,
    token: str | None = None,
    page_size: int | None = None,
) -> Iterator[tuple[list[MetricPoint], str | None]]:
    """Yield the points of a metric page by page, each page with the token of the next page.

    Args:
        server: Server of the run.
        run_id: Run on that server.
        key: Name of the metric.
        token: Token of the page to start at; None starts at the first page.
        page_size: Points a page; by default as many as the server is good at.
    """
    max_results = page_size or server.points_per_page

    def fetch_page(
        token: str | None,
    ) -> tuple[list[tuple[list[MetricPoint], str | None]], str | None]:
        if server.is_remote:
            params = {"run_id": run_id, "metric_key": key, "max_results": max_results}
            if token:
                params["page_token"] = token
            answer = server.request("GET", "metrics/get-history", params=params)
            next_token = answer.get("next_page_token")
            points = [_parse_point(entry) for entry in answer.get("metrics") or []]
        else:
            metrics = server.store.get_metric_history(
                run_id, key, max_results=max_results, page_token=token
            )
            next_token = _decode_token(metrics.token)
            points = [(metric.value, metric.timestamp, metric.step) for metric in metrics]
        return [(points, next_token)], next_token

    return paged(fetch_page, "metrics/get-history", first_token=token)


def _parse_point(entry: dict[str, Any]) -> MetricPoint:
    # JSON has NaN and infinities as texts, and may have long integers as texts.
    value = entry.get("value", 0.0)
    return float(value), int(entry.get("timestamp", 0)), int(entry.get("step", 0))


def read_points(server: MlflowServer, run_id: str, key: str) -> MetricPoints:
    """Return all points of a metric."""
    points = MetricPoints()
    for page, _ in point_pages(server, run_id, key):
        for point in page:
            points.add(point)
    return points


def read_existing_points(server: MlflowServer, run: Run, key: str) -> MetricPoints:
    """Return all points of a metric of a run; an empty set, without a call, for a new metric."""
    return read_points(server, run.info.run_id, key) if key in run.data.metrics else MetricPoints()


def write_points(
    server: MlflowServer, run_id: str, metric_points: Sequence[tuple[str, MetricPoint]]
) -> None:
    """Write points of a run's metrics in one call.

    Args:
        server: Server of the run.
        run_id: Run on that server.
        metric_points: Names of metrics, each with a point.
    """
    if not server.is_remote:
        metrics = [Metric(key, *point) for key, point in metric_points]
        server.store.log_batch(run_id, metrics, [], [])
        return
    entries = [
        {"key": key, "value": _json_number(value), "timestamp": timestamp, "step": step}
        for key, (value, timestamp, step) in metric_points
    ]
    server.request("POST", "runs/log-batch", json={"run_id": run_id, "metrics": entries})


def _json_number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")


class PointWriter:
    """Collects points of a run into calls as large as the destination accepts.

    Args:
        destination: Server of the run.
        run_id: Run on that server.
        on_written: Function that gets the number of points after each call.
    """

    def __init__(
        self, destination: MlflowServer, run_id: str, on_written: Callable[[int], None]
    ) -> None:
        self._destination = destination
        self._run_id = run_id
        self._on_written = on_written
        self._buffer: list[tuple[str, MetricPoint]] = []
        self._free_bytes = _BYTES_PER_CALL

    def add(self, key: str, metric_point: MetricPoint) -> None:
        """Add a point; write the collected points first if the call would be too large."""
        size = _BYTES_PER_POINT + 6 * len(key)
        if len(self._buffer) == self._destination.points_per_call or self._free_bytes < size:
            self.flush()
        self._buffer.append((key, metric_point))
        self._free_bytes -= size

    def flush(self) -> None:
        """Write the collected points."""
        if self._buffer:
            write_points(self._destination, self._run_id, self._buffer)
            self._on_written(len(self._buffer))
        self._buffer = []
        self._free_bytes = _BYTES_PER_CALL


def copy_metrics(
    source: MlflowServer,
    destination: MlflowServer,
    source_run: Run,
    mirrored_run: Run,
    *,
    metric_pool: Executor | None,
    on_written: Callable[[int], None],
) -> list[str]:
    """Write the points that the mirrored run lacks, then compare both runs.

    Each call costs a round trip, so several metrics are copied at once. The points of one metric
    are written in their order.

    Args:
        source: Server of the source run.
        destination: Server of the mirrored run.
        source_run: Run on the source.
        mirrored_run: Run on the destination.
        metric_pool: Threads for several metrics at once; None copies one metric after the other,
            which is all that works while the interpreter ends.
        on_written: Function that gets the number of points after each call.

    Returns:
        Differences that remain, one text a metric.
    """
    keys = sorted(source_run.data.metrics)
    # MLflow deletes no metric.
    extra_differences = [
        f"metric {key!r} must be the source's: got one of the destination alone"
        for key in sorted(mirrored_run.data.metrics.keys() - source_run.data.metrics.keys())
    ]
    if not keys:
        return extra_differences
    # The last steps tell about how many calls there will be. More threads would send calls that
    # are half empty.
    points = sum(max(0, metric.step) + 1 for metric in source_run.data._metric_objs)
    calls = points // destination.points_per_call
    threads = max(1, min(_METRICS_AT_ONCE, len(keys), calls)) if metric_pool else 1
    shares = [keys[thread::threads] for thread in range(threads)]

    def copy_share(share: list[str]) -> list[str]:
        return _copy_and_compare(source, destination, source_run, mirrored_run, share, on_written)

    run_all = metric_pool.map if metric_pool else map
    differences: Iterable[list[str]] = run_all(copy_share, shares)
    return [*extra_differences, *(difference for share in differences for difference in share)]


def _copy_and_compare(
    source: MlflowServer,
    destination: MlflowServer,
    source_run: Run,
    mirrored_run: Run,
    keys: list[str],
    on_written: Callable[[int], None],
) -> list[str]:
    writer = PointWriter(destination, mirrored_run.info.run_id, on_written)
    digests: dict[str, MetricDigest] = {}
    for key in keys:
        existing = read_existing_points(destination, mirrored_run, key)
        copied, is_complete = MetricPoints(), True
        for page, _ in point_pages(source, source_run.info.run_id, key):
            for point in page:
                if copied.add(point) and point not in existing:
                    is_complete = False
                    writer.add(key, point)
        digest = copied.digest
        if not is_complete or existing.digest != digest:
            digests[key] = digest
    writer.flush()
    return [
        f"metric {key!r} must have the source's {digest.count} points: got {count}"
        for key, digest in digests.items()
        if (count := _different_count(destination, mirrored_run.info.run_id, key, digest))
        is not None
    ]


def _different_count(
    server: MlflowServer, run_id: str, key: str, source_digest: MetricDigest
) -> int | None:
    """Return the number of points of a metric, if the points differ from the source; else None."""
    if _has_same_last_point(server, run_id, key, source_digest):
        return None
    digest = read_points(server, run_id, key).digest
    for delay_s in _READ_DELAYS_S:
        if digest.count >= source_digest.count:
            break
        time.sleep(delay_s)
        digest = read_points(server, run_id, key).digest
    return None if digest == source_digest else digest.count


def _has_same_last_point(
    server: MlflowServer, run_id: str, key: str, source_digest: MetricDigest
) -> bool:
    """Tell by the last point alone whether a metric has all points of the source.

    Reading all points only for their number is expensive. MLflow's own server takes an offset as
    page token, so one small page shows the last point and that no point follows. For a server
    with other tokens, and for any unexpected answer, the result is False: all points are read.
    """
    if source_digest.last_point is None or source_digest.count < 2:
        return False
    if server.has_offset_tokens is None:
        _, token = next(point_pages(server, run_id, key, page_size=1))
        server.has_offset_tokens = token == _offset_token(1)
    if not server.has_offset_tokens:
        return False
    last_offset = _offset_token(source_digest.count - 1)
    points, next_token = next(point_pages(server, run_id, key, token=last_offset, page_size=2))
    last_points = [pack_point(point) for point in points]
    return next_token is None and last_points == [pack_point(source_digest.last_point)]


def _offset_token(offset: int) -> str | None:
    return _decode_token(SearchUtils.create_page_token(offset))


def _decode_token(token: str | bytes | None) -> str | None:
    return token.decode() if isinstance(token, bytes) else token
