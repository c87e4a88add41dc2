"""A call that ends in time, whatever the other side does."""

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


def bounded(call: Callable[[], Result], seconds: float) -> Result:
    """Return what `call` returns, or stop waiting for it.

    Time limits of HTTP clients count from each packet, and host names are looked up without any:
    only a thread of its own bounds the whole. A call that hangs stays behind in its thread, which
    ends with the process.

    Args:
        call: Takes no arguments.
        seconds: How long to wait.

    Raises:
        TimeoutError: There is no result yet.
    """
    future = begun(call)
    try:
        return future.result(max(seconds, 0.0))
    except FutureTimeoutError:
        if future.done():
            # The call's own, not ours.
            raise
    raise TimeoutError(f"no answer in {seconds:.1f} s")


def begun(call: Callable[[], Result]) -> Future[Result]:
    """Start a call in a thread that ends with the process; return what it will return.

    Args:
        call: Takes no arguments.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as err:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(err)

    in_background(work)
    return future


def in_background(call: Callable[[], None]) -> None:
    """Start a call that nobody waits for.

    At the interpreter's end, where no thread can be started any more, it is done here: what is
    logged last must get out.
    """
    try:
        Thread(target=call, name="dbx-aml-auth", daemon=True).start()
    except RuntimeError:
        call()
