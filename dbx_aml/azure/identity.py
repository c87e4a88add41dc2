"""What a source of tokens answered, in few words and without a secret; who a token is for."""

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

_LONGEST = 240
# Nothing shorter is a secret; taking it out would spoil the text.
_SHORTEST = 8
_JWT = re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]*){1,4}")
# What users meet, in their words. Source: Microsoft Learn, "Microsoft Entra authentication and
# authorization error codes", 2026-11.
_MEANINGS = {
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
    """Whom a token is for, as it says itself.

    Args:
        name: A user's sign-in name, or an application's id.
        tenant_id: The tenant that issued it.
        is_user: Whether it is a person.
    """

    name: str
    tenant_id: str
    is_user: bool

    def __str__(self) -> str:
        kind = "user" if self.is_user else "application"
        return f"{kind} {self.name} in tenant {self.tenant_id}"


def identity(token: str) -> Identity:
    """Return whom an access token is for; "unknown" where it does not say.

    The token is not verified: the service it is sent to does that.
    """
    part = [*token.split("."), ""][1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        claims = {}  # opaque tokens exist
    user = claims.get("upn") or claims.get("preferred_username") or claims.get("unique_name")
    app = claims.get("appid") or claims.get("azp")
    return Identity(
        name=str(user or app or claims.get("oid") or "unknown"),
        tenant_id=str(claims.get("tid") or "unknown"),
        is_user=bool(user),
    )


def explained(error: BaseException, tenant_id: str | None, secrets: Iterable[str]) -> str:
    """Return an error of a source in one short line.

    Args:
        error: What was raised.
        tenant_id: Asked for, for an answer that does not name it.
        secrets: Texts that must not be in the line.
    """
    text = str(error)
    code = re.search(r"AADSTS(\d+)", text)
    if code is None and "Unable to get authority configuration" in text:
        # MSAL keeps the code of this one to itself.
        return f"tenant {tenant_id!r} is not known (AADSTS90002): {_MEANINGS['90002']}"
    if code is not None and code[1] in _MEANINGS:
        return f"AADSTS{code[1]}: {_MEANINGS[code[1]]}"
    text = " ".join(text.partition(" Trace ID:")[0].split()) or type(error).__name__
    # An SDK's advice follows its first sentence.
    text = re.split(r" (?:To mitigate|To troubleshoot|Visit https)", text)[0]
    return scrubbed(text, secrets)[:_LONGEST]


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """Return the text with tokens, and the secrets that are known, replaced by stars."""
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return _JWT.sub("***", text)
