"""The HTTP server of a stand-in: one port on loopback, with faults and a journal."""

import logging
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from tests.support.http.faults import Fault, Faults
from tests.support.http.journal import Entry, Journal
from tests.support.http.messages import Request, Response

log = logging.getLogger(__name__)


class Server(ThreadingHTTPServer):
    """An HTTP server in threads of this process; it serves from the first moment."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        respond: Callable[[Request], Response],
        fault_response: Callable[[Fault, Request], Response],
        faults: Faults,
        journal: Journal,
        connection: "type[Connection] | None" = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), connection or Connection)
        self.respond = respond
        self.fault_response = fault_response
        self.faults = faults
        self.journal = journal
        self.released = Event()
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

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


class Connection(BaseHTTPRequestHandler):
    """A connection to the server."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    host = ""

    def _handle_request(self) -> None:
        body = self._body()
        if body is None:
            # The client was killed: half a request does not count.
            self.close_connection = True
            return
        request = Request(
            method=self.command,
            host=self.host,
            target=self.path,
            headers={name.lower(): text for name, text in self.headers.items()},
            body=body,
        )
        self.answer(request)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle_request

    def answer(self, request: Request) -> None:
        """Send a response or close the connection; add the request to the journal."""
        started = time.monotonic()
        fault = self.server.faults.next_fault(request.host, request.method, request.path)
        response = self._with_fault(request, fault)
        kind = fault.kind if fault else ""
        self.record_request(request.path, response.status if response else 0, started, kind)
        if response is None:
            self.close_connection = True
        else:
            self.send(response)

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
            return self.server.fault_response(fault, request)
        if fault and fault.kind == "drop":
            return None
        if fault and fault.kind == "black-hole":
            self.server.released.wait()
            return None
        if fault and fault.kind == "delay":
            time.sleep(fault.delay_s)
        response = self.server.respond(request)
        return None if fault and fault.kind == "lost-answer" else response

    def send(self, response: Response) -> None:
        """Write a response to the connection."""
        is_head = self.command == "HEAD"
        headers = {name.title(): text for name, text in response.headers.items()}
        if response.status in (204, 304):
            headers.pop("Content-Length", None)
        elif not (is_head and "Content-Length" in headers):
            headers["Content-Length"] = str(len(response.body))
        headers.setdefault("Date", formatdate(usegmt=True))
        if self.close_connection:
            headers["Connection"] = "close"
        reason = response.reason or self.responses.get(response.status, ("",))[0]
        lines = [f"{self.protocol_version} {response.status} {reason}"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        # One write: a head and a body sent apart wait for each other's acknowledgement.
        self.connection.sendall(head if is_head else head + response.body)

    def record_request(self, path: str, status: int, started: float, fault: str) -> None:
        """Add a request to the journal.

        Args:
            path: Path of the request.
            status: Status of the response; 0 without a response.
            started: Time of its last byte, on the monotonic clock.
            fault: Kind of the fault that hit it, or empty.
        """
        seconds = round(time.monotonic() - started, 3)
        self.server.journal.add(
            Entry(
                method=self.command,
                host=self.host,
                path=path,
                status=status,
                seconds=seconds,
                fault=fault,
            )
        )

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing to stderr: the journal has the request."""
