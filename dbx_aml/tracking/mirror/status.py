"""Counts of pending, done and failed runs by experiment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.server import MlflowServer

_MAX_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class MirrorCounts:
    """The runs of one experiment.

    Args:
        experiment: Name of the experiment.
        pending: Number of runs that are not mirrored yet, or still running.
        done: Number of runs that are whole at the destination.
        failed: Number of runs that the destination cannot hold.
        oldest_pending_s: Seconds since the start of the oldest pending run.
        reasons: Reasons of failed and pending runs, at most three.
    """

    experiment: str
    pending: int
    done: int
    failed: int
    oldest_pending_s: float | None
    reasons: tuple[str, ...]


def count_runs(
    source: MlflowServer, destination: MlflowServer, experiment_ids: Sequence[str]
) -> Iterator[MirrorCounts]:
    """Yield the counts of each experiment with runs that are marked to be mirrored."""
    error_tag = tags.DestinationTags(destination.name).error
    for experiment_id in experiment_ids:
        counts: Counter[str] = Counter()
        oldest_start: int | None = None
        reasons: list[str] = []
        for status in (tags.PENDING, tags.DONE, tags.FAILED):
            for run in source.search_runs([experiment_id], f"tags.`{tags.STATUS}` = '{status}'"):
                counts[status] += 1
                if status == tags.PENDING:
                    oldest_start = min(oldest_start or run.info.start_time, run.info.start_time)
                reason = run.data.tags.get(error_tag, "none")
                if reason != "none" and status != tags.DONE and reason not in reasons:
                    reasons.append(reason)
        if counts:
            age_s = None if oldest_start is None else time.time() - oldest_start / 1000
            yield MirrorCounts(
                experiment=source.store.get_experiment(experiment_id).name,
                pending=counts[tags.PENDING],
                done=counts[tags.DONE],
                failed=counts[tags.FAILED],
                oldest_pending_s=age_s,
                reasons=tuple(reasons[:_MAX_REASONS]),
            )
