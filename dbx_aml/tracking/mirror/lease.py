"""One writer for a run at a time, as far as tags can say so.

A tag of the source names who is at work and until when; who is, renews it. MLflow has no call that
compares before it sets, so two may both believe for a moment that a run is theirs: what they write
is the same, and the next look at the tag leaves it to one. Nor do two machines have one clock, so
a lease is dead, too, once it was seen unchanged for as long as it is good for.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from dataclasses import dataclass
from secrets import token_hex
from threading import Lock, Thread

from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.server import Side

log = logging.getLogger(__name__)
LEASE_S = 60.0
FREE = "free"
_RENEW_S = LEASE_S / 3


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Who is at work on a run, and until when by their clock.

    Args:
        host: Name of the machine.
        pid: Process there.
        nonce: Tells two leases of one process apart.
        until: Seconds since 1970.
    """

    host: str
    pid: int
    nonce: str
    until: float

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.nonce} {self.until:.0f}"

    @classmethod
    def of_this_process(cls, nonce: str) -> Lease:
        """Return a lease that is good from now on."""
        until = time.time() + LEASE_S
        return cls(host=socket.gethostname(), pid=os.getpid(), nonce=nonce, until=until)

    @property
    def holder(self) -> str:
        """Who it is, for people."""
        return f"process {self.pid} on {self.host}"

    @classmethod
    def parse(cls, text: str | None) -> Lease | None:
        """Return what a tag says; None where nobody is at work."""
        who, _, until = (text or "").rpartition(" ")
        parts = who.rsplit("/", 2)
        if len(parts) != 3 or not parts[1].isdigit() or not until.isdigit():
            return None
        return cls(host=parts[0], pid=int(parts[1]), nonce=parts[2], until=float(until))

    @property
    def is_dead(self) -> bool:
        """Whether its time is over, or its process is known to be gone."""
        if self.until < time.time():
            return True
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class Leases:
    """The leases of one process on runs of one source.

    Args:
        src: The source.
        nonce: What tells them from another one's.
    """

    def __init__(self, src: Side, nonce: str | None = None) -> None:
        self._src = src
        self._nonce = nonce or token_hex(8)
        self._lock = Lock()
        self._held: set[str] = set()
        self._abandoned: set[str] = set()
        # What others' tags said, and when that was first seen.
        self._seen: dict[str, tuple[str, float]] = {}
        self._is_renewing = False

    def claim(self, run_id: str) -> bool:
        """Ask for a run; tell whether nobody else is at work on it. `confirm` it before writing."""
        text = self._src.run(run_id).data.tags.get(tag.LEASE)
        lease = Lease.parse(text)
        if lease is not None and lease.nonce != self._nonce:
            if not lease.is_dead and not self._is_stale(run_id, str(text)):
                return False
            self._abandoned.add(run_id)
        self._src.store.set_tag(run_id, self._tag())
        with self._lock:
            self._held.add(run_id)
            is_first, self._is_renewing = not self._is_renewing, True
        if is_first:
            self._start_renewing()
        return True

    def confirm(self, run_id: str) -> Run | None:
        """Return a run as it is now; None where somebody asked for it after us.

        Of two that ask at the same moment the later one stays. The longer this is after `claim`,
        the surer: so whoever has something to look up does it in between.
        """
        run = self._src.run(run_id)
        if self.is_ours(run):
            return run
        with self._lock:
            self._held.discard(run_id)
        return None

    def is_abandoned(self, run_id: str) -> bool:
        """Tell whether whoever was at work on a run before is gone, and its program with it."""
        return run_id in self._abandoned

    def is_ours(self, run: Run) -> bool:
        """Tell whether a run, as it was just read, is still ours."""
        lease = Lease.parse(run.data.tags.get(tag.LEASE))
        return lease is not None and lease.nonce == self._nonce

    def let_go(self, run_id: str) -> RunTag:
        """Stop renewing a lease; return the tag that ends it, to be set with the others."""
        with self._lock:
            self._held.discard(run_id)
        return RunTag(tag.LEASE, FREE)

    def _is_stale(self, run_id: str, text: str) -> bool:
        now = time.monotonic()
        with self._lock:
            before, since = self._seen.get(run_id, ("", now))
            if before != text:
                since = now
            self._seen[run_id] = (text, since)
        return now - since > LEASE_S

    def _tag(self) -> RunTag:
        return RunTag(tag.LEASE, str(Lease.of_this_process(self._nonce)))

    def _start_renewing(self) -> None:
        try:
            Thread(target=self._renew, name="dbx-aml-mirror-lease", daemon=True).start()
        except RuntimeError:
            # The interpreter is ending: so is what we hold.
            self._is_renewing = False

    def _renew(self) -> None:
        while True:
            time.sleep(_RENEW_S)
            with self._lock:
                held = set(self._held)
                if not held:
                    self._is_renewing = False
                    return
            for run_id in held:
                try:
                    if self.is_ours(self._src.run(run_id)):
                        with self._lock:
                            if run_id in self._held:
                                self._src.store.set_tag(run_id, self._tag())
                        continue
                except MlflowException as error:
                    log.debug("failed to renew a lease run=%s: %s", run_id, error)
                    continue
                with self._lock:
                    self._held.discard(run_id)
