"""A request to stop at the next good moment: Ctrl-C, or SIGTERM, which a cancelled job gets."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dbx_aml._common.log import get_logger

log = get_logger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """A flag that a signal sets, and that a loop reads."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def is_requested(self) -> bool:
        """Whether the request was made."""
        return self._event.is_set()

    def make(self) -> None:
        """Make the request."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the request, at most so long; return whether it was made."""
        return self._event.wait(seconds)


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Yield a request that the first of these signals makes; a second signal acts as always.

    Python delivers signals to the main thread only. In another thread they act as always.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    old_handlers = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)

    def request_stop(number: int, frame: FrameType | None) -> None:
        request.make()
        restore()
        log.warning("stopping after this batch: got %s", signal.Signals(number).name)

    for number in _SIGNALS:
        signal.signal(number, request_stop)
    try:
        yield request
    finally:
        restore()
