"""Logging in the background: many small calls of a training loop become few large ones.

MLflow's own queue sends each value alone, by ten threads, so their order is lost; azureml-mlflow
posts before it returns, which is what the caller wanted to avoid. Here one thread takes whatever
is waiting for a run and sends it together, in order.
"""

import atexit
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any

from mlflow.exceptions import RestException
from mlflow.utils.async_logging.run_operations import RunOperations

log = logging.getLogger(__name__)
LogBatch = Callable[[str, list[Any], list[Any], list[Any]], None]
_MOST = 1000


@dataclass(frozen=True, kw_only=True)
class _Item:
    run_id: str
    metrics: Sequence[Any]
    params: Sequence[Any]
    tags: Sequence[Any]
    future: "Future[None]"

    def __len__(self) -> int:
        return len(self.metrics) + len(self.params) + len(self.tags)


class AsyncLog:
    """A queue of what is to be logged, with the methods that MLflow's stores call on theirs.

    Args:
        log_batch: Sends metrics, params and tags of a run.
    """

    def __init__(self, log_batch: LogBatch) -> None:
        self._log_batch = log_batch
        self._changed = Condition()
        self._items: list[_Item] = []
        self._busy = False
        self._pid = 0

    def log_batch_async(
        self, run_id: str, params: Sequence[Any], tags: Sequence[Any], metrics: Sequence[Any]
    ) -> RunOperations:
        """Take a batch and return at once."""
        future: Future[None] = Future()
        item = _Item(run_id=run_id, metrics=metrics, params=params, tags=tags, future=future)
        with self._changed:
            if self._pid != os.getpid():
                # The first call, or a child process, which has no thread of its parent's.
                self._pid, self._items, self._busy = os.getpid(), [], False
                Thread(target=self._work, name="dbx-aml-async-log", daemon=True).start()
                atexit.register(self.flush)
            self._items.append(item)
            self._changed.notify_all()
        return RunOperations(operation_futures=[future])

    def flush(self) -> None:
        """Wait until everything taken so far was sent, or refused."""
        with self._changed:
            if self._pid == os.getpid():
                self._changed.wait_for(lambda: not self._items and not self._busy)

    def end_async_logging(self) -> None:
        """Wait as `flush` does; the queue stays usable."""
        self.flush()

    def shut_down_async_logging(self) -> None:
        """Wait as `flush` does; the queue stays usable."""
        self.flush()

    def activate(self) -> None:
        """Do nothing: the thread starts with the first batch."""

    def is_active(self) -> bool:
        """Tell whether it takes batches: always."""
        return True

    def is_idle(self) -> bool:
        """Tell whether a flush has nothing to do."""
        with self._changed:
            return not self._items and not self._busy

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._items))
                batch = self._next_batch()
                self._busy = True
            errors = self._send_each(batch)
            with self._changed:
                self._busy = False
                self._changed.notify_all()
            for item, error in zip(batch, errors, strict=True):
                if error is None:
                    item.future.set_result(None)
                else:
                    item.future.set_exception(error)

    def _next_batch(self) -> list[_Item]:
        """Take what waits for the run that is first in line, as far as it is first in line."""
        size = count = 0
        for item in self._items:
            if item.run_id != self._items[0].run_id or (count and size + len(item) > _MOST):
                break
            size += len(item)
            count += 1
        batch, self._items = self._items[:count], self._items[count:]
        return batch

    def _send_each(self, batch: list[_Item]) -> list[Exception | None]:
        """Send a batch together; where it is refused, one by one, for one may spoil the rest."""
        error = self._send(batch)
        if isinstance(error, RestException) and len(batch) > 1:
            return [self._send([item]) for item in batch]
        return [error] * len(batch)

    def _send(self, batch: list[_Item]) -> Exception | None:
        run_id = batch[0].run_id
        try:
            self._log_batch(
                run_id,
                [metric for item in batch for metric in item.metrics],
                [param for item in batch for param in item.params],
                [tag for item in batch for tag in item.tags],
            )
        except Exception as error:  # noqa: BLE001 - whoever waits for the future gets it
            log.error("failed to log in the background run=%s: %s", run_id, error)
            return error
        return None
