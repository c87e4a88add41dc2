"""The queue of background logging."""

import threading

import pytest
from mlflow.exceptions import MlflowException, RestException

from dbx_aml.tracking.azureml.async_logging import AsyncLoggingQueue


def test_queued_values_are_sent_together_and_in_order() -> None:
    batches: list[list[int]] = []
    is_queue_filled = threading.Event()

    def log_batch(run_id: str, metrics: list[int], params: list[int], tags: list[int]) -> None:
        assert is_queue_filled.wait(30)
        batches.append(metrics)

    queue = AsyncLoggingQueue(log_batch)
    operations = [queue.log_batch_async("r", [], [], [number]) for number in range(2_500)]
    # The loop above ends although no request has been sent.
    assert batches == []
    is_queue_filled.set()
    queue.flush()

    assert [value for batch in batches for value in batch] == list(range(2_500))
    assert len(batches) <= 5
    operations[-1].wait()


def test_a_refused_value_does_not_discard_the_values_of_the_same_request() -> None:
    sent: list[str] = []
    is_queue_filled = threading.Event()

    def log_batch(run_id: str, metrics: list[str], params: list[str], tags: list[str]) -> None:
        assert is_queue_filled.wait(30)
        if "bad" in params:
            raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"})
        sent.extend(params)

    queue = AsyncLoggingQueue(log_batch)
    queue.log_batch_async("r", ["zero"], [], [])
    bad = queue.log_batch_async("r", ["bad"], [], [])
    good = queue.log_batch_async("r", ["good"], [], [])
    is_queue_filled.set()
    queue.flush()

    assert sent == ["zero", "good"]
    good.wait()
    with pytest.raises(MlflowException, match="INVALID_PARAMETER_VALUE: no"):
        bad.wait()


def test_where_no_thread_can_start_values_are_sent_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    sent: list[int] = []
    queue = AsyncLoggingQueue(lambda _run, metrics, _params, _tags: sent.extend(metrics))
    for number in range(3):
        queue.log_batch_async("r", [], [], [number]).wait()
    queue.flush()
    assert sent == [0, 1, 2]
