"""Many runs at once: each is mirrored by itself, and one that fails stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Lock

from mlflow.entities import Run

from dbx_aml._common.errors import MirrorError
from dbx_aml._common.text import first_line
from dbx_aml.tracking.mirror import pending_runs as queue
from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.errors import is_denied, is_lasting
from dbx_aml.tracking.mirror.lease import FREE, LEASE_S
from dbx_aml.tracking.mirror.mirror_run import Copier, Outcome
from dbx_aml.tracking.mirror.server import Side

_RUNS_AT_ONCE = 8
_LANES = 16
# So many runs in a row that an outage kept: the others would each wait for it as long.
_MOST_IN_A_ROW = 3
_RETRY_HELD_S = 5.0


@dataclass(kw_only=True)
class Progress:
    """How far it is; the numbers only grow.

    Args:
        runs: Found so far.
        done: Of these, with an outcome.
        points: Of metrics that were written.
        bytes: Of artifacts that were written.
    """

    runs: int = 0
    done: int = 0
    points: int = 0
    bytes: int = 0


Report = Callable[[Progress], None]


def reconcile(
    src: Side,
    dst: Side,
    runs: Iterable[Run],
    *,
    report: Report = lambda _: None,
    wait_s: float = LEASE_S,
) -> Iterator[Outcome]:
    """Bring runs up to date at the destination; yield the outcome of each.

    Args:
        src: The source.
        dst: The destination.
        runs: Of the source, for example all that are pending.
        report: Called each time when there is something new to tell.
        wait_s: Seconds to wait for runs at which another process is: it may have been killed.

    Raises:
        MirrorError: A service refuses the caller, or does not answer: the others stay pending.
    """
    progress, lock = Progress(), Lock()

    def count(name: str, more: int) -> None:
        with lock:
            setattr(progress, name, getattr(progress, name) + more)
        report(progress)

    with ThreadPoolExecutor(_LANES) as lanes, ThreadPoolExecutor(_RUNS_AT_ONCE) as pool:
        copier = Copier(src, dst, lanes=lanes)

        def one(run: Run) -> Outcome:
            is_waiting = run.data.tags.get(tag.STATE) == tag.PENDING and not tag.is_over(run)
            if queue.is_same(run) or (is_waiting and _is_up_to_date(run)):
                outcome = Outcome.of(run)
                outcome.state = "running" if is_waiting else "same"
                outcome.target_id = run.data.tags.get(tag.mirror_id(dst.name))
                return outcome
            return copier.mirror(
                run,
                wrote_points=lambda more: count("points", more),
                wrote_bytes=lambda more: count("bytes", more),
            )

        held: list[Run] = []
        seen: set[str] = set()
        in_a_row = 0

        def settled(found: Iterator[tuple[Run, Outcome]], *, is_last: bool) -> Iterator[Outcome]:
            nonlocal in_a_row
            for run, outcome in found:
                seen.add(run.info.run_id)
                if outcome.state == "held" and not is_last:
                    held.append(run)
                    continue
                in_a_row = _failures(in_a_row, outcome, pool)
                count("done", 1)
                yield outcome

        yield from settled(_each(pool, one, runs, lambda: count("runs", 1)), is_last=False)
        while copier.targets.unmarked:
            parents = queue.by_id(src, sorted(set(copier.targets.unmarked) - seen))
            copier.targets.unmarked = []
            yield from settled(_each(pool, one, parents, lambda: count("runs", 1)), is_last=False)
        end = time.monotonic() + wait_s
        while held:
            time.sleep(min(_RETRY_HELD_S, max(0.0, end - time.monotonic())))
            again = queue.by_id(src, [run.info.run_id for run in held])
            held.clear()
            is_last = time.monotonic() >= end
            yield from settled(_each(pool, one, again, lambda: None), is_last=is_last)


def _is_up_to_date(run: Run) -> bool:
    """Tell whether a run that goes on has nothing new, and nobody left it in the middle."""
    tags = run.data.tags
    return (tags.get(tag.DIGEST), tags.get(tag.LEASE)) == (tag.digest(run), FREE)


def _each(
    pool: ThreadPoolExecutor,
    one: Callable[[Run], Outcome],
    runs: Iterable[Run],
    found: Callable[[], None],
) -> Iterator[tuple[Run, Outcome]]:
    """Yield each run with its outcome, while the search for more of them goes on."""
    working: dict[Future[Outcome], Run] = {}
    for run in runs:
        found()
        working[pool.submit(one, run)] = run
        while len(working) >= 2 * _RUNS_AT_ONCE:
            yield from _finished(working)
    while working:
        yield from _finished(working)


def _finished(working: dict[Future[Outcome], Run]) -> Iterator[tuple[Run, Outcome]]:
    done, _ = wait(working, return_when=FIRST_COMPLETED)
    for future in done:
        yield working.pop(future), future.result()


def _failures(before: int, outcome: Outcome, pool: ThreadPoolExecutor) -> int:
    """Return how many outcomes in a row were an outage's.

    Raises:
        MirrorError: They are too many, or the caller may not do it at all.
    """
    error = outcome.error
    if error is None or is_lasting(error):
        return 0 if error is None else before
    if not is_denied(error) and before + 1 < _MOST_IN_A_ROW:
        return before + 1
    pool.shutdown(wait=False, cancel_futures=True)
    what = "let the caller mirror" if is_denied(error) else "answer"
    raise MirrorError(
        f"both services must {what}: got {first_line(error)[:300]}; what is not done stays pending"
    )
