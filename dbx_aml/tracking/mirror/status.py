"""Counts of pending, done and failed runs by experiment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlflow.entities import Run

from dbx_aml.models.pages import experiment_url
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.run_states import RunStates
from dbx_aml.tracking.mirror.server import MlflowServer
from dbx_aml.tracking.mirror.source_runs import find_runs

_MAX_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class MirrorCounts:
    """The runs of one experiment.

    Args:
        experiment: Name of the experiment.
        pending: Number of runs that are not mirrored yet, have changed, or still run.
        done: Number of runs that are whole at the destination.
        failed: Number of runs that the destination cannot hold.
        unmarked: Number of runs that are mirrored only by `--include-unmarked`.
        oldest_pending_s: Seconds since the start of the oldest pending run.
        reasons: Reasons of failed and pending runs, at most three.
        url: Page of the experiment, None where the source has no pages.
    """

    experiment: str
    pending: int
    done: int
    failed: int
    unmarked: int
    oldest_pending_s: float | None
    reasons: tuple[str, ...]
    url: str | None


def count_runs(
    source: MlflowServer, destination: MlflowServer, experiment_ids: Sequence[str]
) -> Iterator[MirrorCounts]:
    """Yield the counts of each experiment with runs that are marked to be mirrored."""
    error_tag = tags.DestinationTags(destination.name).error
    states = RunStates(source, destination, experiment_ids)
    runs_by_experiment: dict[str, list[Run]] = {}
    for run in find_runs(source, experiment_ids, include_unmarked=True):
        if run.info.lifecycle_stage == "active":
            runs_by_experiment.setdefault(run.info.experiment_id, []).append(run)
    for experiment_id, runs in runs_by_experiment.items():
        counts: Counter[str] = Counter()
        oldest_start: int | None = None
        reasons: list[str] = []
        for run in runs:
            status = _status(run, states)
            counts[status] += 1
            if status == tags.PENDING:
                oldest_start = min(oldest_start or run.info.start_time, run.info.start_time)
            reason = run.data.tags.get(error_tag, "none")
            if reason != "none" and status != tags.DONE and reason not in reasons:
                reasons.append(reason)
        if counts.keys() != {"unmarked"}:
            age_s = None if oldest_start is None else time.time() - oldest_start / 1000
            yield MirrorCounts(
                experiment=source.experiment_name(experiment_id),
                pending=counts[tags.PENDING],
                done=counts[tags.DONE],
                failed=counts[tags.FAILED],
                unmarked=counts["unmarked"],
                oldest_pending_s=age_s,
                reasons=tuple(reasons[:_MAX_REASONS]),
                url=experiment_url(experiment_id, tracking_uri=source.tracking_uri),
            )


def _status(run: Run, states: RunStates) -> str:
    if tags.STATUS not in run.data.tags and states.mirrored_run_id(run) is None:
        return "unmarked"
    if tags.is_terminated(run) and states.is_unchanged(run):
        return tags.DONE
    return tags.FAILED if run.data.tags.get(tags.STATUS) == tags.FAILED else tags.PENDING
