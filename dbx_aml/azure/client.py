"""Requests to Azure Resource Manager and Azure ML with the caller's token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbx_aml._common.errors import (
    CredentialError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
)
from dbx_aml._common.http import send
from dbx_aml._common.retry import RetryPolicy
from dbx_aml._common.text import one_line
from dbx_aml.azure.credentials import Credential
from dbx_aml.link.clouds import check_azure_url

if TYPE_CHECKING:
    from requests import Response

REQUEST_TIMEOUT_S = 5.0


class AzureClient:
    """A client for JSON over REST, which answers or fails within seconds.

    Args:
        credential: Credential of the caller.
        timeout_s: Longest time for one request with its retry.
    """

    def __init__(self, credential: Credential, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._credential = credential
        # The first retry comes at once, for a connection that the service closed while it was idle.
        self._policy = RetryPolicy(timeout_s=timeout_s, max_attempts=2)

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
        return self._request("GET", url)

    def post_query(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON object that answers a POST that only reads; errors as of `get`."""
        return self._request("POST", url, body)

    def _request(
        self, method: str, url: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        check_azure_url(url)
        token = self._credential.get_token(self._credential.scope).token
        response = send(
            method,
            url,
            self._policy,
            headers={"Authorization": f"Bearer {token}"},
            json=body,
            is_idempotent=True,
        )
        host, status = urlsplit(url).netloc, response.status_code
        if status < 300:
            return dict(response.json())
        code, message = error_of_response(response)
        error = f"got {' '.join(filter(None, (str(status), code)))} from {host}: {message}"
        if status == 401:
            raise CredentialError(
                f"{host} must accept the token: {error}; compare its tenant with the workspace's"
            )
        if status == 403:
            raise PermissionDeniedError(error)
        if status == 404:
            raise NotFoundError(error)
        raise ServiceError(f"{host} must answer: {error}; try again later")


def error_of_response(response: Response) -> tuple[str, str]:
    """Return code and message of an error answer, as Azure's services write them."""
    try:
        content = response.json()
    except ValueError:
        content = {}
    error = (content.get("error") or content.get("Error")) if isinstance(content, dict) else None
    fields = error if isinstance(error, dict) else {}
    code = fields.get("code") or fields.get("Code") or ""
    message = fields.get("message") or fields.get("Message") or response.reason
    return str(code), one_line(message, 240)
