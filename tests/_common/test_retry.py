"""How long a call is retried, and how long each retry waits."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dbx_aml._common.deadline import time_limit
from dbx_aml._common.errors import ArgumentError, ServiceUnavailableError, TemporaryError
from dbx_aml._common.retry import (
    RetryPolicy,
    call_with_retries,
    parse_retry_after,
    retry_timeout_s,
    service_policy,
)
from tests.support.clock import FakeClock


class FailingCall:
    """A call that fails with each of some errors in turn, then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.seconds_left: list[float] = []

    def __call__(self, seconds_left: float) -> str:
        self.seconds_left.append(seconds_left)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def run(call: FailingCall, clock: FakeClock, policy: RetryPolicy) -> str:
    return call_with_retries(call, policy, operation="GET runs", clock=clock, sleep=clock.sleep)


def test_the_first_retry_comes_at_once_and_later_ones_wait_twice_as_long() -> None:
    clock = FakeClock()
    call = FailingCall(*[TemporaryError("status 503")] * 5)
    assert run(call, clock, RetryPolicy(timeout_s=100, max_wait_s=4)) == "done"
    assert [round(seconds) for seconds in clock.sleeps] == [0, 1, 2, 4, 4]
    assert call.seconds_left[:2] == [100, 100]
    assert 88 < call.seconds_left[-1] < 90


def test_the_wait_that_the_service_asks_for_counts() -> None:
    clock = FakeClock()
    call = FailingCall(TemporaryError("status 429", retry_after_s=30))
    assert run(call, clock, RetryPolicy(timeout_s=100, max_wait_s=4)) == "done"
    assert clock.sleeps == [30]


def test_a_service_that_asks_for_no_wait_does_not_switch_off_the_own_pauses() -> None:
    clock = FakeClock()
    call = FailingCall(*[TemporaryError("status 503", retry_after_s=0.0)] * 4)
    assert run(call, clock, RetryPolicy(timeout_s=100)) == "done"
    assert [round(seconds) for seconds in clock.sleeps] == [0, 1, 2, 4]


def test_a_wait_that_ends_after_the_deadline_is_not_begun() -> None:
    clock = FakeClock()
    call = FailingCall(TemporaryError("status 429", retry_after_s=3600))
    with pytest.raises(
        ServiceUnavailableError,
        match=r"GET runs .*status 429, which asks to wait 3600 s.*RETRY_TIMEOUT_S",
    ):
        run(call, clock, RetryPolicy(timeout_s=100))
    assert clock.sleeps == []


def test_retries_end_with_the_time_and_the_error_names_the_last_failure() -> None:
    clock = FakeClock()
    call = FailingCall(*[TemporaryError("status 503")] * 100, TemporaryError("never"))
    with pytest.raises(ServiceUnavailableError, match=r"within 60 s: .* attempts .*status 503"):
        run(call, clock, RetryPolicy(timeout_s=60))
    assert clock.now_s <= 1060


def test_the_number_of_attempts_may_be_limited() -> None:
    call = FailingCall(*[TemporaryError("status 503")] * 9)
    with pytest.raises(ServiceUnavailableError, match="2 attempts"):
        run(call, FakeClock(), RetryPolicy(timeout_s=60, max_attempts=2))


def test_an_error_that_is_not_retryable_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        run(FailingCall(ZeroDivisionError()), FakeClock(), RetryPolicy(timeout_s=60))


def test_any_error_can_be_declared_retryable() -> None:
    call = FailingCall(OSError("connection reset"))
    clock = FakeClock()
    assert (
        call_with_retries(
            call,
            RetryPolicy(timeout_s=60),
            lambda error: isinstance(error, OSError),
            operation="PUT blob",
            clock=clock,
            sleep=clock.sleep,
        )
        == "done"
    )


def test_a_time_limit_around_the_call_ends_its_retries() -> None:
    clock = FakeClock()
    call = FailingCall(*[TemporaryError("status 503")] * 100)
    with time_limit(10), pytest.raises(ServiceUnavailableError, match=r"within (9\.9\d*|10) s"):
        run(call, clock, RetryPolicy(timeout_s=60))
    assert clock.now_s <= 1010


def test_an_attempt_has_its_least_time_even_where_no_time_is_left() -> None:
    call = FailingCall()
    assert run(call, FakeClock(), RetryPolicy(timeout_s=0, min_attempt_s=1)) == "done"
    assert call.seconds_left == [1]


def test_the_error_does_not_refer_to_the_last_failure_which_may_hold_a_token() -> None:
    with pytest.raises(ServiceUnavailableError) as caught:
        run(FailingCall(TemporaryError("x")), FakeClock(), RetryPolicy(timeout_s=9, max_attempts=1))
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("0", 0.0),
        *[
            (text, None)
            for text in ("", "-3", "nan", "inf", "9" * 400, "soon", "1_0", "٣", "²", "1e3", "0x1f")
        ],
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
        ("Mon, 00 Foo 2026", None),
    ],
)
def test_a_retry_after_header_is_a_finite_number(header: str, seconds: float | None) -> None:
    assert parse_retry_after(header) == seconds


def test_a_retry_after_header_may_be_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=30)
    assert 25 < (parse_retry_after(format_datetime(later, usegmt=True)) or 0) <= 30
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert parse_retry_after(None) is None


def test_the_variable_sets_the_time_for_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBX_AML_RETRY_TIMEOUT_S", raising=False)
    assert retry_timeout_s() == 120
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "7.5")
    assert retry_timeout_s() == 7.5
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "0.5")
    policy = service_policy()
    assert (policy.timeout_s, policy.min_attempt_s) == (0.5, 1.0)
    for text in ("soon", "nan", "inf", "-1", "1e999"):
        monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", text)
        with pytest.raises(ArgumentError, match=f"DBX_AML_RETRY_TIMEOUT_S .*{text!r}"):
            retry_timeout_s()
