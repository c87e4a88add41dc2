"""Calls of the Databricks REST API through databricks-sdk's own client; each error is one line.

The SDK signs in and sends. `_common/http` decides how long a call may take and when it is sent
again, because the SDK waits as long as a service asks. Its typed classes are not used here: the
classes of an older release drop fields that they do not know, and a setting that is dropped
between reading and writing a cluster would be lost. Release 0.30 also lacks the format RAW.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dbx_aml._common.deadline import time_limit
from dbx_aml._common.errors import (
    ClusterError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
    ServiceUnavailableError,
    WrongStateError,
)
from dbx_aml._common.http import NoAnswerError, paged, send_within
from dbx_aml._common.retry import service_policy
from dbx_aml._common.text import first_line, install_command, one_line

# Seconds between two questions about the state of a cluster, a library or a command.
POLL_INTERVAL_S = 2.0
# The first call shows within seconds whether host and token are right; later calls retry longer.
_SIGN_IN_TIMEOUT_S = 10
_MAX_MESSAGE = 300
_DEFAULT_HINT = "ask an administrator"


class Client:
    """A signed-in user of one Databricks workspace.

    Args:
        profile: Section of .databrickscfg; by default databricks-sdk's own search
            (DATABRICKS_HOST, DATABRICKS_TOKEN and others).

    Attributes:
        host: URL of the Databricks workspace.
        user: Name of the signed-in user.
        poll_interval_s: Seconds between two questions about a state.

    Raises:
        ClusterError: databricks-sdk is not installed, or its settings name no workspace.
        ServiceError: The host does not answer within seconds, or refuses the token.
    """

    def __init__(self, profile: str | None = None) -> None:
        try:
            from databricks.sdk.core import ApiClient, Config
        except ImportError as err:
            raise ClusterError(
                "databricks-sdk must be installed for this command; run: "
                f"{install_command('cluster')}"
            ) from err
        self._policy = service_policy()
        self.poll_interval_s = POLL_INTERVAL_S
        with time_limit(_SIGN_IN_TIMEOUT_S):
            try:
                # New releases of the SDK ask the host for its kind, and go on without an answer.
                with time_limit(_SIGN_IN_TIMEOUT_S / 2), send_within(self._policy):
                    config = Config(
                        profile=profile,
                        product="dbx-aml",
                        # For the few errors that the SDK alone knows to be temporary.
                        retry_timeout_seconds=max(1, math.ceil(self._policy.timeout_s)),
                    )
                    self._api = ApiClient(config)
            except ValueError as err:
                raise ClusterError(
                    f"Databricks must be set up: {_without_settings(err)}; set DATABRICKS_HOST "
                    "and DATABRICKS_TOKEN, or give --profile"
                ) from err
            self.host = str(config.host)
            user = self.call("GET", "/api/2.0/preview/scim/v2/Me", operation="see who is signed in")
        self.user = str(user.get("userName", ""))

    def call(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        data: bytes | None = None,
        hint: str = _DEFAULT_HINT,
    ) -> dict[str, Any]:
        """Return the answer of one call.

        Args:
            method: HTTP method in capitals.
            path: Path of the API, for example "/api/2.1/clusters/get".
            operation: Purpose of the call, as in "caller must be allowed to <operation>".
            query: Fields of the query.
            body: JSON body of the request.
            data: Bytes to send instead of a JSON body.
            hint: Next step for a caller without the permission.

        Raises:
            NotFoundError: The workspace has no such resource.
            PermissionDeniedError: The caller lacks the permission.
            WrongStateError: The cluster is in a state in which it refuses a change.
            ServiceUnavailableError: The host did not answer until the end of the retries.
            ServiceError: Any other error.
        """
        # ApiClient adds keys to the headers that it receives.
        headers = {"Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = "application/octet-stream"
        with self._translate_errors(operation, hint):
            answer = self._api.do(
                method,
                path,
                query=dict(query) if query else None,
                body=dict(body) if body is not None else None,
                data=data,
                headers=headers,
            )
        return answer if isinstance(answer, dict) else {}

    def download(
        self, path: str, *, operation: str, query: Mapping[str, str] | None = None
    ) -> bytes:
        """Return the bytes of a file; the errors are those that `call` raises."""
        with self._translate_errors(operation):
            answer: Any = self._api.do(
                "GET",
                path,
                query=dict(query) if query else None,
                headers={"Accept": "application/octet-stream"},
                raw=True,
            )
            with answer["contents"] as stream:
                return bytes(stream.read())

    def list_items(
        self, path: str, field: str, *, operation: str, query: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the entries of all pages of a list; the errors are those that `call` raises.

        Args:
            path: Path of the API, for example "/api/2.1/clusters/list".
            field: Field of the answer with the entries, for example "clusters".
            operation: Purpose of the call, as in "caller must be allowed to <operation>".
            query: Fields of the query of every page.
        """

        def fetch_page(token: str | None) -> tuple[list[dict[str, Any]], str | None]:
            page_query = {**(query or {}), **({"page_token": token} if token else {})}
            page = self.call("GET", path, operation=operation, query=page_query)
            return page.get(field) or [], page.get("next_page_token")

        return paged(fetch_page, path.partition("/api/")[2])

    @contextmanager
    def _translate_errors(self, operation: str, hint: str = _DEFAULT_HINT) -> Iterator[None]:
        from databricks.sdk.core import DatabricksError
        from requests import RequestException

        try:
            # As the SDK does it: a change whose answer is lost is sent again.
            with send_within(self._policy, is_idempotent=True):
                yield
        except NoAnswerError as err:
            raise ServiceUnavailableError(
                f"Databricks must answer when asked to {operation}: {err}"
            ) from err
        except TimeoutError as err:
            # The SDK raises TimeoutError after its last retry; the cause is that attempt's error.
            reason = one_line(err.__cause__ or "no answer", _MAX_MESSAGE)
            raise ServiceUnavailableError(
                f"Databricks must answer when asked to {operation}: {self.host} gave {reason!r} "
                "until the last try; try again later, or check the host"
            ) from err
        except RequestException as err:
            raise ServiceUnavailableError(
                f"Databricks must answer when asked to {operation}: {self.host} gave "
                f"{one_line(err, _MAX_MESSAGE)!r}; check DATABRICKS_HOST and the network"
            ) from err
        except DatabricksError as err:
            raise _to_service_error(err, operation, hint) from err


def _to_service_error(err: Any, operation: str, hint: str) -> ServiceError:
    from databricks.sdk.errors import NotFound, PermissionDenied, Unauthenticated

    message = one_line(_without_settings(err), _MAX_MESSAGE)
    code = str(getattr(err, "error_code", ""))
    if isinstance(err, Unauthenticated):
        return ServiceError(
            f"Databricks must accept the caller's token: {message!r}; check DATABRICKS_TOKEN or "
            "the profile"
        )
    if isinstance(err, PermissionDenied):
        return PermissionDeniedError(f"caller must be allowed to {operation}: {message!r}; {hint}")
    if isinstance(err, NotFound) or "does not exist" in message:
        return NotFoundError(f"cannot {operation}: {message!r}")
    if code == "INVALID_STATE":
        return WrongStateError(f"cannot {operation}: {message!r}")
    return ServiceError(f"cannot {operation}: {message!r} ({code})")


def _without_settings(err: Exception) -> str:
    """Return the first line of an error of the SDK, which appends its own settings."""
    return first_line(err).partition(". Config:")[0]
