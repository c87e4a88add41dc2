"""A fork waits for background threads, but not while they wait for the network."""

import os
import threading
import time

import pytest

from dbx_aml._common import deadline, fork_gate
from dbx_aml._common.deadline import call_within
from dbx_aml._common.fork_gate import delay_forks, is_background


def fork_and_wait() -> float:
    """Fork a child that ends at once; return the seconds that the fork took."""
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        # A gate that the child inherits closed would stop it here.
        with delay_forks():
            os._exit(0)
    seconds = time.monotonic() - start
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return seconds


def run_in_block(work: threading.Event, released: threading.Event) -> threading.Thread:
    """Start a thread that works in a block of `delay_forks` until it is released."""

    def block() -> None:
        with delay_forks():
            work.set()
            released.wait(30)

    thread = threading.Thread(target=block, daemon=True)
    thread.start()
    assert work.wait(30)
    return thread


def test_a_fork_waits_for_a_block_and_the_block_of_another_thread_for_the_fork() -> None:
    released = threading.Event()
    run_in_block(threading.Event(), released)
    threading.Timer(0.2, released.set).start()
    assert 0.1 < fork_and_wait() < 5


def test_a_thread_that_forks_does_not_wait_for_itself() -> None:
    with delay_forks():
        assert fork_and_wait() < 1


def test_no_block_begins_during_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    began = threading.Event()

    def block() -> None:
        with delay_forks():
            began.set()

    fork_gate._gate.close()
    try:
        threading.Thread(target=block, daemon=True).start()
        assert not began.wait(0.1)
    finally:
        fork_gate._gate.open()
    assert began.wait(30)


def test_a_fork_waits_for_a_request_of_a_block_but_not_for_a_slow_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadline, "REQUEST_TIMEOUT_S", 0.3)
    sent, answered = threading.Event(), threading.Event()

    def request() -> bool:
        assert is_background()
        sent.set()
        return answered.wait(30)

    def block() -> None:
        with delay_forks():
            call_within(request, 30)

    thread = threading.Thread(target=block, daemon=True)
    thread.start()
    assert sent.wait(30)
    assert 0.1 < fork_and_wait() < 5
    # The request has had its time: the next fork does not wait for it again.
    assert fork_and_wait() < 0.2
    answered.set()
    thread.join(30)
    assert not thread.is_alive()


def test_outside_of_a_block_a_call_delays_no_fork() -> None:
    answered = threading.Event()
    future = deadline.start_in_thread(lambda: answered.wait(30))
    assert fork_and_wait() < 0.2
    assert not is_background()
    answered.set()
    assert future.result(30) is True
