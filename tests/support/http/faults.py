"""Faults that a test switches on: an outage, a throttled service, a broken network.

A fault hits requests by host, method and path. It ends after a number of requests, after a time,
or at the next reset.
"""

import re
import time
from dataclasses import asdict, dataclass
from threading import Lock

KINDS = ("status", "delay", "black-hole", "drop", "lost-answer")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A failure of the service or of the network, and the requests that it hits.

    Args:
        kind: "status" responds with `status` and does nothing; "delay" waits `delay_s`, then works;
            "black-hole" never responds; "drop" does nothing and closes the connection;
            "lost-answer" does everything, then closes the connection without a response.
        host: Regular expression found in the host, for example "blob"; empty for all hosts.
        path: Regular expression found in the path, for example "runs/log-batch"; empty for all.
        method: Regular expression of the whole method, for example "PUT".
        skip: Number of matching requests that pass before the first hit.
        count: Number of requests to hit; None for no limit.
        for_s: Duration in seconds, None for an endless fault.
        status: Status of kind "status".
        retry_after_s: Retry-After of kind "status", in seconds.
        delay_s: Wait of kind "delay", in seconds.
    """

    kind: str
    host: str = ""
    path: str = ""
    method: str = ".*"
    skip: int = 0
    count: int | None = None
    for_s: float | None = None
    status: int = 503
    retry_after_s: int | None = None
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault kind must be one of {KINDS}: got {self.kind!r}")

    def matches(self, host: str, method: str, path: str) -> bool:
        """Tell whether host, method and path of a request match this fault."""
        return bool(
            re.search(self.host, host)
            and re.fullmatch(self.method, method)
            and re.search(self.path, path)
        )

    def to_dict(self) -> dict[str, object]:
        """Return the fields, as the admin port takes them."""
        return asdict(self)


class Faults:
    """The active faults, and how many requests each fault has matched."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._active: list[tuple[Fault, float]] = []
        self._match_counts: list[int] = []

    def add(self, fault: Fault) -> None:
        """Switch a fault on; of several faults that match a request the first counts."""
        end = float("inf") if fault.for_s is None else time.monotonic() + fault.for_s
        with self._lock:
            self._active.append((fault, end))
            self._match_counts.append(0)

    def clear(self) -> None:
        """Switch all faults off; requests in a black hole are released by the server."""
        with self._lock:
            self._active.clear()
            self._match_counts.clear()

    def next_fault(self, host: str, method: str, path: str) -> Fault | None:
        """Return the fault that hits this request, and count it; None without a fault."""
        now = time.monotonic()
        with self._lock:
            for index, (fault, end) in enumerate(self._active):
                if now >= end or not fault.matches(host, method, path):
                    continue
                self._match_counts[index] += 1
                hit = self._match_counts[index] - fault.skip
                if hit > 0 and (fault.count is None or hit <= fault.count):
                    return fault
        return None

    def fault_of_connection(self, host: str) -> Fault | None:
        """Return the fault that hits a new connection: a fault of a whole host, not of a path.

        The fault is not counted, because the requests behind it never arrive.
        """
        now = time.monotonic()
        with self._lock:
            for fault, end in self._active:
                whole_host = not (fault.path or fault.skip or fault.count) and fault.method == ".*"
                if (
                    fault.kind in ("black-hole", "drop")
                    and whole_host
                    and now < end
                    and re.search(fault.host, host)
                ):
                    return fault
        return None
