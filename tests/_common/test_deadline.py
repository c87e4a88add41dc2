"""Calls and waits that end in time."""

import os
import threading
from contextvars import ContextVar

import pytest

from dbx_aml._common import deadline
from dbx_aml._common.deadline import (
    call_within,
    poll_until,
    seconds_left,
    start_in_thread,
    time_limit,
)
from tests.support.clock import FakeClock


def test_a_call_is_left_at_its_deadline() -> None:
    released = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.1 s"):
        call_within(lambda: released.wait(30), 0.1)
    released.set()


def test_a_call_in_time_returns_its_result_or_raises_its_own_error() -> None:
    assert call_within(lambda: 7, 5) == 7
    with pytest.raises(ZeroDivisionError):
        call_within(lambda: 1 / 0, 5)
    with pytest.raises(TimeoutError, match="of the call"):
        call_within(_raise_timeout, 5)


def _raise_timeout() -> None:
    raise TimeoutError("of the call")


def test_where_no_thread_can_start_the_call_runs_in_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As at the end of the interpreter, when MLflow sends its last requests."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(deadline, "_idle_workers", [])
    assert call_within(threading.get_ident, 5) == threading.get_ident()


def test_all_calls_of_a_block_share_its_time_limit() -> None:
    assert seconds_left() == float("inf")
    released = threading.Event()
    with time_limit(0.2):
        with time_limit(60):
            # Also the thread of the call knows the limit.
            assert 0 < call_within(seconds_left, 5) <= 0.2
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"no answer in 0\.\d s"):
                call_within(lambda: released.wait(30), 5)
    released.set()
    assert seconds_left() == float("inf")


def test_a_started_call_is_a_future() -> None:
    assert start_in_thread(lambda: "done").result(5) == "done"


def test_polling_ends_with_the_first_true_value() -> None:
    clock = FakeClock()
    values = iter([None, None, "running"])
    found = poll_until(lambda: next(values), 60, 5, clock=clock, sleep=clock.sleep)
    assert found == "running"
    assert clock.sleeps == [5, 5]


def test_polling_asks_once_more_at_the_end_and_returns_the_last_false_value() -> None:
    clock = FakeClock()
    times: list[float] = []
    found = poll_until(
        lambda: times.append(clock.now_s - 1000), 12, 5, clock=clock, sleep=clock.sleep
    )
    assert found is None
    assert times == [0, 5, 10, 12]


def test_calls_one_after_another_share_threads_and_no_context() -> None:
    name: ContextVar[str] = ContextVar("name", default="none")

    def call() -> tuple[int, str]:
        old = name.get()
        name.set("set by a call")
        return threading.get_ident(), old

    results = [start_in_thread(call).result() for _ in range(50)]

    assert len({ident for ident, _ in results}) < 10
    assert {old for _, old in results} == {"none"}


def test_a_call_that_hangs_keeps_no_other_call_waiting() -> None:
    is_over = threading.Event()
    hanging = [start_in_thread(is_over.wait) for _ in range(20)]

    assert call_within(lambda: "done", 5.0) == "done"

    is_over.set()
    assert [future.result(5.0) for future in hanging] == [True] * 20


def test_a_forked_process_has_threads_of_its_own() -> None:
    call_within(lambda: None, 5.0)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, call_within(lambda: b"done", 5.0))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == b"done"
    assert os.waitpid(child, 0)[1] == 0
