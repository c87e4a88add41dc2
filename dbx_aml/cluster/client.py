"""The Databricks REST API, by databricks-sdk's own client; every error is one line.

The SDK signs in, tries 429 and 503 again, and makes errors of answers. Its classes are passed by:
those of an older release drop what they do not know, and what was dropped from a list that is
read, merged and written back would be lost. Release 0.30 also has no format RAW.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dbx_aml._common.errors import ClusterError
from dbx_aml._common.text import first_line

# Host and token are proved at once; what comes later may be tried for longer.
_FIRST_S = 10
_RETRY_S = 120
_HTTP_S = 60
_ASK = "ask an administrator"


class Missing(ClusterError):
    """What was asked for is not there."""


class Forbidden(ClusterError):
    """The caller is known and may not do it."""


class WrongState(ClusterError):
    """The cluster is in a state in which it takes no change."""


class Client:
    """A signed-in caller of one Databricks workspace.

    Args:
        profile: Section of .databrickscfg; by default as databricks-sdk finds its settings
            (DATABRICKS_HOST, DATABRICKS_TOKEN and others).

    Attributes:
        host: URL of the workspace.
        user: Name of the caller.

    Raises:
        ClusterError: The SDK is missing, nothing says where to go, or the host does not answer or
            take the token within some seconds.
    """

    def __init__(self, profile: str | None = None) -> None:
        try:
            from databricks.sdk.core import ApiClient, Config
        except ImportError as err:
            raise ClusterError(
                "databricks-sdk must be installed for this command; run: pip install "
                "'dbx-aml[cluster]'"
            ) from err
        try:
            config = Config(
                profile=profile,
                product="dbx-aml",
                retry_timeout_seconds=_FIRST_S,
                http_timeout_seconds=_FIRST_S,
            )
            self._api = ApiClient(config)
        except ValueError as err:
            # The rest of the line repeats the settings.
            why = first_line(err).partition(". Config:")[0]
            raise ClusterError(
                f"Databricks must be set up: {why}; set DATABRICKS_HOST and DATABRICKS_TOKEN, or "
                "give --profile"
            ) from err
        self.host = str(config.host)
        me = self.call("GET", "/api/2.0/preview/scim/v2/Me", what="see who is signed in")
        self.user = str(me.get("userName", ""))
        config.retry_timeout_seconds = int(os.environ.get("DBX_AML_RETRY_TIMEOUT_S") or _RETRY_S)
        config.http_timeout_seconds = _HTTP_S
        self._api = ApiClient(config)

    def call(
        self,
        method: str,
        path: str,
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        data: bytes | None = None,
        hint: str = _ASK,
    ) -> dict[str, Any]:
        """Return the answer of one call.

        Args:
            method: In capitals.
            path: For example "/api/2.1/clusters/get".
            what: What it is for, as in "caller must be allowed to <what>".
            query: Its query.
            body: Its body, sent as JSON.
            data: Its body as bytes, instead.
            hint: The next step of somebody who is not allowed to.

        Raises:
            Missing: What is asked for is not there.
            Forbidden: The caller may not.
            WrongState: The cluster takes no change now.
            ClusterError: Anything else that is no answer.
        """
        # ApiClient writes into the headers that it is given.
        headers = {"Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = "application/octet-stream"
        with self._one_line(what, hint):
            found = self._api.do(
                method,
                path,
                query=dict(query) if query else None,
                body=dict(body) if body is not None else None,
                data=data,
                headers=headers,
            )
        return found if isinstance(found, dict) else {}

    def read(self, path: str, *, what: str, query: Mapping[str, str] | None = None) -> bytes:
        """Return the bytes of an answer that is a file; errors as `call` has them."""
        with self._one_line(what):
            found: Any = self._api.do(
                "GET",
                path,
                query=dict(query) if query else None,
                headers={"Accept": "application/octet-stream"},
                raw=True,
            )
            with found["contents"] as stream:
                return bytes(stream.read())

    @contextmanager
    def _one_line(self, what: str, hint: str = _ASK) -> Iterator[None]:
        from databricks.sdk.core import DatabricksError
        from requests import RequestException

        try:
            yield
        except TimeoutError as err:
            # The SDK's own, at the end of its tries; the cause is what the last one ended with.
            why = first_line(err.__cause__) if isinstance(err.__cause__, Exception) else "no answer"
            raise ClusterError(
                f"Databricks must answer when asked to {what}: {self.host} gave {_brief(why)!r} "
                "until the last try; try again later, or check the host"
            ) from err
        except RequestException as err:
            raise ClusterError(
                f"Databricks must answer when asked to {what}: {self.host} gave "
                f"{_brief(first_line(err))!r}; check DATABRICKS_HOST and the network"
            ) from err
        except DatabricksError as err:
            raise _of_answer(err, what, hint) from err


def _of_answer(err: Any, what: str, hint: str) -> ClusterError:
    from databricks.sdk.errors import NotFound, PermissionDenied, Unauthenticated

    # An SDK adds its own settings to what the service says.
    said = _brief(first_line(err).partition(". Config:")[0])
    code = str(getattr(err, "error_code", ""))
    if isinstance(err, Unauthenticated):
        return ClusterError(
            f"Databricks must take the caller's token: {said!r}; check DATABRICKS_TOKEN or the "
            "profile"
        )
    if isinstance(err, PermissionDenied):
        return Forbidden(f"caller must be allowed to {what}: {said!r}; {hint}")
    if isinstance(err, NotFound) or "does not exist" in said:
        return Missing(f"cannot {what}: {said!r}")
    if code == "INVALID_STATE":
        return WrongState(f"cannot {what}: {said!r}")
    return ClusterError(f"cannot {what}: {said!r} ({code})")


def _brief(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."
