"""Faults that a test switches on: what an outage, a throttled or a broken network looks like.

A fault matches requests by host, method and path, and ends after a number of requests, after a
time, or at the next reset.
"""

import re
import time
from dataclasses import asdict, dataclass
from threading import Lock

KINDS = ("status", "delay", "black-hole", "drop", "lost-answer")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong, where, and for how long.

    Args:
        kind: "status" answers `status` and does nothing; "delay" waits `delay_s`, then works;
            "black-hole" never answers; "drop" closes the connection, nothing done; "lost-answer"
            does everything, then closes the connection without an answer.
        host: Regular expression found in the host, for example "blob"; all hosts without it.
        path: Regular expression found in the path, for example "runs/log-batch"; all without it.
        method: Regular expression of the whole method, for example "PUT".
        skip: How many requests that it would hit pass first.
        count: How many requests it hits then; None for all.
        for_s: Seconds that it lasts; None for no end.
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

    def hits(self, host: str, method: str, path: str) -> bool:
        """Tell whether this request is meant."""
        return bool(
            re.search(self.host, host)
            and re.fullmatch(self.method, method)
            and re.search(self.path, path)
        )

    def as_json(self) -> dict[str, object]:
        """The fields, as the admin port takes them."""
        return asdict(self)


class Faults:
    """The faults that are on, counted down by the requests they hit."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._active: list[tuple[Fault, float]] = []
        self._seen: list[int] = []

    def add(self, fault: Fault) -> None:
        """Switch a fault on; of several that match a request the first one counts."""
        end = float("inf") if fault.for_s is None else time.monotonic() + fault.for_s
        with self._lock:
            self._active.append((fault, end))
            self._seen.append(0)

    def clear(self) -> None:
        """Switch all off; requests in a black hole are dropped, see `Service`."""
        with self._lock:
            self._active.clear()
            self._seen.clear()

    def take(self, host: str, method: str, path: str) -> Fault | None:
        """Return the fault of this request and count it as used; None where nothing goes wrong."""
        now = time.monotonic()
        with self._lock:
            for index, (fault, end) in enumerate(self._active):
                if now >= end or not fault.hits(host, method, path):
                    continue
                self._seen[index] += 1
                hit = self._seen[index] - fault.skip
                if hit > 0 and (fault.count is None or hit <= fault.count):
                    return fault
        return None

    def on_connect(self, host: str) -> Fault | None:
        """Return the fault that already hits a new connection: one for a host, not for a path.

        It is not counted: the requests that never come cannot be.
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
