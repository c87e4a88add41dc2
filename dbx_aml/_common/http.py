"""Requests over HTTP: one connection pool, one policy of timeouts and retries, paging that ends.

requests does the transport: MLflow brings it, and it reads the machine's proxies and CA bundle
(HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from dbx_aml._common.deadline import call_within
from dbx_aml._common.errors import ServiceError, ServiceUnavailableError, TemporaryError
from dbx_aml._common.retry import RetryPolicy, call_with_retries, parse_retry_after
from dbx_aml._common.text import one_line

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

Item = TypeVar("Item")

# Answers that a retry may mend.
TEMPORARY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# Statuses after which the service has done nothing.
REFUSED_STATUSES = frozenset({425, 429, 503})
_IDEMPOTENT_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT"})
_CONNECTIONS = 32


class NoAnswerError(ServiceUnavailableError):
    """A host gave no answer to the last attempt.

    Args:
        message: Text that the command shows.
        cause: Error of the HTTP client. Its text may hold a token: only its class is of use.
    """

    def __init__(self, message: str, cause: Exception | None) -> None:
        super().__init__(message)
        self.cause = cause


def send(
    method: str,
    url: str,
    policy: RetryPolicy,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    data: bytes | None = None,
    is_idempotent: bool | None = None,
    use_proxy: bool = True,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Response:
    """Return the answer to a request, whatever its status; temporary failures are retried.

    A redirect is returned, not followed: it may lead to a host that must not see the token.

    Args:
        method: Method in capitals, for example "GET".
        url: Absolute URL.
        policy: Bounds of all attempts; each attempt is stopped when the time is over, in
            whatever state its connection is.
        headers: Headers, for example with the token.
        params: Query of the URL.
        json: Body, sent as JSON.
        data: Body as bytes.
        is_idempotent: Whether sending the request twice does no harm. By default by the method:
            a POST is retried only if the service refused it before it did anything.
        use_proxy: Whether the machine's proxy, CA bundle and logins count.
        clock: Clock in seconds that only goes forward.
        sleep: Function that waits for a number of seconds.

    Returns:
        The last answer. Its status may still be a temporary failure's.

    Raises:
        NoAnswerError: The last attempt got no answer. The message names the host and the cause.
    """
    import requests

    if is_idempotent is None:
        is_idempotent = method in _IDEMPOTENT_METHODS
    host = urlsplit(url).hostname or url
    last_response: Response | None = None
    last_cause: Exception | None = None

    def attempt(seconds_left: float) -> Response:
        nonlocal last_response, last_cause
        last_response = last_cause = None
        seconds = max(seconds_left, 0.001)

        def request() -> Response:
            return _session(os.getpid(), use_proxy).request(
                method,
                url,
                headers=dict(headers or {}),
                params=params,
                json=json,
                data=data,
                timeout=seconds,
                allow_redirects=False,
            )

        try:
            response = call_within(request, seconds)
        except (TimeoutError, requests.Timeout) as error:
            last_cause, problem = error, f"no answer in {seconds:.1f} s"
        except requests.RequestException as error:
            last_cause, problem = error, root_cause(error)
        else:
            retried_statuses = TEMPORARY_STATUSES if is_idempotent else REFUSED_STATUSES
            if response.status_code not in retried_statuses:
                return response
            last_response = response
            raise TemporaryError(
                f"status {response.status_code}",
                retry_after_s=parse_retry_after(response.headers.get("Retry-After")),
            )
        # Outside of the handlers: the client's error carries the request with its token.
        if is_idempotent:
            raise TemporaryError(problem)
        raise _unavailable(host, problem, last_cause)

    try:
        return call_with_retries(
            attempt, policy, operation=f"{method} {host}", clock=clock, sleep=sleep
        )
    except ServiceUnavailableError:
        if last_response is not None:
            return last_response
    problem = (
        f"no answer in {policy.timeout_s:.1f} s"
        if isinstance(last_cause, TimeoutError | requests.Timeout) or last_cause is None
        else root_cause(last_cause)
    )
    raise _unavailable(host, problem, last_cause)


def paged(
    fetch_page: Callable[[str | None], tuple[Iterable[Item], str | None]], operation: str
) -> Iterator[Item]:
    """Yield the items of all pages of a list.

    Args:
        fetch_page: Function from a page's token (None for the first page) to the page's items and
            the token of the next page, None or "" after the last.
        operation: Name of the call in the error, for example "runs/search".

    Raises:
        ServiceError: The service sends a token for the second time: the list would never end.
    """
    token: str | None = None
    tokens: set[str] = set()
    while True:
        items, token = fetch_page(token)
        yield from items
        if not token:
            return
        if token in tokens:
            raise ServiceError(
                f"pages of {operation} must end: got the token {one_line(token, 60)!r} twice; "
                "report it to the owner of the service"
            )
        tokens.add(token)


def root_cause(error: BaseException) -> str:
    """Return the cause at the end of a chain of network errors, in a few words."""
    while True:
        reason = getattr(error, "reason", None)
        first = error.args[0] if error.args else None
        cause = next((item for item in (reason, first) if isinstance(item, BaseException)), None)
        if cause is None or cause is error:
            return f"{type(error).__name__} ({one_line(error, 160)})"
        error = cause


def keep_headers(request: PreparedRequest) -> PreparedRequest:
    """Return a request without a change, as the authentication of requests' sessions.

    Without it requests would replace the Authorization header with a login from ~/.netrc.
    """
    return request


@cache
def _session(process_id: int, use_proxy: bool) -> Session:
    """Return the process's connection pool: a forked process must not share its connections."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.trust_env = use_proxy
    session.auth = keep_headers
    # A cookie of one call must not reach the next one, which may be another user's.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
    return session


def _unavailable(host: str, problem: str, cause: Exception | None) -> NoAnswerError:
    return NoAnswerError(
        f"host {host} must answer: got {problem}; "
        "open the network to it, or set the proxy variables",
        cause,
    )
