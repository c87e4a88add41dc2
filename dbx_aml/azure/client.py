"""Requests to Azure Resource Manager and Azure ML with the caller's token."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from dbx_aml._common.errors import (
    CredentialError,
    NotFoundError,
    OperationError,
    OperationTimeoutError,
    PermissionDeniedError,
    ServiceError,
    ServiceUnavailableError,
    UntrustedHostError,
)
from dbx_aml._common.http import REFUSED_STATUSES, paged, send
from dbx_aml._common.log import get_logger
from dbx_aml._common.retry import RetryPolicy, parse_retry_after
from dbx_aml._common.text import one_line
from dbx_aml.azure.credentials import Credential
from dbx_aml.link.clouds import check_azure_url
from dbx_aml.link.workspace import AmlWorkspace

if TYPE_CHECKING:
    from requests import Response

log = get_logger(__name__)

# Version of Azure ML's REST API in Azure Resource Manager.
API_VERSION = "2025-12-01"
REQUEST_TIMEOUT_S = 5.0
# Longest time for a request that changes a resource, and for the end of its operation.
CHANGE_TIMEOUT_S = 60.0
OPERATION_TIMEOUT_S = 3600.0
# Seconds between two looks at an operation where the service asks for none, and the least wait.
_POLL_S = 2.0
_MIN_POLL_S = 0.2
_END_STATES = frozenset({"Canceled", "Failed", "Succeeded"})
_REPEATED_METHODS = frozenset({"DELETE", "GET", "PUT"})
_MISSING_ACTION = re.compile(r"perform action '([^']+)'")
_MESSAGE_LENGTH = 400


def resource_url(workspace: AmlWorkspace, path: str = "") -> str:
    """Return the URL of a resource of a workspace in Azure Resource Manager.

    Args:
        workspace: Azure ML workspace.
        path: Path below the workspace, for example "/onlineEndpoints/delay".
    """
    return f"https://{workspace.hosts.arm}{workspace.arm_id}{path}?api-version={API_VERSION}"


class AzureClient:
    """A client for JSON over REST, which answers or fails within a deadline.

    Args:
        credential: Credential of the caller.
        timeout_s: Longest time for one request that reads, with its retry.
        clock: Clock in seconds that only goes forward.
        sleep: Function that waits for a number of seconds.
    """

    def __init__(
        self,
        credential: Credential,
        timeout_s: float = REQUEST_TIMEOUT_S,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._credential = credential
        self._clock = clock
        self._sleep = sleep
        # The first retry comes at once, for a connection that the service closed while it was idle.
        self._read_policy = RetryPolicy(timeout_s=timeout_s, max_attempts=2)

    def get(self, url: str) -> dict[str, Any]:
        """Return the JSON object at a URL.

        Raises:
            UntrustedHostError: The host is not Azure's; no token was requested.
            CredentialError: There is no token, or the service refuses it.
            NotFoundError: There is no such resource.
            PermissionDeniedError: The caller's roles do not allow the request.
            ServiceUnavailableError: The host does not answer.
            ServiceError: The service answers with another error.
        """
        return _json_object(self._send("GET", url, policy=self._read_policy))

    def find(self, url: str) -> dict[str, Any] | None:
        """Return the JSON object at a URL, None if there is no such resource; errors as of `get`.

        A request that fails for the moment is repeated for up to a minute.
        """
        try:
            return _json_object(self._send("GET", url, policy=_change_policy("GET")))
        except NotFoundError:
            return None

    def list(self, url: str) -> Iterator[dict[str, Any]]:
        """Yield the items of a list over all its pages; errors as of `get`.

        Raises:
            UntrustedHostError: The next page is at another host, which gets no token.
            ServiceError: The service names a page for the second time.
        """

        def fetch_page(page_url: str | None) -> tuple[Iterator[dict[str, Any]], str | None]:
            page = _json_object(self._send("GET", page_url or url, policy=_change_policy("GET")))
            next_url = page.get("nextLink")
            if next_url:
                _check_same_host(url, next_url, "next page")
            return iter(page.get("value") or []), next_url

        return paged(fetch_page, f"GET {urlsplit(url).path}", first_token=url)

    def post_query(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON object that answers a POST that only reads; errors as of `get`."""
        response = self._send("POST", url, body, policy=self._read_policy, is_idempotent=True)
        return _json_object(response)

    def post(self, url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON object that answers a POST, which is sent once; errors as of `get`."""
        return _json_object(self._send("POST", url, body, policy=_change_policy("POST")))

    def put(
        self,
        url: str,
        body: Mapping[str, Any],
        *,
        timeout_s: float = OPERATION_TIMEOUT_S,
        show_command: str = "",
    ) -> dict[str, Any]:
        """Create or replace a resource, wait for the end of the operation, and return the resource.

        Args:
            url: URL of the resource.
            body: Resource.
            timeout_s: Longest time for the service's operation.
            show_command: Command that shows the resource, for the error of an unfinished operation.

        Raises:
            OperationError: The service's operation failed or was canceled.
            OperationTimeoutError: The operation did not end in time; it goes on.
            ServiceError: As of `get`.
        """
        resource = self._change("PUT", url, body, timeout_s=timeout_s, show_command=show_command)
        if resource is None:
            raise ServiceError(
                f"resource must be there after its PUT: got none at {urlsplit(url).path}; "
                "somebody may have deleted it"
            )
        return resource

    def patch(
        self,
        url: str,
        body: Mapping[str, Any],
        *,
        timeout_s: float = OPERATION_TIMEOUT_S,
        show_command: str = "",
    ) -> dict[str, Any] | None:
        """Change a resource, wait for the end, and return it; arguments and errors as of `put`."""
        return self._change("PATCH", url, body, timeout_s=timeout_s, show_command=show_command)

    def delete(
        self, url: str, *, timeout_s: float = OPERATION_TIMEOUT_S, show_command: str = ""
    ) -> bool:
        """Delete a resource and wait for the end; arguments and errors as of `put`.

        Returns:
            Whether there was such a resource.
        """
        try:
            self._change("DELETE", url, timeout_s=timeout_s, show_command=show_command)
        except NotFoundError:
            return False
        return True

    def post_operation(
        self, url: str, *, timeout_s: float = OPERATION_TIMEOUT_S, show_command: str = ""
    ) -> None:
        """Start an operation by a POST, for example a cancellation, and wait for its end.

        It has the arguments and errors of `put`.
        """
        self._wait("POST", url, self._start("POST", url), timeout_s, show_command)

    def wait_until_idle(
        self, url: str, *, timeout_s: float = OPERATION_TIMEOUT_S, show_command: str = ""
    ) -> None:
        """Wait until no operation changes a resource; the operation may have deleted it.

        For an operation that another process has started: its own URL is not known here.
        Arguments and errors are as of `put`.
        """
        end = self._clock() + timeout_s
        while True:
            resource = self.find(url)
            state = ((resource or {}).get("properties") or {}).get("provisioningState")
            if resource is None or state in _END_STATES:
                return
            if self._clock() >= end:
                raise OperationTimeoutError(
                    f"resource must be ready within {timeout_s:g} s: got {state!r}; Azure still "
                    f"works on it; look at it with '{show_command}'"
                )
            self._sleep(_POLL_S)

    def _change(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout_s: float,
        show_command: str,
    ) -> dict[str, Any] | None:
        """Send a request, wait for its operation, and read the resource afterwards."""
        response = self._start(method, url, body)
        if not self._wait(method, url, response, timeout_s, show_command):
            return _json_object(response)
        return self.find(url)

    def _start(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Response:
        return self._send(method, url, body, policy=_change_policy(method))

    def _wait(
        self, method: str, url: str, response: Response, timeout_s: float, show_command: str
    ) -> bool:
        """Wait for the operation of a request; return whether the request has started one.

        Azure-AsyncOperation names a status that ends with a word, Location an answer that ends
        with 200 or 204.

        Source:
            Microsoft Learn, "Track asynchronous Azure operations"; seen 2026-11.
        """
        name = f"{method} {urlsplit(url).path.rpartition('/workspaces/')[2]}"
        end = self._clock() + timeout_s
        status_url = response.headers.get("Azure-AsyncOperation")
        location = response.headers.get("Location")
        if not status_url and not (location and response.status_code == 202):
            return False
        hint = f"; look at it with '{show_command}'" if show_command else ""
        state = "InProgress"
        try:
            while True:
                operation_url = urljoin(url, str(status_url or location))
                _check_same_host(url, operation_url, "operation")
                left_s = end - self._clock()
                if left_s <= 0:
                    raise OperationTimeoutError(
                        f"{name} must end within {timeout_s:g} s: got {state!r}; it goes on in "
                        f"Azure{hint}"
                    )
                wait_s = parse_retry_after(response.headers.get("Retry-After"))
                wait_s = _POLL_S if wait_s is None else max(wait_s, _MIN_POLL_S)
                self._sleep(min(wait_s, left_s))
                response = self._send(
                    "GET",
                    operation_url,
                    policy=_change_policy("GET"),
                    kept_statuses=REFUSED_STATUSES,
                )
                if response.status_code in REFUSED_STATUSES:
                    # The service asks for a longer wait than one request may take.
                    continue
                if not status_url:
                    if response.status_code != 202:
                        return True
                    location = response.headers.get("Location") or location
                    continue
                status = _json_object(response)
                state = str(status.get("status"))
                if state == "Succeeded":
                    return True
                if state in ("Failed", "Canceled"):
                    code, message = error_of_content({"error": status.get("error")})
                    problem = ": ".join(filter(None, (code, message))) or "no reason"
                    raise OperationError(f"{name} must succeed: got {state!r}; {problem}")
        except (KeyboardInterrupt, ServiceUnavailableError):
            log.warning("%s goes on in Azure%s", name, hint)
            raise

    def _send(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        *,
        policy: RetryPolicy,
        is_idempotent: bool | None = None,
        kept_statuses: Collection[int] = (),
    ) -> Response:
        check_azure_url(url)
        token = self._credential.get_token(self._credential.scope).token
        response = send(
            method,
            url,
            policy,
            headers={"Authorization": f"Bearer {token}"},
            json=body,
            is_idempotent=is_idempotent,
            clock=self._clock,
            sleep=self._sleep,
        )
        if response.status_code < 300 or response.status_code in kept_statuses:
            return response
        raise error_of_answer(response, urlsplit(url).netloc)


def error_of_answer(response: Response, host: str) -> ServiceError | CredentialError:
    """Return the error that stands for an answer of Azure with a status above 299."""
    status = response.status_code
    code, message = error_of_response(response)
    error = f"got {' '.join(filter(None, (str(status), code)))} from {host}: {message}"
    if status == 401:
        return CredentialError(
            f"{host} must accept the token: {error}; compare its tenant with the workspace's"
        )
    if status == 403:
        action = _MISSING_ACTION.search(message)
        hint = f"; ask for a role with the action {action[1]!r}" if action else ""
        return PermissionDeniedError(f"{error}{hint}")
    if status == 404:
        return NotFoundError(error, code=code)
    hint = "try again later" if status >= 500 or status == 429 else "change the request"
    return ServiceError(f"{host} must accept the request: {error}; {hint}")


def error_of_response(response: Response) -> tuple[str, str]:
    """Return code and message of an error answer, as Azure's services write them."""
    try:
        content = response.json()
    except ValueError:
        content = {}
    code, message = error_of_content(content)
    return code, message or one_line(response.reason, _MESSAGE_LENGTH)


def error_of_content(content: object) -> tuple[str, str]:
    """Return code and message of an error in an answer; the innermost message comes first."""
    fields = content if isinstance(content, Mapping) else {}
    error = fields.get("error") or fields.get("Error")
    codes: list[str] = []
    messages: list[str] = []
    _collect_errors(error, codes, messages)
    texts = dict.fromkeys(message.strip() for message in reversed(messages) if message.strip())
    code = next(filter(None, reversed(codes)), "")
    return code, one_line(" ".join(texts), _MESSAGE_LENGTH)


def _collect_errors(error: object, codes: list[str], messages: list[str]) -> None:
    """Add the codes and messages of an error and of all its details, from outside to inside."""
    if not isinstance(error, Mapping):
        return
    codes.append(str(error.get("code") or error.get("Code") or ""))
    messages.append(str(error.get("message") or error.get("Message") or ""))
    details = error.get("details") or error.get("Details")
    for detail in details if isinstance(details, list) else []:
        _collect_errors(detail, codes, messages)


def _change_policy(method: str) -> RetryPolicy:
    """Return the policy of one request of a change; only repeatable methods are retried."""
    return RetryPolicy(
        timeout_s=CHANGE_TIMEOUT_S, max_attempts=5 if method in _REPEATED_METHODS else 1
    )


def _json_object(response: Response) -> dict[str, Any]:
    try:
        content = response.json() if response.content else {}
    except ValueError:
        # A proxy may answer with a web page.
        content = None
    if not isinstance(content, dict):
        raise ServiceError(
            f"answer of Azure must be a JSON object: got {one_line(response.text, 60)!r}; look "
            "for a proxy that answers, or report it to the owner of the service"
        )
    return content


def _check_same_host(url: str, other_url: str, noun: str) -> None:
    """Check that a URL in an answer has the host of the request: another host gets no token."""
    host, other_host = urlsplit(url).netloc.lower(), urlsplit(other_url).netloc.lower()
    scheme = urlsplit(other_url).scheme
    if scheme != "https" or host.removesuffix(":443") != other_host.removesuffix(":443"):
        raise UntrustedHostError(
            f"{noun} must be at the host of the request, {host!r}: got "
            f"'{scheme}://{one_line(other_host, 100)}'; no token was sent"
        )
