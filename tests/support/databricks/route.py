"""A call of the REST API, its handler, and the form of the platform's errors."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.support.http.messages import Request, Response, json_response


class Problem(Exception):
    """An error answer of the API.

    Args:
        status: HTTP status.
        code: The platform's `error_code`.
        message: Text that clients show.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def to_response(self, **headers: str) -> Response:
        """Return the error as the platform writes it."""
        error = {"error_code": self.code, "message": str(self), "details": []}
        return json_response(error, self.status, **headers)


def resource_not_found(message: str) -> Problem:
    """Return the error 404 for a resource that does not exist."""
    return Problem(404, "RESOURCE_DOES_NOT_EXIST", message)


def invalid_parameter(message: str) -> Problem:
    """Return the error 400 for a wrong argument."""
    return Problem(400, "INVALID_PARAMETER_VALUE", message)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request with the values of its route.

    Args:
        request: HTTP request.
        path_values: Values of the route's names in the path, unquoted.
        user: Signed-in user.
    """

    request: Request
    path_values: Mapping[str, str] = field(default_factory=dict)
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

    def required(self, name: str) -> Any:
        """Return a required value of the query or the body."""
        value = self.query.get(name) or (
            self.body.get(name) if self.request.method != "GET" else None
        )
        if value in (None, ""):
            raise invalid_parameter(f"Missing required field: {name}")
        return value


# A handler that returns None answers with an empty object, as the platform does.
Handler = Callable[[Call], "Response | dict[str, Any] | None"]


class Routes:
    """Handlers by method and path.

    A path's `{name}` is one segment, `{name:path}` is the rest.
    """

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, handlers: Mapping[str, Handler]) -> None:
        """Add handlers by texts such as "GET /api/2.1/clusters/get".

        `2.*` in a path stands for every version of the API.
        """
        for route, handler in handlers.items():
            method, path = route.split(" ", 1)
            pattern = "".join(_pattern(path))
            self._routes.append((method, re.compile(pattern), handler))

    def find(self, request: Request) -> tuple[Handler, dict[str, str]]:
        """Return the handler of a request and the values in its path.

        Raises:
            Problem: No route matches.
        """
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match and method == request.method:
                values = {name: unquote(text) for name, text in match.groupdict().items()}
                return handler, values
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


def bytes_response(body: bytes, kind: str = "application/octet-stream", **headers: str) -> Response:
    """Return a file's bytes; a header's underscores become dashes."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(body=body, headers={"Content-Type": kind, **named})


def no_content() -> Response:
    """Return an answer without content, as the Files API does after a write."""
    return Response(status=204)


def page_of(
    rows: list[dict[str, Any]], call: Call, *, size: int, key: str, field_of_size: str
) -> dict[str, Any]:
    """Return one page of a list, with the token of the next.

    Args:
        rows: All rows of the list.
        call: Call with the field `page_token`.
        size: Rows of a page if the call does not name a number.
        key: Name of the list in the answer.
        field_of_size: Name of the field with the number of rows.
    """
    rows_per_page = int(call.query.get(field_of_size) or 0) or size
    start = int(call.query.get("page_token") or 0)
    page: dict[str, Any] = {key: rows[start : start + rows_per_page]}
    if start + rows_per_page < len(rows):
        page["next_page_token"] = str(start + rows_per_page)
    return page


def deep_copy(value: Any) -> Any:
    """Return a copy of a JSON value that shares no object with the original."""
    return json.loads(json.dumps(value))
