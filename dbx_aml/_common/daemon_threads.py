"""A pool of threads that end with the process, and that does its work also at the process's end.

Python waits for the threads of its `ThreadPoolExecutor` before it ends, without a limit, and the
executor accepts no call after the last line of the main thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for_futures
from contextvars import copy_context
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from dbx_aml._common.deadline import BackgroundFuture, run_in_background, set_result

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class DaemonThreadPool(Executor):
    """An executor whose threads are daemons; where no thread can start, the caller does the work.

    Args:
        max_workers: Largest number of calls at the same time.
    """

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._lock = Lock()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._workers = 0
        self._futures: set[Future[Any]] = set()

    def submit(
        self,
        fn: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Result]:
        """Start a call in a thread of the pool; return the future of its result."""
        future: Future[Result] = BackgroundFuture()
        context = copy_context()
        with self._lock:
            self._calls.append((future, lambda: context.run(fn, *args, **kwargs)))
            self._futures.add(future)
            is_full = self._workers == self._max_workers
            self._workers += not is_full
        if not is_full:
            run_in_background(self._work)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the calls; the pool stays usable.

        Args:
            wait: Whether to wait.
            cancel_futures: Whether to forget the calls that have not started.
        """
        with self._lock:
            if cancel_futures:
                for future, _ in self._calls:
                    future.cancel()
            futures = list(self._futures)
        if wait:
            wait_for_futures(futures)

    def _work(self) -> None:
        """Do calls until none is left."""
        while True:
            with self._lock:
                if not self._calls:
                    self._workers -= 1
                    return
                future, call = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                set_result(future, call)
            with self._lock:
                self._futures.discard(future)
