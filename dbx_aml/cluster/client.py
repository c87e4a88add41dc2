"""A signed-in client of databricks-sdk, whose errors are one line each.

The SDK signs in and calls. `_common/http` decides how long a call may take and when it is sent
again, because the SDK waits as long as a service asks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbx_aml._common.deadline import time_limit
from dbx_aml._common.errors import (
    ClusterError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
    ServiceUnavailableError,
    WrongStateError,
)
from dbx_aml._common.http import NoAnswerError, send_within
from dbx_aml._common.retry import service_policy
from dbx_aml._common.text import first_line, install_command, one_line

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

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
            from databricks.sdk import WorkspaceClient
            from databricks.sdk.core import Config
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
                        # Else files come and go in threads, where `send_within` does not count.
                        disable_experimental_files_api_client=True,
                    )
                    self._workspace_client = WorkspaceClient(config=config)
            except ValueError as err:
                raise ClusterError(
                    f"Databricks must be set up: {_without_settings(err)}; set DATABRICKS_HOST "
                    "and DATABRICKS_TOKEN, or give --profile"
                ) from err
            self.host = str(config.host)
            with self.calls_to("see who is signed in") as databricks:
                self.user = databricks.current_user.me().user_name or ""

    @contextmanager
    def calls_to(self, operation: str, *, hint: str = _DEFAULT_HINT) -> Iterator[WorkspaceClient]:
        """Yield the client of databricks-sdk for calls within the bounds of `_common/http`.

        Args:
            operation: Purpose of the calls, as in "caller must be allowed to <operation>".
            hint: Next step for a caller without the permission.

        Raises:
            NotFoundError: The workspace has no such resource.
            PermissionDeniedError: The caller lacks the permission.
            WrongStateError: The cluster is in a state in which it refuses a change.
            ServiceUnavailableError: The host did not answer until the end of the retries.
            ServiceError: Any other error.
        """
        from databricks.sdk.errors.base import DatabricksError
        from requests import RequestException

        try:
            # As the SDK does it: a change whose answer is lost is sent again.
            with send_within(self._policy, is_idempotent=True):
                yield self._workspace_client
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

    def call(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        hint: str = _DEFAULT_HINT,
    ) -> dict[str, Any]:
        """Return the answer of one call as it came.

        The SDK's classes drop fields and values that their release does not know. A setting that
        is dropped between reading and writing a cluster is lost. Raises the errors of `calls_to`.

        Args:
            method: HTTP method in capitals.
            path: Path of the API, for example "/api/2.1/clusters/get".
            operation: Purpose of the call, as in "caller must be allowed to <operation>".
            query: Fields of the query.
            body: JSON body of the request.
            hint: Next step for a caller without the permission.
        """
        with self.calls_to(operation, hint=hint) as databricks:
            headers = {"Accept": "application/json"}
            answer = databricks.api_client.do(method, path, query=query, body=body, headers=headers)
        return answer if isinstance(answer, dict) else {}


def _to_service_error(err: Any, operation: str, hint: str) -> ServiceError:
    from databricks.sdk.errors import NotFound, PermissionDenied, Unauthenticated

    message = one_line(_without_settings(err), _MAX_MESSAGE)
    if isinstance(err, Unauthenticated):
        return ServiceError(
            f"Databricks must accept the caller's token: {message!r}; check DATABRICKS_TOKEN or "
            "the profile"
        )
    if isinstance(err, PermissionDenied):
        return PermissionDeniedError(f"caller must be allowed to {operation}: {message!r}; {hint}")
    if isinstance(err, NotFound) or "does not exist" in message:
        return NotFoundError(f"cannot {operation}: {message!r}")
    # Release 0.30, which runtime 16.4 brings, has no class for this code.
    if err.error_code == "INVALID_STATE":
        return WrongStateError(f"cannot {operation}: {message!r}")
    return ServiceError(f"cannot {operation}: {message!r} ({err.error_code})")


def _without_settings(err: Exception) -> str:
    """Return the first line of an error of the SDK, which appends its own settings."""
    return first_line(err).partition(". Config:")[0]
