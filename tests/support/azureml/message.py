"""A request, its answer, and the two shapes in which Azure ML writes an error."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, as it came out of the tunnel.

    Args:
        method: In capitals.
        host: Host name without port, in small letters.
        target: Path and query as sent, still quoted.
        headers: Names in small letters.
        body: All of it.
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
        """The query's fields; of a repeated one the last."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def json(self) -> dict[str, Any]:
        """Return the body as an object; an empty one for an empty body."""
        loaded = json.loads(self.body or b"{}")
        return loaded if isinstance(loaded, dict) else {}

    def form(self) -> dict[str, str]:
        """Return the fields of a form, as the token endpoint is sent them."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status, headers and bytes to send back.

    Args:
        status: HTTP status.
        body: All of it.
        headers: Without length and connection, which the server adds.
        reason: Text of the status line where the service has one of its own.
    """

    status: int = 200
    body: bytes = field(repr=False, default=b"")
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


def json_answer(value: object, status: int = 200, **headers: str) -> Answer:
    """Return `value` as JSON; a header's underscores become dashes."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(
        status=status,
        body=json.dumps(value).encode(),
        headers={"Content-Type": "application/json; charset=utf-8", **named},
    )


# What MLflow calls a status, for the errors that the service makes itself.
_MLFLOW_CODE = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_ALREADY_EXISTS",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


def tracking_error(
    status: int,
    message: str,
    *,
    code: str = "UserError",
    error_code: str | None = None,
    region: str = "westeurope",
) -> Answer:
    """Return an error as the tracking part of the service writes it: capitals, no `message` on top.

    MLflow therefore shows the whole object after "Response:".
    """
    return json_answer(
        {
            "Error": {
                "Code": code,
                "Severity": None,
                "Message": message,
                "MessageFormat": None,
                "MessageParameters": None,
                "ReferenceCode": None,
                "DetailsUri": None,
                "Target": None,
                "Details": [],
                "InnerError": None,
                "DebugInfo": None,
                "AdditionalInfo": None,
            },
            "Correlation": {"operation": uuid4().hex, "request": uuid4().hex[:16]},
            "Environment": region,
            "Location": region,
            "Time": datetime.now(UTC).isoformat(),
            "ComponentName": "mlflow",
            "statusCode": status,
            "error_code": error_code or _MLFLOW_CODE.get(status, "INTERNAL_ERROR"),
        },
        status,
    )


def service_error(status: int, message: str, *, code: str = "UserError") -> Answer:
    """Return an error as run history, artifacts and the management endpoint write it."""
    return json_answer({"error": {"code": code, "message": message, "details": []}}, status)


def matches(pattern: str, path: str) -> re.Match[str] | None:
    """Match a whole path, as regular expression and in any case, as Azure reads its paths."""
    return re.fullmatch(pattern, path, re.IGNORECASE)
