"""The requests that clients made, for tests to check: without bodies and without tokens."""

from dataclasses import asdict, dataclass
from threading import Lock
from time import monotonic


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A request and its result.

    Args:
        method: HTTP method in capitals.
        host: Host name.
        path: Path without query, because the query of a blob holds its signature.
        status: Status of the response; 0 if the connection was closed without a response.
        seconds: Time from the last byte of the request to the first byte of the response.
        fault: Kind of the fault that hit the request, or empty.
    """

    method: str
    host: str
    path: str
    status: int
    seconds: float
    fault: str = ""


class Journal:
    """Requests in the order of their responses."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: list[Entry] = []
        self._clear_time = monotonic()

    def add(self, entry: Entry) -> None:
        """Append an entry, unless its request came before the journal was cleared.

        A request that a black hole holds ends only after its test.
        """
        with self._lock:
            if monotonic() - entry.seconds >= self._clear_time:
                self._entries.append(entry)

    def clear(self) -> None:
        """Delete all entries."""
        with self._lock:
            self._entries.clear()
            self._clear_time = monotonic()

    def to_dicts(self) -> list[dict[str, object]]:
        """Return all entries as dictionaries, oldest first."""
        with self._lock:
            return [asdict(entry) for entry in self._entries]
