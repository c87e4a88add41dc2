"""The retry policy of every client: how long a call is retried, how long each retry waits."""

import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from dbx_aml._common.errors import (
    ArgumentError,
    ServiceUnavailableError,
    TemporaryError,
)
from dbx_aml._common.text import one_line, plural

Result = TypeVar("Result")

RETRY_TIMEOUT_VARIABLE = "DBX_AML_RETRY_TIMEOUT_S"
RETRY_TIMEOUT_S = 120.0


def retry_timeout_s() -> float:
    """Return the seconds for which one call is retried: DBX_AML_RETRY_TIMEOUT_S, or 120.

    Raises:
        ArgumentError: The variable is no number of seconds.
    """
    text = os.environ.get(RETRY_TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text) if text else RETRY_TIMEOUT_S
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ArgumentError(
            f"{RETRY_TIMEOUT_VARIABLE} must be a number of seconds: got {text!r}; "
            "use for example 120"
        )
    return max(0.0, seconds)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Bounds of one call with all its retries.

    Args:
        timeout_s: Longest time for all attempts and the waits between them.
        max_wait_s: Longest wait before one retry, where the service asks for none itself.
        max_attempts: Most attempts; None for as many as the time allows.
    """

    timeout_s: float
    max_wait_s: float = 20.0
    max_attempts: int | None = None

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
            `retry_after_s` of the error counts as the wait that the service asks for.
        operation: Name of the call in the error, for example "POST runs/log-batch".
        clock: Clock in seconds that only goes forward.
        sleep: Function that waits for a number of seconds.

    Raises:
        ServiceUnavailableError: The last attempt failed too. It names the last error, but does
            not refer to it: a client's error may carry the request and its token.
    """
    end = clock() + policy.timeout_s
    attempts = 0
    while True:
        attempts += 1
        try:
            return call(max(0.0, end - clock()))
        except Exception as error:
            if not is_retryable(error):
                raise
            problem = one_line(error, 400)
            asked_s: float | None = getattr(error, "retry_after_s", None)
        wait_s = policy.wait_s(attempts) if asked_s is None else asked_s
        if attempts == policy.max_attempts or clock() + wait_s > end:
            raise ServiceUnavailableError(
                f"{operation} must succeed within {policy.timeout_s:g} s: "
                f"{plural(attempts, 'attempt')} failed, the last with {problem}; "
                f"try again later, or set {RETRY_TIMEOUT_VARIABLE}"
            )
        sleep(wait_s)


def parse_retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, None if it asks for no finite wait.

    Args:
        header: Value of the header, a number of seconds or a date of HTTP.

    Source:
        RFC 9110, section 10.2.3, "Retry-After".
    """
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        # A date without a zone is in UTC.
        aware = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
