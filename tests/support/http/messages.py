"""A request and its response, as the HTTP server of a stand-in passes them on."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to a stand-in.

    Args:
        method: HTTP method in capitals.
        host: Host name without port, in small letters; empty where a stand-in has only one host.
        target: Path and query as sent, still quoted.
        headers: Values by name; names are in small letters.
        body: The whole body.
    """

    method: str
    host: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False, default=b"")

    @property
    def path(self) -> str:
        """The target without its query, still quoted."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query's fields; of a repeated field the last value."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def json(self) -> dict[str, Any]:
        """Return the body as an object; an empty one for an empty body."""
        loaded = json.loads(self.body or b"{}")
        return loaded if isinstance(loaded, dict) else {}

    def form(self) -> dict[str, str]:
        """Return the fields of a form, which is how clients call the token endpoint."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True, kw_only=True)
class Response:
    """Status, headers and bytes to send back.

    Args:
        status: HTTP status.
        body: The whole body.
        headers: Headers without length and connection, which the server adds.
        reason: Text of the status line, where the service has its own text.
    """

    status: int = 200
    body: bytes = field(repr=False, default=b"")
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


def json_response(value: object, status: int = 200, **headers: str) -> Response:
    """Return `value` as JSON; underscores in the headers' names become dashes."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(
        status=status,
        body=json.dumps(value).encode(),
        headers={"Content-Type": "application/json; charset=utf-8", **named},
    )


def match_path(pattern: str, path: str) -> re.Match[str] | None:
    """Match a whole path with a regular expression; capitals do not matter, as in Azure."""
    return re.fullmatch(pattern, path, re.IGNORECASE)
