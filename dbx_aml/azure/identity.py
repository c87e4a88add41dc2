"""The identity in a token, and the meaning of Microsoft Entra's errors in one short line."""

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dbx_aml._common.redact import redact
from dbx_aml._common.text import one_line

_MESSAGE_LENGTH = 240
# Errors that users meet, in their words. Source: Microsoft Learn, "Microsoft Entra authentication
# and authorization error codes", 2026-11.
_ENTRA_ERRORS = {
    "50034": "the user is not in this tenant",
    "53003": "a Conditional Access policy forbids it",
    "70021": "no federated credential of the application fits the workload's token",
    "90002": "the tenant does not exist; AZURE_TENANT_ID is wrong",
    "500011": "the tenant does not know the service that the token is for",
    "700016": "the application is not in this tenant; AZURE_CLIENT_ID or AZURE_TENANT_ID is wrong",
    "700024": "the workload's token or the certificate's assertion is not valid now",
    "700027": "the certificate is not one of the application's",
    "700213": "no federated credential of the application fits the workload's token",
    "900023": "the tenant id is no GUID and no domain; AZURE_TENANT_ID is wrong",
    "7000112": "the application is disabled",
    "7000215": "the client secret is wrong; its value is needed, not its id",
    "7000222": "the client secret has expired; make a new one",
}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The user or application that a token is for.

    Args:
        name: Sign-in name of a user, or id of an application.
        tenant_id: Tenant that issued the token.
        is_user: Whether the identity is a user, not an application.
    """

    name: str
    tenant_id: str
    is_user: bool

    def __str__(self) -> str:
        kind = "user" if self.is_user else "application"
        return f"{kind} {self.name} in tenant {self.tenant_id}"


def identity_of_token(token: str) -> Identity:
    """Return the user or application that an access token names; "unknown" if it names none.

    The token is not verified: the service that it is sent to does that.
    """
    claims = token_claims(token)
    user = claims.get("upn") or claims.get("preferred_username") or claims.get("unique_name")
    application = claims.get("appid") or claims.get("azp")
    return Identity(
        name=str(user or application or claims.get("oid") or "unknown"),
        tenant_id=str(claims.get("tid") or "unknown"),
        is_user=bool(user),
    )


def token_claims(token: str) -> dict[str, Any]:
    """Return the claims of an access token; an opaque token has none."""
    payload = [*token.split("."), ""][1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


def short_message(error: BaseException, tenant_id: str | None, secrets: Iterable[str]) -> str:
    """Return the error of a credential source in one short line without secrets.

    Args:
        error: Error that azure-identity raised.
        tenant_id: Tenant of the request, for an error that does not name it.
        secrets: Secrets that the source has read.
    """
    text = str(error)
    code = re.search(r"AADSTS(\d+)", text)
    if code is None and "Unable to get authority configuration" in text:
        # MSAL leaves the code out of this error.
        return f"tenant {tenant_id!r} is not known (AADSTS90002): {_ENTRA_ERRORS['90002']}"
    if code is not None and code[1] in _ENTRA_ERRORS:
        return f"AADSTS{code[1]}: {_ENTRA_ERRORS[code[1]]}"
    text = one_line(text.partition(" Trace ID:")[0]) or type(error).__name__
    # The advice of azure-identity follows its first sentence.
    text = re.split(r" (?:To mitigate|To troubleshoot|Visit https)", text)[0]
    return one_line(redact(text, secrets), _MESSAGE_LENGTH)
