"""How many runs wait, are done, or failed, by experiment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlflow.entities import ViewType

from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.server import Side

_MOST_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The runs of one experiment.

    Args:
        experiment: Its name.
        pending: Runs that wait, or go on.
        done: Runs that are at the destination, whole.
        failed: Runs that the destination cannot hold.
        oldest_pending_s: Seconds since the oldest one that waits was started.
        reasons: Why some failed, or could not be finished.
    """

    experiment: str
    pending: int
    done: int
    failed: int
    oldest_pending_s: float | None
    reasons: tuple[str, ...]


def count(src: Side, experiments: Sequence[str]) -> Iterator[Counts]:
    """Yield the counts of each experiment that has runs to mirror."""
    for experiment_id in experiments:
        states: Counter[str] = Counter()
        oldest: int | None = None
        reasons: list[str] = []
        for state in (tag.PENDING, tag.DONE, tag.FAILED):
            condition = f"tags.`{tag.STATE}` = '{state}'"
            for run in src.runs([experiment_id], condition, view=ViewType.ACTIVE_ONLY):
                states[state] += 1
                if state == tag.PENDING:
                    oldest = min(oldest or run.info.start_time, run.info.start_time)
                why = run.data.tags.get(tag.ERROR, "none")
                if why != "none" and state != tag.DONE and why not in reasons:
                    reasons.append(why)
        if states:
            yield Counts(
                experiment=src.store.get_experiment(experiment_id).name,
                pending=states[tag.PENDING],
                done=states[tag.DONE],
                failed=states[tag.FAILED],
                oldest_pending_s=None if oldest is None else time.time() - oldest / 1000,
                reasons=tuple(reasons[:_MOST_REASONS]),
            )
