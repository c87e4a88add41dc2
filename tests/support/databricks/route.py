"""A call to the REST API, what answers it, and how the platform writes an error."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.support.http.messages import Request, Response, json_response


class Problem(Exception):
    """A call cannot be answered as asked.

    Args:
        status: HTTP status.
        code: The platform's `error_code`.
        message: What a client shows.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def answer(self, **headers: str) -> Response:
        """Return it as the platform writes it."""
        said = {"error_code": self.code, "message": str(self), "details": []}
        return json_response(said, self.status, **headers)


def missing(message: str) -> Problem:
    """Return the 404 of everything that is not there."""
    return Problem(404, "RESOURCE_DOES_NOT_EXIST", message)


def invalid(message: str) -> Problem:
    """Return the 400 of an argument that cannot be."""
    return Problem(400, "INVALID_PARAMETER_VALUE", message)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request that found its handler.

    Args:
        request: As it came.
        parts: The parts of the path that the route names, unquoted.
        user: Who asks.
    """

    request: Request
    parts: Mapping[str, str] = field(default_factory=dict)
    user: str

    @property
    def query(self) -> dict[str, str]:
        """Fields of the query."""
        return self.request.query

    @property
    def body(self) -> dict[str, Any]:
        """The body as an object."""
        try:
            return self.request.json()
        except ValueError as err:
            raise Problem(400, "MALFORMED_REQUEST", "Could not parse request object") from err

    def needed(self, name: str) -> Any:
        """Return a value of the query or the body that must be there."""
        value = self.query.get(name) or (
            self.body.get(name) if self.request.method != "GET" else None
        )
        if value in (None, ""):
            raise invalid(f"Missing required field: {name}")
        return value


# None is an empty object, as the platform answers where there is nothing to say.
Handler = Callable[[Call], "Response | dict[str, Any] | None"]


class Routes:
    """Handlers by method and path.

    A path's `{name}` is one segment, `{name:path}` is the rest.
    """

    def __init__(self) -> None:
        self._known: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, handlers: Mapping[str, Handler]) -> None:
        """Add handlers by texts such as "GET /api/2.1/clusters/get".

        `2.*` in a path stands for every version of the API.
        """
        for route, handler in handlers.items():
            method, path = route.split(" ", 1)
            pattern = "".join(_pattern(path))
            self._known.append((method, re.compile(pattern), handler))

    def find(self, request: Request) -> tuple[Handler, dict[str, str]]:
        """Return the handler of a request and the parts of its path.

        Raises:
            Problem: There is none.
        """
        for method, pattern, handler in self._known:
            found = pattern.fullmatch(request.path)
            if found and method == request.method:
                parts = {name: unquote(text) for name, text in found.groupdict().items()}
                return handler, parts
        raise Problem(
            404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path}'"
        )


def _pattern(path: str) -> Iterator[str]:
    for part in re.split(r"(\{\w+(?::path)?\}|2\.\*)", path):
        if part == "2.*":
            yield r"2\.\d"
        elif part.startswith("{"):
            name, _, kind = part.strip("{}").partition(":")
            yield f"(?P<{name}>{'.+' if kind else '[^/]+'})"
        else:
            yield re.escape(part)


def as_bytes(body: bytes, kind: str = "application/octet-stream", **headers: str) -> Response:
    """Return a file's bytes; a header's underscores become dashes."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(body=body, headers={"Content-Type": kind, **named})


def no_content() -> Response:
    """Return the answer of the Files API where it has none."""
    return Response(status=204)


def page_of(
    rows: list[dict[str, Any]], call: Call, *, size: int, key: str, field_of_size: str
) -> dict[str, Any]:
    """Return one page of a list, with the token of the next.

    Args:
        rows: All of them.
        call: With `page_token`.
        size: How many at most where the caller says nothing.
        key: Name of the list.
        field_of_size: Name of the caller's number.
    """
    asked = int(call.query.get(field_of_size) or 0) or size
    start = int(call.query.get("page_token") or 0)
    page: dict[str, Any] = {key: rows[start : start + asked]}
    if start + asked < len(rows):
        page["next_page_token"] = str(start + asked)
    return page


def copied(value: Any) -> Any:
    """Return a JSON value that shares nothing with this one."""
    return json.loads(json.dumps(value))
