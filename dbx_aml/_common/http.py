"""Requests over HTTP: one connection pool, one policy of time, retries and sizes, paging that ends.

requests does the transport: MLflow brings it, and it reads the machine's proxies and CA bundle
(HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE). `send` is for this package's own requests,
`send_within` and `bound_client` are for the requests that other libraries send for it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from http.cookiejar import DefaultCookiePolicy
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from dbx_aml._common.deadline import call_within, seconds_left, start_in_thread
from dbx_aml._common.errors import (
    DbxAmlError,
    ServiceError,
    ServiceUnavailableError,
    TemporaryError,
)
from dbx_aml._common.retry import (
    RetryPolicy,
    call_with_retries,
    parse_retry_after,
    service_policy,
)
from dbx_aml._common.text import one_line

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

Client = TypeVar("Client")
Item = TypeVar("Item")
Result = TypeVar("Result")

# Answers that a retry may mend.
TEMPORARY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# Statuses after which the service has done nothing.
REFUSED_STATUSES = frozenset({425, 429, 503})
_IDEMPOTENT_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT"})
_CONNECTIONS = 32
# Most bytes of an answer that are read into memory, and of an error.
MAX_ANSWER_BYTES = 64 * 2**20
MAX_ERROR_BYTES = 8 * 2**10
_CHUNK_BYTES = 64 * 2**10
# The slowest line over which a file is still sent or received.
LOWEST_BYTES_PER_S = 64 * 2**10
# Time until the first byte of a file must be on its way.
TRANSFER_START_S = 30.0
# A list of real resources has fewer pages.
MAX_PAGES = 10_000
# Python takes no timeout of a century.
_LONGEST_TIMEOUT_S = 86_400.0

# The policy that `send_within` sets, and whether any request may be sent twice.
_policy_of_block: ContextVar[tuple[RetryPolicy | None, bool | None]] = ContextVar(
    "policy_of_block", default=(None, None)
)


class NoAnswerError(ServiceUnavailableError):
    """A host gave no answer to the last attempt, or a temporary failure.

    Args:
        message: Text that the command shows.
        cause: Error of the HTTP client. Its text may hold a token: only its class is of use.
        last_response: Answer with the temporary failure.
    """

    def __init__(
        self, message: str, cause: Exception | None, last_response: Response | None = None
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.last_response = last_response


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
            whatever state its connection is. A body that is sent adds the time that it takes at
            the lowest rate.
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
        ServiceError: The answer is larger than 64 MiB.
    """

    def request(timeout_s: float) -> Response:
        return _session(os.getpid(), use_proxy).request(
            method,
            url,
            headers=dict(headers or {}),
            params=params,
            json=json,
            data=data,
            timeout=timeout_s,
            allow_redirects=False,
            stream=True,
        )

    bounded_request = _BoundedRequest(
        request,
        method,
        urlsplit(url).hostname or url,
        is_idempotent=method in _IDEMPOTENT_METHODS if is_idempotent is None else is_idempotent,
        body_size=len(data or b""),
    )
    try:
        return bounded_request.send(policy, clock=clock, sleep=sleep)
    except NoAnswerError as error:
        if error.last_response is None:
            raise
        return error.last_response


@contextmanager
def send_within(policy: RetryPolicy | None, *, is_idempotent: bool | None = None) -> Iterator[None]:
    """Apply a policy to the requests that another library sends with requests in this block.

    MLflow's client and databricks-sdk wait as long as a service asks them to, and their timeouts
    count from packet to packet. Here the attempts, the waits between them and the reading of the
    whole answer are this module's. The policy counts for this thread alone.

    Args:
        policy: Bounds of each request. With `max_attempts=1` the caller retries by itself, and
            gets the answer of each attempt. None for requests that transfer files.
        is_idempotent: Whether any request may be sent twice. By default it depends on the method.

    Raises:
        NoAnswerError: A request got no answer, or only temporary failures.
        ServiceError: An answer is larger than 64 MiB.
    """
    _bound_adapters()
    token = _policy_of_block.set((policy, is_idempotent))
    # The context of every error where the caller handles one.
    handled_error = sys.exc_info()[1]
    try:
        yield
    except DbxAmlError:
        raise
    except Exception as error:
        # MLflow's client wraps every error into an MlflowException.
        cause = error.__context__
        if isinstance(cause, DbxAmlError) and cause is not handled_error:
            raise cause from None
        raise
    finally:
        _policy_of_block.reset(token)


class Transfer:
    """A transfer of files, which may last as long as it takes at the lowest rate.

    Args:
        start_s: Time until the first bytes must be on their way.
        measure_size: Function that returns the bytes so far; None if the call tells them.
    """

    def __init__(
        self,
        *,
        start_s: float = TRANSFER_START_S,
        measure_size: Callable[[], int] | None = None,
    ) -> None:
        self._start_s = start_s
        self._size = 0
        self._measure_size = measure_size or (lambda: self._size)

    def expect(self, size: int) -> None:
        """Set the bytes from the start that the transfer has time for, for example the file's."""
        self._size = size

    def run(self, call: Callable[[], Result]) -> Result:
        """Return the result of the call that transfers, or stop waiting for it.

        Args:
            call: Function without arguments.

        Raises:
            TimeoutError: The transfer is slower than the lowest rate.
        """
        start = time.monotonic()
        future = start_in_thread(call)
        size = self._measure_size()
        while True:
            end = start + self._start_s + size / LOWEST_BYTES_PER_S
            try:
                return future.result(max(0.0, end - time.monotonic()))
            except FutureTimeoutError:
                # The call itself may have raised the error.
                if future.done():
                    raise
            last_size, size = size, self._measure_size()
            if size <= last_size:
                raise TimeoutError(
                    f"files must come with {LOWEST_BYTES_PER_S // 2**10} KiB a second: got less"
                )


class _BoundedCalls:
    """A client whose calls all happen within the policy of this module.

    `isinstance` sees the class of the client itself.

    Args:
        client: Client of another library that sends its requests with requests.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._client)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not callable(value):
            return value

        @wraps(value)
        def call(*args: Any, **kwargs: Any) -> Any:
            with send_within(service_policy(), is_idempotent=True):
                return value(*args, **kwargs)

        return call


def bound_client(client: Client) -> Client:
    """Return a client whose calls all happen within `service_policy`, in whatever thread.

    Args:
        client: MLflow client or store. As MLflow's own, its requests may be sent twice.
    """
    return cast(Client, _BoundedCalls(client))


class _BoundedRequest:
    """A request that ends in time, with an answer that fits into memory.

    Args:
        transport: Function that sends the request once; its argument is the timeout in seconds.
        method: Method in capitals.
        host: Host for the error.
        is_idempotent: Whether sending the request twice does no harm.
        body_size: Bytes that are sent.
    """

    def __init__(
        self,
        transport: Callable[[float], Response],
        method: str,
        host: str,
        *,
        is_idempotent: bool,
        body_size: int,
    ) -> None:
        self._transport = transport
        self._method = method
        self._host = host
        self._is_idempotent = is_idempotent
        self._body_seconds = body_size / LOWEST_BYTES_PER_S
        self._last_response: Response | None = None
        self._last_cause: Exception | None = None

    def send(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Response:
        """Return the answer; raise a `NoAnswerError` after only temporary failures."""
        import requests

        timeout_s = min(policy.timeout_s, seconds_left(), _LONGEST_TIMEOUT_S)
        try:
            return call_with_retries(
                self._attempt,
                policy,
                operation=f"{self._method} {self._host}",
                clock=clock,
                sleep=sleep,
            )
        except NoAnswerError:
            raise
        except ServiceUnavailableError as error:
            message = str(error)
        cause = self._last_cause
        if self._last_response is None:
            if cause is None or isinstance(cause, TimeoutError | requests.Timeout):
                problem = f"no answer in {timeout_s:.1f} s"
            else:
                problem = root_cause(cause)
            raise self._unavailable(problem)
        raise NoAnswerError(message, cause, self._last_response)

    def _attempt(self, seconds: float) -> Response:
        import requests

        self._last_response = self._last_cause = None
        seconds = max(min(seconds, _LONGEST_TIMEOUT_S), 0.001) + self._body_seconds

        def request() -> Response:
            response = self._transport(seconds)
            _read_body(response, self._host)
            return response

        try:
            # The request itself must not be bound for the second time.
            with send_within(None):
                response = call_within(request, seconds)
        except (TimeoutError, requests.Timeout) as error:
            self._last_cause, problem = error, f"no answer in {seconds:.1f} s"
        except requests.RequestException as error:
            self._last_cause, problem = error, root_cause(error)
        else:
            retried_statuses = TEMPORARY_STATUSES if self._is_idempotent else REFUSED_STATUSES
            if response.status_code not in retried_statuses:
                return response
            self._last_response = response
            raise TemporaryError(
                f"status {response.status_code}",
                retry_after_s=parse_retry_after(response.headers.get("Retry-After")),
            )
        # Outside of the handlers: the client's error carries the request with its token.
        if self._is_idempotent:
            raise TemporaryError(problem)
        raise self._unavailable(problem)

    def _unavailable(self, problem: str) -> NoAnswerError:
        return NoAnswerError(
            f"host {self._host} must answer: got {problem}; "
            "open the network to it, or set the proxy variables",
            self._last_cause,
        )


def _read_body(response: Response, host: str) -> None:
    """Read the body of an answer into memory; of an error only the first bytes.

    Raises:
        ServiceError: The answer is larger than 64 MiB.
    """
    from urllib3 import HTTPResponse

    is_error = response.status_code >= 400
    most_bytes = MAX_ERROR_BYTES if is_error else MAX_ANSWER_BYTES
    body = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) > most_bytes:
            # The rest of the answer is on its way: the connection cannot be used again.
            response.close()
            if not is_error:
                raise ServiceError(
                    f"answer of {host} must have at most {MAX_ANSWER_BYTES / 2**20:.0f} MiB: got "
                    "more; ask for less at once, or report it to the owner of the service"
                )
            del body[most_bytes:]
            break
    # As requests' own `content` does it, which has no limit.
    response._content = bytes(body)
    response._content_consumed = True  # type: ignore[attr-defined]
    # Azure's SDKs read from here.
    response.raw = HTTPResponse(BytesIO(body), status=response.status_code, preload_content=False)


@cache
def _bound_adapters() -> None:
    """Let the adapters of requests, through which every session sends, ask for the policy."""
    from requests.adapters import HTTPAdapter, Retry
    from requests.utils import rewind_body

    send_once = HTTPAdapter.send

    @wraps(send_once)
    def send_request(
        adapter: HTTPAdapter, request: PreparedRequest, *args: Any, **options: Any
    ) -> Response:
        policy, is_idempotent = _policy_of_block.get()
        if policy is None:
            return send_once(adapter, request, *args, **options)
        # The adapter's own retries wait as long as the service asks.
        plain_adapter = object.__new__(type(adapter))
        vars(plain_adapter).update(vars(adapter), max_retries=Retry(0, read=False))
        names = ("stream", "timeout", "verify", "cert", "proxies")
        options = {**dict(zip(names, args, strict=False)), **options, "stream": True}
        attempts = 0

        def transport(timeout_s: float) -> Response:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and getattr(request, "_body_position", None) is not None:
                rewind_body(request)
            return send_once(plain_adapter, request, **{**options, "timeout": timeout_s})

        method = str(request.method)
        if is_idempotent is None:
            is_idempotent = method in _IDEMPOTENT_METHODS
        bounded_request = _BoundedRequest(
            transport,
            method,
            urlsplit(str(request.url)).hostname or "",
            is_idempotent=is_idempotent,
            body_size=int(request.headers.get("Content-Length") or 0),
        )
        try:
            return bounded_request.send(policy)
        except NoAnswerError as error:
            if error.last_response is None or policy.max_attempts != 1:
                raise
            return error.last_response

    HTTPAdapter.send = send_request  # type: ignore[assignment,method-assign]


def paged(
    fetch_page: Callable[[str | None], tuple[Iterable[Item], str | None]],
    operation: str,
    *,
    first_token: str | None = None,
) -> Iterator[Item]:
    """Yield the items of all pages of a list.

    Args:
        fetch_page: Function from a page's token (None for the first page) to the page's items and
            the token of the next page, None or "" after the last.
        operation: Name of the call in the error, for example "runs/search".
        first_token: Token of the page to start at; by default the first page.

    Raises:
        ServiceError: The service sends a token for the second time, or more pages than could be:
            the list would never end.
    """
    token = first_token
    tokens = {token}
    for _ in range(MAX_PAGES):
        items, token = fetch_page(token)
        yield from items
        if not token:
            return
        if token in tokens:
            raise _endless_list(operation, f"the token {one_line(token, 60)!r} twice")
        tokens.add(token)
    raise _endless_list(operation, f"more than {MAX_PAGES:,} pages")


def _endless_list(operation: str, problem: str) -> ServiceError:
    return ServiceError(
        f"pages of {operation} must end: got {problem}; report it to the owner of the service"
    )


def root_cause(error: BaseException) -> str:
    """Return the cause at the end of a chain of network errors, in a few words.

    A host that is slow has one text, whether its connection or our own deadline ended the wait.
    """
    import requests
    from urllib3.exceptions import ReadTimeoutError

    while True:
        if isinstance(error, TimeoutError | requests.Timeout | ReadTimeoutError):
            return "no answer in time"
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
