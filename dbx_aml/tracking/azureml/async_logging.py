"""Background logging: many small calls of a training loop become few large requests.

One thread takes everything that waits for a run and sends it in one request, in order.
azureml-mlflow's own background logging sends each value before it returns. MLflow's queue keeps the
order only with `MLFLOW_ASYNC_LOGGING_THREADPOOL_SIZE=1` and a buffer, which are variables of the
whole process. It was tried with them (MLflow 3.15): one refused value also discards the up to 999
values that were merged with it, and in a forked process the queue sends nothing and its flush does
not return.
"""

import atexit
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any

from mlflow.exceptions import RestException
from mlflow.utils.async_logging.run_operations import RunOperations

from dbx_aml._common.fork_gate import delay_forks
from dbx_aml._common.log import get_logger

log = get_logger(__name__)
LogBatch = Callable[[str, list[Any], list[Any], list[Any]], None]
_MAX_VALUES_PER_REQUEST = 1000


@dataclass(frozen=True, kw_only=True)
class _Item:
    """Values of one logging call, and the future that its caller waits for."""

    run_id: str
    metrics: Sequence[Any]
    params: Sequence[Any]
    tags: Sequence[Any]
    future: "Future[None]"

    def __len__(self) -> int:
        return len(self.metrics) + len(self.params) + len(self.tags)


class AsyncLoggingQueue:
    """A queue of logging calls, with the methods that MLflow's stores call on their queue.

    Args:
        log_batch: Function that sends metrics, parameters and tags of a run.
    """

    def __init__(self, log_batch: LogBatch) -> None:
        self._log_batch = log_batch
        self._changed = Condition()
        self._items: list[_Item] = []
        self._is_sending = False
        self._pid = 0
        self._has_thread = False

    def log_batch_async(
        self, run_id: str, params: Sequence[Any], tags: Sequence[Any], metrics: Sequence[Any]
    ) -> RunOperations:
        """Queue a batch and return at once."""
        future: Future[None] = Future()
        item = _Item(run_id=run_id, metrics=metrics, params=params, tags=tags, future=future)
        with self._changed:
            if self._pid != os.getpid():
                # The first call, or a forked process, which does not have its parent's thread.
                self._pid, self._items, self._is_sending = os.getpid(), [], False
                self._has_thread = self._start_thread()
            if self._has_thread:
                self._items.append(item)
                self._changed.notify_all()
        if not self._has_thread:
            # The interpreter is ending.
            self._send([item])
        return RunOperations(operation_futures=[future])

    def flush(self) -> None:
        """Wait until every queued batch was sent or refused."""
        with self._changed:
            if self._pid == os.getpid():
                self._changed.wait_for(lambda: not self._items and not self._is_sending)

    def end_async_logging(self) -> None:
        """Wait as `flush` does; the queue stays usable."""
        self.flush()

    def shut_down_async_logging(self) -> None:
        """Wait as `flush` does; the queue stays usable."""
        self.flush()

    def activate(self) -> None:
        """Do nothing: the thread starts with the first batch."""

    def is_active(self) -> bool:
        """Return True: the queue accepts batches at any time."""
        return True

    def is_idle(self) -> bool:
        """Tell whether every batch was sent or refused."""
        with self._changed:
            return not self._items and not self._is_sending

    def _start_thread(self) -> bool:
        """Start the thread that sends; return False where no thread can start any more."""
        try:
            Thread(target=self._send_items, name="dbx-aml-async-log", daemon=True).start()
        except RuntimeError:
            return False
        atexit.register(self.flush)
        return True

    def _send_items(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._items))
                batch = self._pop_batch()
                self._is_sending = True
            with delay_forks():
                self._send(batch)

    def _send(self, batch: list[_Item]) -> None:
        """Send items; tell their callers the result."""
        errors = self._send_batch(batch)
        with self._changed:
            self._is_sending = False
            self._changed.notify_all()
        for item, error in zip(batch, errors, strict=True):
            if error is None:
                item.future.set_result(None)
            else:
                item.future.set_exception(error)

    def _pop_batch(self) -> list[_Item]:
        """Return the first items of the queue, as far as they are of one run and fit."""
        size = count = 0
        for item in self._items:
            is_full = count and size + len(item) > _MAX_VALUES_PER_REQUEST
            if item.run_id != self._items[0].run_id or is_full:
                break
            size += len(item)
            count += 1
        batch, self._items = self._items[:count], self._items[count:]
        return batch

    def _send_batch(self, batch: list[_Item]) -> list[Exception | None]:
        """Send items in one request; if Azure ML refuses it, send each item by itself."""
        error = self._send_request(batch)
        if isinstance(error, RestException) and len(batch) > 1:
            return [self._send_request([item]) for item in batch]
        return [error] * len(batch)

    def _send_request(self, batch: list[_Item]) -> Exception | None:
        run_id = batch[0].run_id
        try:
            self._log_batch(
                run_id,
                [metric for item in batch for metric in item.metrics],
                [param for item in batch for param in item.params],
                [tag for item in batch for tag in item.tags],
            )
        except Exception as error:  # noqa: BLE001 - the caller's future raises it
            log.error("failed to log in the background run=%s: %s", run_id, error)
            return error
        return None
