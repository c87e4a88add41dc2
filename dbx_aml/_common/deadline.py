"""Calls and waits that end in time."""

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from dbx_aml._common.fork_gate import (
    REQUEST_TIMEOUT_S,
    allow_forks,
    delay_forks,
    is_background,
)

Result = TypeVar("Result")


class BackgroundFuture(Future[Result]):
    """The future of a call in another thread; the process may fork while a caller waits for it."""

    def result(self, timeout: float | None = None) -> Result:
        """Return the result, as of any future."""
        with allow_forks():
            return super().result(timeout)


_end: ContextVar[float] = ContextVar("end", default=math.inf)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let all calls and retries of a block end together, whatever each of them may take alone.

    Args:
        seconds: Longest time for the block. A limit around the block counts too.
    """
    token = _end.set(min(_end.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _end.reset(token)


def seconds_left() -> float:
    """Return the seconds until the time limit around the caller; infinity without one."""
    return _end.get() - time.monotonic()


def call_within(call: Callable[[], Result], seconds: float) -> Result:
    """Return the result of a call, or stop waiting for it; a time limit around it counts too.

    The timeouts of HTTP clients count from each packet, and the look-up of a host's name has no
    timeout: only a thread bounds the whole call. A call that hangs stays in its thread, which ends
    with the process.

    Args:
        call: Function without arguments.
        seconds: Longest time to wait.

    Raises:
        TimeoutError: The call has not returned within these seconds.
    """
    seconds = max(0.0, min(seconds, seconds_left()))
    context = copy_context()
    future = start_in_thread(lambda: context.run(call))
    try:
        return future.result(seconds)
    except FutureTimeoutError:
        if future.done():
            # The call itself raised this TimeoutError.
            raise
    raise TimeoutError(f"no answer in {seconds:.1f} s")


def start_in_thread(call: Callable[[], Result]) -> Future[Result]:
    """Start a call in a thread that ends with the process; return the future of its result.

    Args:
        call: Function without arguments.
    """
    future: Future[Result] = BackgroundFuture()
    run_in_background(lambda: set_result(future, call))
    return future


def set_result(future: Future[Any], call: Callable[[], Any]) -> None:
    """Make a call; give its result or its error to a future."""
    try:
        result = call()
    except BaseException as err:  # noqa: BLE001 - raised by future.result()
        future.set_exception(err)
    else:
        future.set_result(result)


def run_in_background(call: Callable[[], None]) -> None:
    """Start a call in a thread without waiting for it.

    While the interpreter ends, no thread can start: the call then runs here, so that the last
    metrics of a program are not lost. A call of a thread that delays forks delays them too.

    Args:
        call: Function without arguments.
    """

    def call_behind_gate() -> None:
        with delay_forks(REQUEST_TIMEOUT_S):
            call()

    target = call_behind_gate if is_background() else call
    try:
        worker = _idle_workers.pop()
    except IndexError:
        worker = _Worker()
        try:
            Thread(target=worker.run, name="dbx-aml", daemon=True).start()
        except RuntimeError:
            call()
            return
    worker.calls.put(target)


class _Worker:
    """A thread that makes one call after another: starting a thread takes as long as a request."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def run(self) -> None:
        """Make the calls of the queue; end where enough other threads are idle."""
        while True:
            # Without the context of an earlier call.
            Context().run(self.calls.get())
            if len(_idle_workers) >= _MAX_IDLE_WORKERS:
                return
            _idle_workers.append(self)


_MAX_IDLE_WORKERS = 8
_idle_workers: list[_Worker] = []
# A forked process has none of the threads.
os.register_at_fork(after_in_child=_idle_workers.clear)


def poll_until(
    condition: Callable[[], Result],
    timeout_s: float,
    interval_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Call a condition again and again until it is true; return its last value.

    The condition is called at least once, and once more at the end of the time. If the value that
    comes back is false, the time is over.

    Args:
        condition: Function without arguments; its result counts as true or false.
        timeout_s: Longest time to wait between the first call and the last.
        interval_s: Time between two calls.
        clock: Clock in seconds that only goes forward.
        sleep: Function that waits for a number of seconds.
    """
    end = clock() + timeout_s
    while True:
        value = condition()
        seconds_left = end - clock()
        if value or seconds_left <= 0:
            return value
        sleep(min(interval_s, seconds_left))
