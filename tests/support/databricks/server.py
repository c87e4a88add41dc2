"""The HTTP server: one port on loopback, in threads of the test's process."""

import logging
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from tests.support.databricks.route import Problem
from tests.support.http.faults import Fault, Faults
from tests.support.http.journal import Entry, Journal
from tests.support.http.messages import Request, Response

log = logging.getLogger(__name__)
_CODES = {
    403: "PERMISSION_DENIED",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


class Server(ThreadingHTTPServer):
    """An HTTP server for the whole workspace.

    Args:
        respond: Function that responds to a request.
        faults: Active faults.
        journal: Journal of the requests.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        respond: Callable[[Request], Response],
        faults: Faults,
        journal: Journal,
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Connection)
        self.respond = respond
        self.faults = faults
        self.journal = journal
        self.released = Event()
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        """Value of DATABRICKS_HOST."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def release_requests(self) -> None:
        """Close the connections of requests that wait in a black hole."""
        self.released.set()
        self.released = Event()

    def close(self) -> None:
        """Stop the server, and release requests in a black hole."""
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Log at level debug only: tests of faults make clients hang up."""
        log.debug("connection from %s ended early", client_address, exc_info=True)


class _Connection(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _respond(self) -> None:
        body = self._body()
        if body is None:
            # The client was killed: half a request does not count.
            self.close_connection = True
            return
        request = Request(
            method=self.command,
            host="",
            target=self.path,
            headers={name.lower(): text for name, text in self.headers.items()},
            body=body,
        )
        started = time.monotonic()
        fault = self.server.faults.next_fault("", request.method, request.path)
        response = self._with_fault(request, fault)
        self.server.journal.add(
            Entry(
                method=request.method,
                host="",
                path=request.path,
                status=response.status if response else 0,
                seconds=round(time.monotonic() - started, 3),
                user_agent=self.headers.get("User-Agent", ""),
                fault=fault.kind if fault else "",
            )
        )
        if response is None:
            self.close_connection = True
            return
        self._send(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _respond

    def _body(self) -> bytes | None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            whole = b""
            while size := int(self.rfile.readline().split(b";")[0].strip() or b"0", 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _with_fault(self, request: Request, fault: Fault | None) -> Response | None:
        """Return the response, or None to close the connection without a response."""
        if fault and fault.kind == "status":
            wait = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
            code = _CODES.get(fault.status, "BAD_REQUEST")
            problem = Problem(
                fault.status, code, f"The stand-in responds with {fault.status} for a test."
            )
            return problem.to_response(**wait)
        if fault and fault.kind == "drop":
            return None
        if fault and fault.kind == "black-hole":
            self.server.released.wait()
            return None
        if fault and fault.kind == "delay":
            time.sleep(fault.delay_s)
        response = self.server.respond(request)
        return None if fault and fault.kind == "lost-answer" else response

    def _send(self, response: Response) -> None:
        lines = [f"{self.protocol_version} {response.status} "]
        lines += [f"{name}: {text}" for name, text in response.headers.items()]
        if response.status not in (204, 304):
            lines.append(f"Content-Length: {len(response.body)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        # One write: a head and a body sent apart wait for each other's acknowledgement.
        self.connection.sendall(head if self.command == "HEAD" else head + response.body)

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing to stderr: the journal has the request."""
