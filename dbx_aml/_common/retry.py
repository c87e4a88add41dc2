"""The retry policy of every client: how long a call is retried, how long each retry waits."""

import math
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from dbx_aml._common.deadline import seconds_left
from dbx_aml._common.errors import (
    ArgumentError,
    ServiceUnavailableError,
    TemporaryError,
)
from dbx_aml._common.text import one_line, plural

Result = TypeVar("Result")

RETRY_TIMEOUT_VARIABLE = "DBX_AML_RETRY_TIMEOUT_S"
RETRY_TIMEOUT_S = 120.0
# Without a sign, and without the digits of other scripts and the underscores that Python reads.
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_timeout_s() -> float:
    """Return the seconds for which one call is retried: DBX_AML_RETRY_TIMEOUT_S, or 120.

    Raises:
        ArgumentError: The variable is no number of seconds.
    """
    text = os.environ.get(RETRY_TIMEOUT_VARIABLE, "").strip()
    return parse_retry_timeout(text, RETRY_TIMEOUT_VARIABLE) if text else RETRY_TIMEOUT_S


def parse_retry_timeout(value: object, setting: str) -> float:
    """Return a retry timeout in seconds, for example 120.0 for "120".

    Args:
        value: Number, or its text.
        setting: Name of the setting for the error, for example "DBX_AML_RETRY_TIMEOUT_S".

    Raises:
        ArgumentError: The value is no finite number, or below 0.
    """
    try:
        seconds = float(value) if isinstance(value, int | float | str) else math.nan
    except (OverflowError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not 0 <= seconds < math.inf:
        raise ArgumentError(
            f"{setting} must be a number of seconds, 0 or more: got {value!r}; use for example 120"
        )
    return seconds


def service_policy() -> "RetryPolicy":
    """Return the policy of a call to a service that tracks, registers or runs clusters.

    Raises:
        ArgumentError: DBX_AML_RETRY_TIMEOUT_S is no number of seconds.
    """
    return RetryPolicy(timeout_s=retry_timeout_s(), min_attempt_s=1.0)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Bounds of one call with all its retries.

    Args:
        timeout_s: Longest time for all attempts and the waits between them.
        max_wait_s: Longest wait before one retry, unless the service asks for more.
        max_attempts: Most attempts; None for as many as the time allows.
        min_attempt_s: Least time for an attempt, so that the last one can be answered, and the
            only one where `timeout_s` is 0.
    """

    timeout_s: float
    max_wait_s: float = 20.0
    max_attempts: int | None = None
    min_attempt_s: float = 0.0

    def wait_s(self, attempts: int) -> float:
        """Return the seconds to wait after so many failed attempts.

        The first retry comes at once: a connection that the service closed while it was idle is
        the usual reason. The others wait twice as long each time, and a little more by chance, so
        that many clients do not retry at the same moment.
        """
        if attempts <= 1:
            return 0.0
        return min(self.max_wait_s, 2.0 ** min(attempts - 2, 30)) + random.random() * 0.1


def is_temporary(error: Exception) -> bool:
    """Tell whether an error is a `TemporaryError`."""
    return isinstance(error, TemporaryError)


def call_with_retries(
    call: Callable[[float], Result],
    policy: RetryPolicy,
    is_retryable: Callable[[Exception], bool] = is_temporary,
    *,
    operation: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Return the result of a call, which is retried after each retryable error.

    Args:
        call: Function of one argument: the seconds left for this attempt.
        policy: Bounds of all attempts together.
        is_retryable: Function that tells whether a retry may succeed. An attribute
            `retry_after_s` of the error is the least wait that the service asks for.
        operation: Name of the call in the error, for example "POST runs/log-batch".
        clock: Clock in seconds that only goes forward.
        sleep: Function that waits for a number of seconds.

    Raises:
        ServiceUnavailableError: The last attempt failed too. It names the last error, but does
            not refer to it: a client's error may carry the request and its token.
    """
    timeout_s = min(policy.timeout_s, seconds_left())
    end = clock() + timeout_s
    attempts = 0
    while True:
        attempts += 1
        try:
            return call(max(policy.min_attempt_s, end - clock()))
        except Exception as error:
            if not is_retryable(error):
                raise
            problem = one_line(error, 400)
            asked_s: float | None = getattr(error, "retry_after_s", None)
        # Without a least wait, a service that asks for 0 seconds would get thousands of requests.
        wait_s = max(policy.wait_s(attempts), asked_s or 0.0)
        if attempts == policy.max_attempts or clock() + wait_s > end:
            if asked_s and asked_s >= 1:
                problem = f"{problem}, which asks to wait {asked_s:.0f} s"
            raise ServiceUnavailableError(
                f"{operation} must succeed within {max(0.0, timeout_s):g} s: "
                f"{plural(attempts, 'attempt')} failed, the last with {problem}; "
                f"try again later, or set {RETRY_TIMEOUT_VARIABLE}"
            )
        sleep(wait_s)


def parse_retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, None if it asks for no finite wait.

    Args:
        header: Value of the header, a number of seconds from 0 on or a date of HTTP.

    Source:
        RFC 9110, section 10.2.3, "Retry-After".
    """
    text = (header or "").strip()
    if _NUMBER.fullmatch(text):
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    try:
        date = parsedate_to_datetime(text)
        # A date without a zone is in UTC.
        aware = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, (aware - datetime.now(UTC)).total_seconds())
    except (IndexError, OverflowError, TypeError, ValueError):
        # What the standard library raises for a text that is no date.
        return None
