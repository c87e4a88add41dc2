"""The thread that mirrors the runs of its process while they run.

The first run that is to be mirrored starts one daemon thread. The thread finds the process's runs
in the memory of MLflow's fluent API, reads from the source only after this process has sent a
request to MLflow, and works at most a quarter of the time. Metrics, params, tags and datasets
are mirrored during the run; artifacts are mirrored after its end, because Azure ML never changes
an artifact. Runs that the thread does not finish, through an outage or the end of the process,
stay pending: the queue is the tag, not this thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from secrets import token_hex
from threading import Event, Lock, Thread, get_ident

from mlflow.tracking import fluent
from mlflow.utils import rest_utils

from dbx_aml._common.errors import is_retryable
from dbx_aml._common.fork_gate import delay_forks
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import one_line
from dbx_aml.link.link import Link
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.active_run import ActiveRun
from dbx_aml.tracking.mirror.lease import Lease
from dbx_aml.tracking.mirror.mirror_run import RunMirror
from dbx_aml.tracking.mirror.server import servers_of_link

log = get_logger(__name__)
_TICK_S = 1.0
# Longest time that the end of the process waits for unfinished runs.
_EXIT_TIMEOUT_S = 5.0
# The thread rests three times as long as it has worked.
_REST_FACTOR = 3.0
_FIRST_RETRY_S = 5.0
_MAX_RETRY_S = 300.0
# Within this time after it was told about a run, MLflow has created it or failed.
_CREATION_TIMEOUT_S = 600.0


class LiveMirror:
    """Mirrors the runs of this process.

    Attributes:
        process_token: Random text in a tag, by which the runs of this process are found.
    """

    def __init__(self) -> None:
        self._reset(())
        os.register_at_fork(after_in_child=self._reset_after_fork)

    def _reset(self, untracked_ids: Iterable[str]) -> None:
        self.process_token = token_hex(8)
        self._pid = os.getpid()
        self._lock = Lock()
        self._thread: Thread | None = None
        self._run_mirror: RunMirror | None = None
        self._link: Link | None = None
        self._active_runs: dict[str, ActiveRun] = {}
        # Runs of another server, and in a forked process the runs of its parent.
        self._untracked_ids = set(untracked_ids)
        self._finished_ids: set[str] = set()
        # MLflow asks header providers for each request, but a database is read without a request.
        self._observes_requests = True
        # Runs that were about to be created: their number, the time of the last, the known ids.
        self._expected_runs = 0
        self._expected_at = 0.0
        self._expected_experiment_ids: set[str | None] = set()
        self._created_ids: set[str] = set()
        self._has_new_requests = Event()
        self._stop_requested = Event()
        self._stopped = Event()
        self._failures = 0
        self._paused_until = 0.0

    def _reset_after_fork(self) -> None:
        """Start empty in a forked process: it has no thread, and its parent's runs stay there."""
        self._reset(_fluent_run_ids()[0])
        # MLflow 3 keeps Databricks' connections for the process, and the parent's thread uses them.
        get_workspace_client = getattr(rest_utils, "get_workspace_client", None)
        clear_cache = getattr(get_workspace_client, "cache_clear", None)
        if clear_cache:
            clear_cache()

    @property
    def is_running(self) -> bool:
        """Whether the thread runs in this process."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, link: Link) -> None:
        """Start the thread, unless it runs.

        Args:
            link: Link that names both servers; runs that are already mirrored keep their servers.
        """
        with self._lock:
            if link != self._link:
                self._link, self._run_mirror = link, None
            if self.is_running or self._stop_requested.is_set():
                return
            self._thread = Thread(target=self._run, name="dbx-aml-mirror", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                # The interpreter is ending.
                self._thread = None

    def expect_run(self, link: Link, experiment_id: str | None = None) -> dict[str, str]:
        """Start the thread for a run that is about to be created; return tags for that run.

        Args:
            link: Link of the process.
            experiment_id: Id of the run's experiment; None for MLflow's active experiment.
        """
        with self._lock:
            if self._is_creation_over:
                # MLflow did not create the runs that are not known.
                self._expected_runs = len(self._created_ids)
            self._expected_runs += 1
            self._expected_experiment_ids.add(experiment_id)
            self._expected_at = time.monotonic()
        self._has_new_requests.set()
        self.start(link)
        lease = Lease.start(self.process_token)
        return {tags.PROCESS_TOKEN: self.process_token, tags.LEASE: str(lease)}

    def notify_request(self) -> None:
        """Note that a thread of this process sends a request to MLflow."""
        if self._thread is not None and get_ident() != self._thread.ident:
            self._has_new_requests.set()

    def stop(self) -> None:
        """Mirror for a few seconds more, then end the thread; unfinished runs stay pending."""
        if not self.is_running or self._pid != os.getpid():
            return
        self._stop_requested.set()
        if not self._stopped.wait(_EXIT_TIMEOUT_S):
            log.info("left runs pending count=%s", len(self._active_runs))

    def _run(self) -> None:
        rest_s = _TICK_S
        while not self._stopped.is_set():
            is_last = self._stop_requested.wait(rest_s)
            started = time.monotonic()
            if is_last or started >= self._paused_until:
                with delay_forks():
                    self._try_update_runs(is_last=is_last)
            if is_last:
                self._stopped.set()
            rest_s = max(_TICK_S, _REST_FACTOR * (time.monotonic() - started))
            rest_s = min(rest_s, _MAX_RETRY_S)

    def _try_update_runs(self, *, is_last: bool) -> None:
        try:
            self._update_runs(is_last=is_last)
            self._failures = 0
        except Exception as error:
            self._failures += 1
            pause_s = min(_MAX_RETRY_S, _FIRST_RETRY_S * 2 ** (self._failures - 1))
            self._paused_until = time.monotonic() + pause_s
            log.debug("failed to mirror", exc_info=error)
            if self._failures == 1:
                log.warning(
                    "runs are tracked, but not mirrored for now: %s; they stay pending, and "
                    "'dbx-aml mirror' mirrors them later",
                    one_line(error, 300),
                )

    def _update_runs(self, *, is_last: bool) -> None:
        has_new_requests = self._has_new_requests.is_set() or not self._observes_requests
        self._has_new_requests.clear()
        active_ids, ended_ids = _fluent_run_ids()
        self._finished_ids -= active_ids
        known_ids = self._finished_ids | self._untracked_ids | set(self._active_runs)
        new_ids = (active_ids | ended_ids) - known_ids
        if new_ids or self._active_runs or self._has_unknown_runs:
            run_mirror = self._current_run_mirror()
            if run_mirror is None:
                return
            for run_id in new_ids:
                self._active_runs[run_id] = ActiveRun(run_mirror, run_id)
            if self._has_unknown_runs and (has_new_requests or is_last):
                self._search_runs(run_mirror)
            self._observes_requests = run_mirror.source.is_remote
        permanent_error: Exception | None = None
        for run_id, active_run in list(self._active_runs.items()):
            if has_new_requests or run_id not in active_ids:
                active_run.notify()
            try:
                if active_run.needs_update or is_last:
                    active_run.update(is_active=run_id in active_ids)
            except Exception as error:
                if is_retryable(error):
                    raise
                permanent_error = error
            if active_run.process_token == self.process_token:
                self._created_ids.add(run_id)
            if active_run.is_finished or active_run.is_untracked:
                del self._active_runs[run_id]
                skipped = self._finished_ids if active_run.is_finished else self._untracked_ids
                skipped.add(run_id)
        if permanent_error is not None:
            raise permanent_error

    @property
    def _has_unknown_runs(self) -> bool:
        """Whether runs may have been created and ended between two updates."""
        if self._is_creation_over:
            return False
        new_runs = [run for run in self._active_runs.values() if run.process_token is None]
        return self._expected_runs > len(self._created_ids) + len(new_runs)

    @property
    def _is_creation_over(self) -> bool:
        return time.monotonic() - self._expected_at > _CREATION_TIMEOUT_S

    def _current_run_mirror(self) -> RunMirror | None:
        if self._run_mirror is None and self._link is not None:
            self._run_mirror = RunMirror(*servers_of_link(self._link), nonce=self.process_token)
        return self._run_mirror

    def _search_runs(self, run_mirror: RunMirror) -> None:
        """Find runs of this process that are not in MLflow's memory any more."""
        candidates = {active_run.experiment_id for active_run in self._active_runs.values()}
        candidates |= self._expected_experiment_ids
        candidates |= {fluent._active_experiment_id, os.environ.get("MLFLOW_EXPERIMENT_ID")}
        experiment_ids = sorted(candidate for candidate in candidates if candidate)
        if not experiment_ids:
            return
        filter_string = (
            f"tags.`{tags.PROCESS_TOKEN}` = '{self.process_token}' "
            f"and tags.`{tags.STATUS}` = '{tags.PENDING}'"
        )
        for run in run_mirror.source.search_runs(experiment_ids, filter_string):
            run_id = run.info.run_id
            if run_id not in self._active_runs and run_id not in self._finished_ids:
                self._active_runs[run_id] = ActiveRun(run_mirror, run_id)


def _fluent_run_ids() -> tuple[set[str], set[str]]:
    """Return the ids of the runs active in any thread, and of the last ended run of each thread."""
    stacks = fluent._active_run_stack.get_all_thread_values().values()
    last_ids = fluent._last_active_run_id.get_all_thread_values().values()
    active_ids = {run.info.run_id for stack in list(stacks) for run in list(stack)}
    return active_ids, {run_id for run_id in last_ids if run_id} - active_ids
