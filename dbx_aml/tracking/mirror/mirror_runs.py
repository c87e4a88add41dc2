"""Many runs at once: each is mirrored alone, and a run that fails stops no other run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

from mlflow.entities import Run

from dbx_aml._common.errors import MirrorError, RunMirrorError, is_permission_denied, is_retryable
from dbx_aml._common.text import first_line, one_line
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.lease import LEASE_S, RELEASED
from dbx_aml.tracking.mirror.logged_models import different_model_values
from dbx_aml.tracking.mirror.mirror_run import MirrorResult, RunMirror
from dbx_aml.tracking.mirror.run_states import RunStates
from dbx_aml.tracking.mirror.server import MlflowServer, repeat_refused_write
from dbx_aml.tracking.mirror.source_runs import get_runs

_RUNS_AT_ONCE = 8
_METRIC_THREADS = 16
# Each run of an outage takes the whole retry timeout, so after a few runs the rest is not tried.
_MAX_FAILURES_IN_A_ROW = 3
_LOCK_POLL_S = 5.0


@dataclass(kw_only=True)
class Progress:
    """Progress of `mirror_runs`; the numbers only grow.

    Args:
        runs: Runs that the search has returned so far.
        finished_runs: Runs that have a result.
        metric_points: Points of metrics that were written.
        artifact_bytes: Bytes of artifacts that were written.
    """

    runs: int = 0
    finished_runs: int = 0
    metric_points: int = 0
    artifact_bytes: int = 0


ProgressReporter = Callable[[Progress], None]


class _ProgressCounter:
    """Adds up the progress of several threads."""

    def __init__(self, report: ProgressReporter) -> None:
        self._report = report
        self._progress = Progress()
        self._lock = Lock()

    def add(self, counter: str, amount: int) -> None:
        """Add an amount to a field of `Progress`, and report."""
        with self._lock:
            setattr(self._progress, counter, getattr(self._progress, counter) + amount)
        self._report(self._progress)


def mirror_runs(
    source: MlflowServer,
    destination: MlflowServer,
    runs: Iterable[Run],
    *,
    states: RunStates | None = None,
    is_full: bool = False,
    report: ProgressReporter = lambda _: None,
    lock_timeout_s: float = LEASE_S,
    lock_poll_s: float = _LOCK_POLL_S,
) -> Iterator[MirrorResult]:
    """Bring the mirrored runs of many source runs up to date; yield the result of each run.

    Args:
        source: Server of the source runs.
        destination: Server of the mirrored runs.
        runs: Runs on the source, for example all pending runs.
        states: States of the runs, by which runs without a change are found; None for runs of
            which each is compared with its mirrored run.
        is_full: Whether each run is compared all the same, and each of its files by content.
        report: Function that gets the progress after each change.
        lock_timeout_s: Seconds to wait for runs that another process holds; a process that was
            killed holds a run until its lease expires.
        lock_poll_s: Seconds between two tries of such runs.

    Raises:
        MirrorError: A server refuses the caller or does not answer; the other runs stay pending.
    """
    progress = _ProgressCounter(report)
    finished_ids: set[str] = set()
    locked_ids: list[str] = []
    failures_in_a_row = 0

    with ThreadPoolExecutor(_METRIC_THREADS) as metrics, ThreadPoolExecutor(_RUNS_AT_ONCE) as pool:
        experiments = states.experiments if states else None
        run_mirror = RunMirror(
            source,
            destination,
            metric_pool=metrics,
            experiments=experiments,
            compares_content=is_full,
        )

        def mirror_one(source_run: Run) -> MirrorResult:
            unchanged = unchanged_result(source_run, states) if states and not is_full else None
            return unchanged or run_mirror.mirror(source_run, progress.add)

        def mirror_batch(batch: Iterable[Run], *, waits_for_locks: bool) -> Iterator[MirrorResult]:
            nonlocal failures_in_a_row
            for result in _in_parallel(pool, mirror_one, batch):
                if result.status == "locked" and waits_for_locks:
                    locked_ids.append(result.run_id)
                    continue
                finished_ids.add(result.run_id)
                failures_in_a_row = _count_failures(failures_in_a_row, result, pool)
                progress.add("finished_runs", 1)
                yield result

        def count(batch: Iterable[Run]) -> Iterator[Run]:
            for source_run in batch:
                progress.add("runs", 1)
                yield source_run

        if states:
            for experiment_id in states.experiment_ids:
                states.experiments.update_name(experiment_id)
        yield from mirror_batch(count(runs), waits_for_locks=True)
        if states:
            yield from _mirror_models_without_run(run_mirror, states)
        while run_mirror.mirrored_runs.newly_marked_ids:
            marked_ids = set(run_mirror.mirrored_runs.newly_marked_ids)
            run_mirror.mirrored_runs.newly_marked_ids = []
            marked_runs = get_runs(source, sorted(marked_ids - finished_ids - set(locked_ids)))
            yield from mirror_batch(count(marked_runs), waits_for_locks=True)
        deadline = time.monotonic() + lock_timeout_s
        while locked_ids:
            time.sleep(min(lock_poll_s, max(0.0, deadline - time.monotonic())))
            locked_runs = get_runs(source, locked_ids)
            locked_ids.clear()
            is_last_try = time.monotonic() >= deadline
            yield from mirror_batch(locked_runs, waits_for_locks=not is_last_try)


def unchanged_result(source_run: Run, states: RunStates) -> MirrorResult | None:
    """Return the result of a run that has not changed since it was mirrored, without any call."""
    result = MirrorResult.from_run(source_run)
    result.destination_run_id = states.mirrored_run_id(source_run)
    is_deleted = source_run.info.lifecycle_stage != "active"
    if is_deleted and result.destination_run_id is None:
        result.status, result.reason = "deleted", "it was deleted before it was mirrored"
        return result
    if not states.is_unchanged(source_run):
        return None
    if is_deleted or tags.is_done(source_run):
        result.status = "unchanged"
        return result
    # A process that was killed has left its lease, or a run that ended without the status "done".
    if source_run.data.tags.get(tags.LEASE) == RELEASED and not tags.is_terminated(source_run):
        result.status = "running"
        return result
    return None


def _mirror_models_without_run(run_mirror: RunMirror, states: RunStates) -> Iterator[MirrorResult]:
    """Mirror the logged models without a run, of experiments that the destination has."""
    for model in states.models.get(None, []):
        experiment = states.experiments.find_active(model.experiment_id)
        if experiment is None:
            continue
        result = MirrorResult(
            run_id=model.model_id, name=model.name, experiment_id=model.experiment_id
        )
        mirror_model = partial(
            _mirror_model, run_mirror, states, model, experiment.experiment_id, result
        )
        try:
            repeat_refused_write(mirror_model)
        except Exception as error:  # noqa: BLE001 - one model that fails stops no other model
            result.status = "pending" if is_retryable(error) else "failed"
            result.error, result.reason = error, one_line(error)
        yield result


def _mirror_model(
    run_mirror: RunMirror,
    states: RunStates,
    model: Any,
    experiment_id: str,
    result: MirrorResult,
) -> None:
    """Bring the copy of a logged model without a run up to date, and set the result."""
    copied_model = states.copies_without_run(experiment_id).get(model.model_id)
    if (
        copied_model
        and not run_mirror.compares_content
        and not different_model_values(model, copied_model, run_mirror.destination)
    ):
        result.status = "unchanged"
        return
    copies = states.copies_without_run(experiment_id, is_read_again=True)
    written: list[int] = []
    _, differences = run_mirror.logged_models.mirror_model(
        model,
        copies.get(model.model_id),
        experiment_id,
        None,
        compares_content=run_mirror.compares_content,
        on_written=written.append,
    )
    result.artifact_bytes += sum(written)
    if differences:
        raise RunMirrorError("; ".join(differences))
    result.status = "done"


def _in_parallel(
    pool: Executor, mirror_one: Callable[[Run], MirrorResult], runs: Iterable[Run]
) -> Iterator[MirrorResult]:
    """Yield the results of runs in the order of completion, while the search for runs goes on."""
    futures: set[Future[MirrorResult]] = set()
    for run in runs:
        futures.add(pool.submit(mirror_one, run))
        while len(futures) >= 2 * _RUNS_AT_ONCE:
            completed, futures = wait(futures, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in completed)
    while futures:
        completed, futures = wait(futures, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in completed)


def _count_failures(failures: int, result: MirrorResult, pool: ThreadPoolExecutor) -> int:
    """Return the number of runs in a row that failed through an outage.

    Raises:
        MirrorError: The number is too high, or a server refuses the caller.
    """
    error = result.error
    if error is None or not is_retryable(error):
        return 0 if error is None else failures
    is_denied = is_permission_denied(error)
    if not is_denied and failures + 1 < _MAX_FAILURES_IN_A_ROW:
        return failures + 1
    pool.shutdown(wait=False, cancel_futures=True)
    rule = "let the caller mirror" if is_denied else "answer"
    raise MirrorError(
        f"both services must {rule}: got {first_line(error)[:300]}; unfinished runs stay pending"
    )
