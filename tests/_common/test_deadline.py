"""Calls and waits that end in time."""

import threading

import pytest

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
