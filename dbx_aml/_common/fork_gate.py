"""A gate that lets a process fork only while its background threads are between two requests.

A forked process has a copy of each lock, but only the thread that forked. A lock that another
thread held at that moment, for example the lock of an import, is never released in the child.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Condition, get_ident

# A request that takes longer waits for the network, where its thread holds no lock.
REQUEST_TIMEOUT_S = 2.0
_BLOCK_TIMEOUT_S = 10.0
_is_background: ContextVar[bool] = ContextVar("is_background", default=False)


class _Gate:
    """The threads that a fork waits for, and the forks that threads wait for."""

    def __init__(self) -> None:
        self.changed = Condition()
        # By thread, the time until which a fork waits for it.
        self.ends: dict[int, float] = {}
        self.forks = 0

    def enter(self, timeout_s: float) -> None:
        """Wait for a fork that goes on; let later forks wait for this thread."""
        with self.changed:
            self.changed.wait_for(lambda: not self.forks)
            self.ends[get_ident()] = time.monotonic() + timeout_s

    def leave(self) -> None:
        """Let forks wait for this thread no longer."""
        with self.changed:
            self.ends.pop(get_ident(), None)
            self.changed.notify_all()

    def close(self) -> None:
        """Wait for the threads, and let no other thread enter."""
        with self.changed:
            self.forks += 1
            while ends := [end for ident, end in self.ends.items() if ident != get_ident()]:
                seconds = max(ends) - time.monotonic()
                if seconds <= 0:
                    return
                self.changed.wait(seconds)

    def open(self) -> None:
        """Let the threads enter again."""
        with self.changed:
            self.forks -= 1
            self.changed.notify_all()


_gate = _Gate()


def _renew_gate() -> None:
    """Forget the parent's threads: none of them runs in the forked process."""
    global _gate
    _gate = _Gate()


os.register_at_fork(
    before=lambda: _gate.close(),
    after_in_parent=lambda: _gate.open(),
    after_in_child=_renew_gate,
)


def is_background() -> bool:
    """Tell whether a block of `delay_forks` made or started this call."""
    return _is_background.get()


@contextmanager
def delay_forks(timeout_s: float = _BLOCK_TIMEOUT_S) -> Iterator[None]:
    """Let the process fork only after this block, or while the block waits for a request.

    Args:
        timeout_s: Longest time that a fork waits.
    """
    token = _is_background.set(True)
    _gate.enter(timeout_s)
    try:
        yield
    finally:
        _gate.leave()
        _is_background.reset(token)


@contextmanager
def allow_forks() -> Iterator[None]:
    """Let the process fork while this block waits, for example for the thread of a request."""
    if not is_background():
        yield
        return
    _gate.leave()
    try:
        yield
    finally:
        _gate.enter(_BLOCK_TIMEOUT_S)
