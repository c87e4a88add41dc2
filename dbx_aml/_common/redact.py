"""Secrets: how to keep them out of messages, and out of files that hold only references."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dbx_aml._common.errors import LinkError

MASK = "***"
# A shorter text is no secret: replacing it would spoil the message.
_SHORTEST_SECRET = 8
_SECRET_NAME = re.compile(
    r"SECRET|TOKEN|PASSWORD|(?:^|_)KEY$|ACCOUNT_KEY|API_KEY|IDENTITY_HEADER", re.IGNORECASE
)
# Paths are no secrets, and this package's own variables hold references.
_NO_SECRET_NAME = re.compile(r"^DBX_AML_|_(?:FILE|PATH)$", re.IGNORECASE)
_SECRET_KEYS = ("secret", "password", "token")
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
# A token of Entra, a token of Databricks, a client secret of Entra, the key or the signature of a
# storage account.
_SECRET_TEXT = re.compile(
    r"eyJ[\w-]{8,}(?:\.[\w-]*){1,4}"
    r"|\bdapi[0-9a-f]{32}(?:-\d+)?"
    r"|(?<![\w.~-])[\w.~-]{3}\dQ~[\w.~-]{31,34}"
    r"|(?<=AccountKey=)[^;\s'\"]+"
    r"|(?<=SharedAccessSignature=)[^;\s'\"]+"
    r"|(?<=[?&]sig=)[^&\s'\"]+"
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text with "***" for each secret: tokens, keys, signatures, logins in URLs.

    Args:
        text: Message, for example of another library's error.
        secrets: Secrets that the caller knows.
    """
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    return _SECRET_TEXT.sub(MASK, _LOGIN.sub(f"{MASK}@", text))


def redact_uri(uri: str) -> str:
    """Return a URI for a message: without its login, query and fragment."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return MASK
    if not parts.netloc:
        return uri.partition("?")[0].partition("#")[0]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def environment_secrets() -> set[str]:
    """Return the values of the environment variables whose names say that they are secrets."""
    return {
        value
        for name, value in os.environ.items()
        if is_secret_name(name) and len(value) >= _SHORTEST_SECRET
    }


def is_secret_name(name: str) -> bool:
    """Tell whether a variable of this name holds a secret, for example "AZURE_CLIENT_SECRET"."""
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET_NAME.search(name)


def has_secret(text: str, secrets: Iterable[str] = ()) -> bool:
    """Tell whether a text has what `redact` would replace."""
    return redact(text, secrets) != text


def refuse_secrets(content: Mapping[str, Any], location: str) -> None:
    """Refuse a secret's text in a file that may only hold a reference to it.

    Args:
        content: Content of the file; nested mappings are checked too.
        location: Name of the file in the message.

    Raises:
        LinkError: A key that names a secret has text. The message has the key only.
    """
    for key, value in content.items():
        if isinstance(value, Mapping):
            refuse_secrets(value, location)
        elif isinstance(value, str) and any(word in key.lower() for word in _SECRET_KEYS):
            raise LinkError(
                f"{location} must hold no secret: got text under {key!r}; write a reference, "
                '{"scope": "<scope>", "key": "<key>"} or {"env": "<variable>"}'
            )
