"""The input of the checks: the link, the deadline, and values that several checks need."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Lock
from typing import Any, Generic, TypeVar

from dbx_aml._common.deadline import start_in_thread
from dbx_aml._common.errors import DbxAmlError
from dbx_aml.doctor.check_result import SkippedError
from dbx_aml.link.link import Link

# A request ends this long before the deadline of its check, so that the check can report it.
_MARGIN_S = 0.3
Value = TypeVar("Value")


class SharedValue(Generic[Value]):
    """A value that several checks need and that takes a request to a service.

    The first check that needs the value starts the request. The others wait for that request.

    Args:
        check: Name of the check that reports an error of the request.
        read: Function that requests the value; it raises a `DbxAmlError` or `SkippedError`.
        deadline: Time on the monotonic clock at which the other checks stop waiting.
    """

    def __init__(self, check: str, read: Callable[[], Value], deadline: float) -> None:
        self._check = check
        self._read = read
        self._deadline = deadline
        self._lock = Lock()
        self._future: Future[Value] | None = None

    def get(self) -> Value:
        """Return the value, for the check that reports its errors.

        Raises:
            DbxAmlError: The request failed.
            SkippedError: The request needs another value that could not be read.
        """
        return self._start().result()

    def get_or_skip(self) -> Value:
        """Return the value, for every other check.

        Raises:
            SkippedError: The request failed or did not end before the deadline.
        """
        try:
            return self._start().result(max(0.0, self._deadline - time.monotonic()))
        except (DbxAmlError, FutureTimeoutError):
            reason = f"needs a value that the check '{self._check}' failed to get"
        raise SkippedError(reason)

    def _start(self) -> Future[Value]:
        with self._lock:
            self._future = self._future or start_in_thread(self._read)
        return self._future


class CheckContext:
    """The input of all checks of one run.

    Args:
        link: Link to check; None if it could not be read, and `link_error` has the cause.
        config: Path that the link's file was searched at, as in `Link.load`.
        deadline: Time on the monotonic clock at which the last check ends.
        model_uri: MLflow URI of a model to check; None to check no model.
        volume: Path of a volume to check, for example "/Volumes/main/ml/models", or None.
        link_error: Error of reading the link.
    """

    def __init__(
        self,
        *,
        link: Link | None,
        deadline: float,
        config: str | None = None,
        model_uri: str | None = None,
        volume: str | None = None,
        link_error: DbxAmlError | None = None,
    ) -> None:
        self.config = config
        self.deadline = deadline
        self.model_uri = model_uri
        self.volume = volume
        self.link_error = link_error
        # Seconds by which this machine's clock is ahead of a host's, by host.
        self.clock_skew_s: dict[str, float] = {}
        self._link = link
        self._lock = Lock()
        self._shared_values: dict[str, SharedValue[Any]] = {}

    @property
    def link(self) -> Link:
        """The link.

        Raises:
            SkippedError: The link could not be read.
        """
        if self._link is None:
            raise SkippedError("needs a readable link, see the check 'settings'")
        return self._link

    @property
    def is_configured(self) -> bool:
        """Whether an argument, a variable or a file sets any value of the link."""
        return bool(set(self.link.origins.values()) - {"default"}) or self.link != Link()

    @property
    def seconds_left(self) -> float:
        """Time limit in seconds for the next request."""
        return max(0.1, self.deadline - _MARGIN_S - time.monotonic())

    def shared_value(self, check: str, read: Callable[[], Value]) -> SharedValue[Value]:
        """Return the one shared value of a check.

        Args:
            check: Name of the check that reports an error of the request.
            read: Function that requests the value. Only the first one passed for a check is used.
        """
        with self._lock:
            # Later than the time limit of the request itself.
            deadline = self.deadline - _MARGIN_S / 2
            return self._shared_values.setdefault(check, SharedValue(check, read, deadline))
