"""Passing a request on to one of the servers behind the stand-in, over a pool of connections."""

from collections.abc import Mapping

import urllib3

from tests.support.http.messages import Response

# Headers of one connection, and headers that the proxy writes itself.
_CONNECTION_HEADERS = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "proxy-connection",
    "date",
    "server",
}


class Upstream:
    """A server on loopback."""

    def __init__(self, port: int) -> None:
        self._pool = urllib3.HTTPConnectionPool(
            "127.0.0.1", port, maxsize=32, timeout=urllib3.Timeout(60)
        )

    def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        """Send a request once and return the response unchanged, also a redirect."""
        got = self._pool.urlopen(
            method,
            target,
            body=body,
            headers=_forwarded_headers(headers),
            redirect=False,
            retries=False,
            decode_content=False,
        )
        return Response(status=got.status, body=got.data, headers=_forwarded_headers(got.headers))


def _forwarded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name.lower() not in _CONNECTION_HEADERS}
