"""Secrets: the one function that takes them out of a text, and the names that they go by.

Every text that leaves the process passes `redact`: errors in their constructor, log records in
`get_logger`, tables, JSON and progress in `cli`, HTML in `html_table`, another library's error in
`one_line`.
"""

import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

MASK = "***"
# Begin and end of a part of a text.
Span = tuple[int, int]
# A shorter text is no secret: replacing it would spoil the message.
_SHORTEST_SECRET = 8
_SECRET_NAME = re.compile(
    r"SECRET|TOKEN|PASSWORD|(?:^|_)KEY$|ACCOUNT_KEY|API_KEY|IDENTITY_HEADER", re.IGNORECASE
)
# Paths are no secrets, and this package's own variables hold references, except a notebook's.
_NO_SECRET_NAME = re.compile(r"^DBX_AML_(?!SECRET_)|_(?:FILE|PATH)$", re.IGNORECASE)

# In a text, a blank or an angle bracket ends a URI. So does a quote like the one before the URI,
# where the text goes on after it; a password may contain quotes.
_AFTER_QUOTE = r"""(?=[\s,;:.)\]}<>"'`\\]|\Z)"""
_URI_START = re.compile(r"""(["'`])?([A-Za-z][A-Za-z0-9+.-]{0,30})?://""")
_URI_REST = {
    quote: re.compile(rf"(?:\\\S|(?!{quote}{_AFTER_QUOTE})[^\s<>])*" if quote else r"[^\s<>]*")
    for quote in ("", '"', "'", "`")
}
# Part of a value in a query.
_IN_VALUE = rf"""(?:\\[^\s<>&]|(?!["'`]{_AFTER_QUOTE})[^\s<>&])"""
_AUTHORITY = re.compile(r"[^/?#]*")
# In HTTP a word without a dot may be a token, elsewhere it is a name, for example of a bucket.
_HOST = re.compile(r"[\w-]+(?:\.[\w-]+)+|localhost", re.ASCII)
_HOST_OR_NAME = re.compile(r"[\w.-]+", re.ASCII)
_HTTP_SCHEMES = ("http", "https")
# "abfss://container@account.dfs.core.windows.net" has no login.
_CONTAINER_SCHEMES = ("abfs", "abfss", "wasb", "wasbs")
# MLflow's "models://<profile>@databricks/..." has none either.
_PROFILE_SCHEMES = ("dbfs", "models", "runs")

_NAMES = r"(?:sig|signature|secret|passw(?:or)?d|pass|pwd|token|key)"
# Each rule has a part of every match in small letters, because Python finds a plain text
# quickly, and a pattern whose group stays.
_RULES = tuple(
    (part, re.compile(pattern, re.IGNORECASE))
    for part, pattern in (
        # A value in a query, also in one that is a value itself and therefore encoded.
        ("=", rf"([?&][\w.-]{{0,40}}{_NAMES}=){_IN_VALUE}+"),
        ("%3d", rf"(%(?:26|3F|3B)[\w.-]{{0,40}}{_NAMES}%3D)(?:(?!%26|%3B){_IN_VALUE})+"),
        # A value in a connection string of a database or of Azure.
        (";", rf"(;\s*[\w.-]{{0,40}}{_NAMES}=)(?:\{{[^}}]*\}}|(?!;){_IN_VALUE})+"),
        (
            "=",
            r"(\b(?:password|client_secret|(?:access|refresh)_token|AccountKey|SharedAccessKey"
            r"|SharedAccessSignature)=[\"']?)[^\s;&\"']+",
        ),
        # A value in JSON, and a header.
        (
            ":",
            r"([\"'](?:(?:client_|access_|refresh_|id_)?(?:secret|token)|password|api_?key"
            r"|AccountKey)[\"']\s?:\s?[\"'])[^\"']+",
        ),
        ("bearer", r"(bearer\s+)[\w.~+/-]{16,}=*"),
        ("basic", r"(basic\s+)[\w.~+/-]{16,}=*"),
        # Tokens by their looks: of Entra, of Databricks, a client secret, a storage key.
        ("eyj", r"()eyJ[\w-]{8,}(?:\.[\w-]*){1,4}"),
        ("d", r"()d(?:api|ose|kea)[0-9a-f]{32}(?:-\d+)?"),
        ("q~", r"()[\w.~-]{3}\dQ~[\w.~-]{31,}"),
        ("==", r"()[A-Za-z0-9+/]{86}=="),
    )
)


def redact(text: str, secrets: Iterable[str] | None = None) -> str:
    """Return a text with "***" for each secret: logins in URIs, values in queries, tokens, keys.

    Where a text can be read in two ways, the way with a secret counts.

    Args:
        text: Text for people, a log, a tag or a file, for example another library's error.
        secrets: Secrets that the caller knows; by default the secrets of the environment.
    """
    known = environment_secrets() if secrets is None else secrets
    spans = sorted({*_spans_of_rules(text), *_spans_of_logins(text), *_spans_of_known(text, known)})
    return _replace(text, spans, MASK) if spans else text


def redact_uri(uri: str) -> str:
    """Return the address of a server: its URI without login, query and fragment."""
    logins = [(start, end + 1) for start, end in _spans_of_logins(uri)]
    uri = _replace(uri, logins, "")
    try:
        parts = urlsplit(uri)
    except ValueError:
        return MASK
    if not parts.netloc:
        return uri.partition("?")[0].partition("#")[0]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def environment_secrets() -> set[str]:
    """Return the values of the environment variables whose names say that they are secrets."""
    return {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST_SECRET and is_secret_name(name)
    }


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Tell whether a variable of this name holds a secret, for example "AZURE_CLIENT_SECRET"."""
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET_NAME.search(name)


def has_secret(text: str, secrets: Iterable[str] | None = None) -> bool:
    """Tell whether a text has what `redact` would replace."""
    return redact(text, secrets) != text


def _replace(text: str, spans: Iterable[Span], mask: str) -> str:
    """Return a text with a mask for each of its spans, in order; spans may overlap."""
    parts = []
    end_of_last = 0
    for start, end in spans:
        if start >= end_of_last:
            parts += [text[end_of_last:start], mask]
        end_of_last = max(end_of_last, end)
    return "".join([*parts, text[end_of_last:]])


def _spans_of_known(text: str, secrets: Iterable[str]) -> Iterator[Span]:
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET and secret in text:
            for match in re.finditer(re.escape(secret), text):
                yield match.span()


def _spans_of_rules(text: str) -> Iterator[Span]:
    lowered = text.lower()
    for part, pattern in _RULES:
        if part in lowered:
            for match in pattern.finditer(text):
                yield match.end(1), match.end()


def _spans_of_logins(text: str) -> Iterator[Span]:
    """Yield the span of each login in a URI, up to the last "@" of the URI."""
    end_of_uri = end_of_last = 0
    for match in _URI_START.finditer(text) if "://" in text else ():
        start = match.end()
        if start >= end_of_uri:
            rest = _URI_REST[match[1] or ""].match(text, start)
            end_of_uri = rest.end() if rest else start
        last_at = text.rfind("@", start, end_of_uri)
        if (
            start >= end_of_last
            and last_at >= 0
            and _has_login(match[2] or "", text, start, end_of_uri)
        ):
            yield start, last_at
            end_of_last = last_at


def _has_login(scheme: str, text: str, start: int, end: int) -> bool:
    """Tell whether a URI that has an "@" has it behind a login.

    A password may contain "/", so an "@" in the path ends a login too, unless the part before the
    first "/" is plainly a host.

    Args:
        scheme: Scheme of the URI.
        text: Text with the URI.
        start: Position behind "://".
        end: Position of the end of the URI.
    """
    match = _AUTHORITY.match(text, start, end)
    authority, scheme = match[0] if match else "", scheme.lower()
    if scheme in _PROFILE_SCHEMES and authority.endswith("@databricks"):
        return False
    if "@" in authority:
        return scheme not in _CONTAINER_SCHEMES or ":" in authority.partition("@")[0]
    is_host = _HOST if scheme in _HTTP_SCHEMES else _HOST_OR_NAME
    return bool(authority) and not is_host.fullmatch(authority)
