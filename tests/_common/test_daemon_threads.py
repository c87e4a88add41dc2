"""A pool of daemon threads: calls at the same time, and calls at the end of the process."""

import concurrent.futures.thread
import subprocess
import sys
import threading
from contextvars import ContextVar

import pytest

from dbx_aml._common import deadline
from dbx_aml._common.daemon_threads import DaemonThreadPool

USER: ContextVar[str] = ContextVar("user", default="nobody")


def test_calls_run_at_the_same_time_and_keep_their_order() -> None:
    all_started = threading.Barrier(3)

    def square(number: int) -> int:
        all_started.wait(30)
        return number * number

    with DaemonThreadPool(3) as pool:
        assert list(pool.map(square, range(6))) == [0, 1, 4, 9, 16, 25]


def test_a_pool_has_no_more_threads_than_it_may_have() -> None:
    running = threading.Semaphore(0)
    release = threading.Event()

    def wait(_: int) -> None:
        running.release()
        release.wait(30)

    with DaemonThreadPool(2) as pool:
        for number in range(3):
            pool.submit(wait, number)
        assert running.acquire(timeout=30)
        assert running.acquire(timeout=30)
        assert not running.acquire(timeout=0.05)
        release.set()


def test_an_error_is_raised_where_its_result_is_read() -> None:
    with DaemonThreadPool(2) as pool:
        future = pool.submit(int, "seven")
        with pytest.raises(ValueError, match="seven"):
            future.result()


def test_calls_that_have_not_started_can_be_left_out() -> None:
    started, release = threading.Event(), threading.Event()
    pool = DaemonThreadPool(1)

    def wait_for_release() -> bool:
        started.set()
        return release.wait(30)

    first, second = pool.submit(wait_for_release), pool.submit(int, "7")
    assert started.wait(30)
    pool.shutdown(wait=False, cancel_futures=True)
    release.set()
    assert first.result(30) is True
    assert second.cancelled()


def test_a_call_sees_the_context_of_its_caller() -> None:
    token = USER.set("ana")
    try:
        with DaemonThreadPool(1) as pool:
            assert pool.submit(USER.get).result() == "ana"
    finally:
        USER.reset(token)


def test_after_the_last_line_of_the_main_thread_calls_still_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What Python sets before it joins the threads; its own executor raises from then on.
    monkeypatch.setattr(concurrent.futures.thread, "_shutdown", True)
    with DaemonThreadPool(4) as pool:
        assert list(pool.map(abs, (-1, -2))) == [1, 2]


def test_where_no_thread_can_start_the_caller_does_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(deadline, "_idle_workers", [])
    with DaemonThreadPool(4) as pool:
        idents = set(pool.map(lambda _: threading.get_ident(), range(5)))
    assert idents == {threading.get_ident()}


def test_a_process_ends_although_a_call_does_not() -> None:
    code = (
        "import time; from dbx_aml._common.daemon_threads import DaemonThreadPool\n"
        "DaemonThreadPool(2).submit(time.sleep, 600)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
