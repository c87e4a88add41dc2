"""A server on this machine whose answers a test scripts one by one."""

from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


class ScriptedServer:
    """A server that gives each of some answers in turn.

    Attributes:
        responses: Status and headers of each answer; status 0 never comes.
        chunks: Parts of each answer's body.
        drip_s: Seconds before each part, and before each byte of the headers.
    """

    def __init__(self) -> None:
        self.responses: list[tuple[int, dict[str, str]]] = []
        self.chunks: list[bytes] = [b"{}"]
        self.drip_s = 0.0
        self.drips_headers = False
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.connections: set[Any] = set()
        self.is_ending = Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def respond(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.requests.append((self.command, self.path, dict(self.headers)))
                server.connections.add(self.client_address)
                status, headers = server.responses.pop(0) if server.responses else (200, {})
                if status == 0:
                    server.is_ending.wait(30)
                if server.drips_headers:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                    while not server.is_ending.wait(server.drip_s):
                        self.wfile.write(b"x")
                self.send_response(status or 500)
                for name, value in headers.items():
                    self.send_header(name, value)
                size = sum(map(len, server.chunks))
                self.send_header("Content-Length", str(size))
                self.end_headers()
                if self.command != "HEAD":
                    with suppress(ConnectionError):
                        for chunk in server.chunks:
                            server.is_ending.wait(server.drip_s)
                            self.wfile.write(chunk)

            do_GET = do_POST = do_HEAD = respond

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output free of requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.is_ending.set()
        self._server.shutdown()
        self._server.server_close()
