"""The thread that mirrors a process's own runs while it runs.

One daemon thread, started by the first run that is to be mirrored. It knows the runs from what
MLflow's fluent API has in memory, asks the source only after the process itself has called MLflow,
and spends at most a part of its time on it. Metrics, params and tags follow while a run goes on;
artifacts once it has ended, for Azure ML never changes one. Whatever it does not get done, because
the destination is down or the process ends, stays pending: the tag is the queue, not this thread.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from secrets import token_hex
from threading import Event, Lock, Thread, get_ident

from mlflow.tracking import fluent
from mlflow.utils import rest_utils

from dbx_aml.link.link import Link
from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.active_run import Follower
from dbx_aml.tracking.mirror.errors import is_lasting
from dbx_aml.tracking.mirror.lease import Lease
from dbx_aml.tracking.mirror.mirror_run import Copier
from dbx_aml.tracking.mirror.server_pair import sides

log = logging.getLogger(__name__)
_TICK_S = 1.0
# At most so long is waited for what is left when the process ends.
_AT_EXIT_S = 5.0
# After work it rests for so many times as long as it has worked.
_REST = 3.0
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0


class Live:
    """Mirrors the runs of this process.

    Attributes:
        process: What its runs are found by, in a tag.
    """

    def __init__(self) -> None:
        self._reset(())
        os.register_at_fork(after_in_child=self._forget)

    def _reset(self, foreign: Iterable[str]) -> None:
        self.process = token_hex(8)
        self._pid = os.getpid()
        self._lock = Lock()
        self._thread: Thread | None = None
        self._copier: Copier | None = None
        self._link: Link | None = None
        self._followers: dict[str, Follower] = {}
        # Not to be looked at again: those of the parent of a forked process, or of other servers.
        self._foreign = set(foreign)
        self._over: set[str] = set()
        self._hears = True
        # Runs that were about to be created; how many of them there were at the last search.
        self._expected = 0
        self._searched = 0
        self._stirred = Event()
        self._ending = Event()
        self._ended = Event()
        self._failures = 0
        self._paused_until = 0.0

    def _forget(self) -> None:
        """Start anew in a forked child: it has no thread, and its parent's runs are not its own."""
        self._reset(_active()[0])
        # MLflow keeps Databricks' connections for all processes, and the parent's thread uses them.
        clear = getattr(rest_utils.get_workspace_client, "cache_clear", None)
        if clear:
            clear()

    @property
    def is_on(self) -> bool:
        """Whether the thread runs in this process."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, link: Link) -> None:
        """Start the thread, unless it runs."""
        with self._lock:
            if link != self._link:
                # Runs that are followed already keep the servers that they have.
                self._link, self._copier = link, None
            if self.is_on or self._ending.is_set():
                return
            self._thread = Thread(target=self._work, name="dbx-aml-mirror", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                # The interpreter is ending.
                self._thread = None

    def expect_run(self, link: Link) -> dict[str, str]:
        """Start, look for a run that is about to be created, and return the tags that say so."""
        self._expected += 1
        self._stirred.set()
        self.start(link)
        lease = Lease.of_this_process(self.process)
        return {tag.PROCESS: self.process, tag.LEASE: str(lease)}

    def stir(self) -> None:
        """Hear that this process has asked MLflow for something."""
        if self._thread is not None and get_ident() != self._thread.ident:
            self._stirred.set()

    def _work(self) -> None:
        rest = _TICK_S
        while not self._ended.is_set():
            is_last = self._ending.wait(rest)
            started = time.monotonic()
            if is_last or started >= self._paused_until:
                self._try_tick(is_last=is_last)
            if is_last:
                self._ended.set()
            rest = max(_TICK_S, _REST * (time.monotonic() - started))
            rest = min(rest, _LONGEST_PAUSE_S)

    def _try_tick(self, *, is_last: bool) -> None:
        try:
            self._tick(is_last=is_last)
            self._failures = 0
        except Exception as error:
            self._failures += 1
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (self._failures - 1))
            self._paused_until = time.monotonic() + pause
            log.debug("failed to mirror", exc_info=error)
            if self._failures == 1:
                log.warning(
                    "runs are tracked, but not mirrored for now: %s; they stay pending, and "
                    "'dbx-aml mirror' mirrors them later",
                    " ".join(str(error).split())[:300],
                )

    def _tick(self, *, is_last: bool) -> None:
        stirred = self._stirred.is_set() or not self._hears
        self._stirred.clear()
        active, ended = _active()
        self._over -= active
        new = (active | ended) - self._over - self._foreign - set(self._followers)
        if new or self._followers or self._expected > self._searched:
            copier = self._copier_now()
            if copier is None:
                return
            for run_id in new:
                self._followers[run_id] = Follower(copier, run_id)
            expected = self._expected
            if expected - self._searched > len(new):
                self._search(copier)
            self._searched = expected
            # A database is asked without a request.
            self._hears = copier.src.is_remote
        lasting: Exception | None = None
        for run_id, follower in list(self._followers.items()):
            if stirred or run_id not in active:
                follower.stir()
            try:
                if follower.is_due or is_last:
                    follower.follow(is_active=run_id in active)
            except Exception as error:
                if not is_lasting(error):
                    raise
                lasting = error
            if follower.is_over or follower.is_foreign:
                del self._followers[run_id]
                (self._over if follower.is_over else self._foreign).add(run_id)
        if lasting is not None:
            raise lasting

    def _copier_now(self) -> Copier | None:
        if self._copier is None and self._link is not None:
            self._copier = Copier(*sides(self._link), nonce=self.process)
        return self._copier

    def _search(self, copier: Copier) -> None:
        """Find runs of this process that began and ended unseen, as many short ones do."""
        where = {follower.experiment_id for follower in self._followers.values()}
        where |= {fluent._active_experiment_id, os.environ.get("MLFLOW_EXPERIMENT_ID")}
        experiments = sorted(one for one in where if one)
        condition = f"tags.`{tag.PROCESS}` = '{self.process}' and tags.`{tag.STATE}` = 'pending'"
        for run in copier.src.runs(experiments, condition) if experiments else ():
            run_id = run.info.run_id
            if run_id not in self._followers and run_id not in self._over:
                self._followers[run_id] = Follower(copier, run_id)

    def end(self) -> None:
        """Do what can be done within a few seconds; the rest stays pending."""
        if not self.is_on or self._pid != os.getpid():
            return
        self._ending.set()
        if not self._ended.wait(_AT_EXIT_S):
            log.info("left runs pending count=%s", len(self._followers))


def _active() -> tuple[set[str], set[str]]:
    """Return the runs that are active in any thread, and the last one that each has ended."""
    stacks = fluent._active_run_stack.get_all_thread_values().values()
    last = fluent._last_active_run_id.get_all_thread_values().values()
    active = {run.info.run_id for stack in list(stacks) for run in list(stack)}
    return active, {run_id for run_id in last if run_id} - active
