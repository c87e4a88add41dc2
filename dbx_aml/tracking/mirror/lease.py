"""A lock on a source run, kept in a tag, so that two processes never mirror the run at once.

The tag names the holder and the end of the lease; the holder renews it. MLflow has no call that
compares a tag before setting it, so two processes may both believe for a moment that they hold a
run. Both write the same content, and the next read of the tag leaves the run to one of them.
Clocks of two machines differ. A lease therefore also counts as expired when its tag has not
changed for `LEASE_S` seconds of the observer's own clock.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from secrets import token_hex
from threading import Lock, Thread

from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from dbx_aml._common.fork_gate import delay_forks
from dbx_aml._common.log import get_logger
from dbx_aml._common.programs import is_process_running
from dbx_aml._common.text import parse_count
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.server import MlflowServer

log = get_logger(__name__)
LEASE_S = 60.0
RELEASED = "free"
_RENEW_S = LEASE_S / 3
# Limits of Linux for process ids, and of times with ten digits.
_MAX_PID = 2**22
_LAST_SECOND = 9_999_999_999


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The process that mirrors a run, and the end of its lease by its own clock.

    Args:
        host: Name of the machine.
        pid: Process id on that machine.
        nonce: Random text that tells two leases of one process apart.
        until: Seconds since 1970.
    """

    host: str
    pid: int
    nonce: str
    until: float

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.nonce} {self.until:.0f}"

    @classmethod
    def start(cls, nonce: str) -> Lease:
        """Return a lease of this process that starts now."""
        until = time.time() + LEASE_S
        return cls(host=socket.gethostname(), pid=os.getpid(), nonce=nonce, until=until)

    @property
    def holder(self) -> str:
        """Name of the process for people."""
        return f"process {self.pid} on {self.host}"

    @classmethod
    def parse(cls, text: str | None) -> Lease | None:
        """Return the lease that a tag describes; None for no tag or a released lease."""
        holder, _, until_text = (text or "").rpartition(" ")
        fields = holder.rsplit("/", 2)
        try:
            host, pid_text, nonce = fields
            pid, until = parse_count(pid_text, _MAX_PID), parse_count(until_text, _LAST_SECOND)
        except ValueError:
            return None
        return cls(host=host, pid=pid, nonce=nonce, until=float(until))

    @property
    def is_expired(self) -> bool:
        """Whether the lease has ended, or its process on this machine no longer runs."""
        if self.until < time.time():
            return True
        return self.host == socket.gethostname() and not is_process_running(self.pid)


class Leases:
    """The leases that this process holds on runs of one source.

    Args:
        source: Server of the runs.
        nonce: Random text of these leases; by default a new one.
    """

    def __init__(self, source: MlflowServer, nonce: str | None = None) -> None:
        self._source = source
        self._nonce = nonce or token_hex(8)
        self._lock = Lock()
        self._held_run_ids: set[str] = set()
        self._abandoned_run_ids: set[str] = set()
        # By run id, the lease tag of another process and the time at which it was first read.
        self._observed_leases: dict[str, tuple[str, float]] = {}
        self._is_renewing = False

    def acquire(self, run_id: str) -> bool:
        """Set the lease tag of a run, unless another process holds the run.

        Call `confirm` before the first write.

        Returns:
            Whether the tag was set.
        """
        text = self._source.get_run(run_id).data.tags.get(tags.LEASE)
        lease = Lease.parse(text)
        if lease is not None and lease.nonce != self._nonce:
            if not lease.is_expired and not self._is_stale(run_id, str(text)):
                return False
            self._abandoned_run_ids.add(run_id)
        self._source.store.set_tag(run_id, self._lease_tag())
        with self._lock:
            self._held_run_ids.add(run_id)
            is_first, self._is_renewing = not self._is_renewing, True
        if is_first:
            self._start_renewing()
        return True

    def confirm(self, run_id: str) -> Run | None:
        """Return a run as the source has it now; None where another process set the tag since.

        Of two processes that acquire at the same moment, the later keeps the run. The result is
        the safer the longer ago `acquire` was, so callers do their look-ups between the two.
        """
        run = self._source.get_run(run_id)
        if self.has_lease(run):
            return run
        with self._lock:
            self._held_run_ids.discard(run_id)
        return None

    def is_abandoned(self, run_id: str) -> bool:
        """Tell whether the process that held the run before this process no longer runs."""
        return run_id in self._abandoned_run_ids

    def has_lease(self, run: Run) -> bool:
        """Tell whether the lease tag of a run that was just read is ours."""
        lease = Lease.parse(run.data.tags.get(tags.LEASE))
        return lease is not None and lease.nonce == self._nonce

    def release(self, run_id: str) -> RunTag:
        """Stop renewing a lease; return the tag that ends it, for the caller to set."""
        with self._lock:
            self._held_run_ids.discard(run_id)
        return RunTag(tags.LEASE, RELEASED)

    def _is_stale(self, run_id: str, text: str) -> bool:
        current_time = time.monotonic()
        with self._lock:
            previous_text, since = self._observed_leases.get(run_id, ("", current_time))
            if previous_text != text:
                since = current_time
            self._observed_leases[run_id] = (text, since)
        return current_time - since > LEASE_S

    def _lease_tag(self) -> RunTag:
        return RunTag(tags.LEASE, str(Lease.start(self._nonce)))

    def _start_renewing(self) -> None:
        try:
            Thread(target=self._renew, name="dbx-aml-mirror-lease", daemon=True).start()
        except RuntimeError:
            # The interpreter is ending, and the leases end with it.
            self._is_renewing = False

    def _renew(self) -> None:
        while True:
            time.sleep(_RENEW_S)
            with self._lock:
                run_ids = set(self._held_run_ids)
                if not run_ids:
                    self._is_renewing = False
                    return
            for run_id in run_ids:
                with delay_forks():
                    self._renew_lease(run_id)

    def _renew_lease(self, run_id: str) -> None:
        try:
            if self.has_lease(self._source.get_run(run_id)):
                with self._lock:
                    if run_id in self._held_run_ids:
                        self._source.store.set_tag(run_id, self._lease_tag())
                return
        except MlflowException as error:
            log.debug("failed to renew a lease run=%s: %s", run_id, error)
            return
        with self._lock:
            self._held_run_ids.discard(run_id)
