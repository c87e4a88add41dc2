"""What the checks share: the link, the time that is left, and facts that are asked for once."""

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

# A call ends so much before its check's time does, so that its answer can still be told.
_MARGIN_S = 0.3
_Answer = TypeVar("_Answer")


class Fact(Generic[_Answer]):
    """Something that takes a call to know: the first who needs it asks, the others wait.

    Args:
        name: Of the check whose subject it is.
        ask: Gets it; raises an error of ours where it cannot.
        end: When who only needs it stops waiting, on the monotonic clock.
    """

    def __init__(self, name: str, ask: Callable[[], _Answer], end: float) -> None:
        self._name = name
        self._ask = ask
        self._end = end
        self._lock = Lock()
        self._future: Future[_Answer] | None = None

    def asked(self) -> _Answer:
        """Return it, for the check whose subject it is.

        Raises:
            DbxAmlError: It cannot be got.
            SkippedError: It needs another fact that cannot.
        """
        return self._begun().result()

    def needed(self) -> _Answer:
        """Return it, for another check.

        Raises:
            SkippedError: It cannot be got in time; the check whose subject it is says why.
        """
        try:
            return self._begun().result(max(0.0, self._end - time.monotonic()))
        except (DbxAmlError, FutureTimeoutError):
            reason = f"needs what the check '{self._name}' failed to get"
        raise SkippedError(reason)

    def _begun(self) -> Future[_Answer]:
        with self._lock:
            self._future = self._future or start_in_thread(self._ask)
        return self._future


class Case:
    """One examination.

    Args:
        link: None where it cannot be read; `problem` says why.
        config: Where its file was looked for, as `Link.load` takes it.
        end: When the last answer must be there, on the monotonic clock.
        model_uri: A model to look at, None for none.
        volume: A volume to look at, for example "/Volumes/main/ml/models"; None for none.
        problem: Why there is no link.
    """

    def __init__(
        self,
        *,
        link: Link | None,
        end: float,
        config: str | None = None,
        model_uri: str | None = None,
        volume: str | None = None,
        problem: DbxAmlError | None = None,
    ) -> None:
        self.config = config
        self.end = end
        self.model_uri = model_uri
        self.volume = volume
        self.problem = problem
        # Seconds by which this machine's clock is ahead of a host's, by host.
        self.ahead_s: dict[str, float] = {}
        self._link = link
        self._lock = Lock()
        self._facts: dict[str, Fact[Any]] = {}

    @property
    def link(self) -> Link:
        """The link.

        Raises:
            SkippedError: There is none.
        """
        if self._link is None:
            raise SkippedError("needs a link that can be read, see the check 'settings'")
        return self._link

    @property
    def is_linked(self) -> bool:
        """Whether anybody has said anything of a link."""
        given = set(self.link.origins.values()) - {"default"}
        return bool(given) or self.link != Link()

    @property
    def left_s(self) -> float:
        """Seconds that a call may take."""
        return max(0.1, self.end - _MARGIN_S - time.monotonic())

    def fact(self, name: str, ask: Callable[[], _Answer]) -> Fact[_Answer]:
        """Return the one fact of this name.

        Args:
            name: Of the check whose subject it is.
            ask: How to get it; the first one that is given counts.
        """
        with self._lock:
            # Late enough for an answer that its own call was bounded for.
            return self._facts.setdefault(name, Fact(name, ask, self.end - _MARGIN_S / 2))
