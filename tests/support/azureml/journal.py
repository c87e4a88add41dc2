"""What clients asked, for tests to look at: no body, no header that could hold a token."""

from dataclasses import asdict, dataclass
from threading import Lock


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One request and what became of it.

    Args:
        method: In capitals.
        host: Host name.
        path: Path without query: the query of a blob holds its signature.
        status: Status answered; 0 where the connection was closed without an answer.
        seconds: From the last byte of the request to the first of the answer.
        user_agent: Who the client says it is.
        fault: Kind of the fault that hit it, or empty.
    """

    method: str
    host: str
    path: str
    status: int
    seconds: float
    user_agent: str
    fault: str = ""


class Journal:
    """Requests in the order of their answers."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Keep one more."""
        with self._lock:
            self._entries.append(entry)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()

    def as_json(self) -> list[dict[str, object]]:
        """All entries, oldest first."""
        with self._lock:
            return [asdict(entry) for entry in self._entries]
