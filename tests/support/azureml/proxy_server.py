"""An HTTP proxy on loopback whose tunnels end in the stand-in itself.

A client asks it for a tunnel to a host of Azure; the proxy answers there with a certificate for
that host, so that no name has to be resolved and nothing leaves the machine. Requests without a
tunnel go to the admin port and to the managed identity.
"""

import logging
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

from tests.support.azureml.errors import service_error
from tests.support.http.faults import Fault, Faults
from tests.support.http.journal import Entry, Journal
from tests.support.http.messages import Request, Response

log = logging.getLogger(__name__)
Respond = Callable[[Request], Response]
_CODES = {403: "AuthorizationFailure", 429: "TooManyRequests", 503: "ServiceUnavailable"}


class ProxyServer(ThreadingHTTPServer):
    """The HTTP server of the stand-in, on one port.

    Args:
        certificate: File with certificate and key of the hosts.
        hosts: Hosts a tunnel may lead to; 502 for others.
        respond: Function that answers a request to a host of Azure.
        direct: Function that answers a request without a tunnel.
        faults: Active faults.
        journal: Journal of the requests.

    Attributes:
        ahead_s: Seconds by which the clock of its hosts is ahead.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        certificate: Path,
        hosts: tuple[str, ...],
        respond: Respond,
        direct: Respond,
        faults: Faults,
        journal: Journal,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.hosts = hosts
        self.respond = respond
        self.direct = direct
        self.faults = faults
        self.journal = journal
        self.released = Event()
        self.ahead_s = 0.0

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self.server_address[1])

    def release(self) -> None:
        """Let go of every connection in a black hole; they are closed without an answer."""
        self.released.set()
        self.released = Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep a client that hung up out of the log: that is what tests of faults do."""
        log.debug("connection from %s ended early", client_address, exc_info=True)


class _Connection(BaseHTTPRequestHandler):
    """A connection: requests to the proxy itself or, after CONNECT, to a host."""

    server: ProxyServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    host = ""

    def finish(self) -> None:
        super().finish()
        # The server only knows the socket that the tunnel's took over.
        self.connection.close()

    def do_CONNECT(self) -> None:
        host = self.path.rpartition(":")[0].lower()
        self.close_connection = True
        if host not in self.server.hosts:
            self._record_request("CONNECT", host, "", 502, time.monotonic(), "")
            self._send(Response(status=502, body=b"no such host behind this proxy"))
            return
        fault = self.server.faults.fault_of_connection(host)
        if fault and fault.kind == "drop":
            self._record_request("CONNECT", host, "", 0, time.monotonic(), fault.kind)
            return
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if fault:
            started = time.monotonic()
            self.server.released.wait()
            self._record_request("CONNECT", host, "", 0, started, fault.kind)
            return
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.host = host
        self.close_connection = False

    def _handle_request(self) -> None:
        if "Transfer-Encoding" in self.headers:
            # Azure's clients do not send chunks; unread chunks would look like the next request.
            self.close_connection = True
            self._send(Response(status=411))
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            # The client has closed the connection, perhaps because a test killed it.
            self.close_connection = True
            return
        request = Request(
            method=self.command,
            host=self.host,
            target=self.path,
            headers={name.lower(): text for name, text in self.headers.items()},
            body=body,
        )
        if not self.host:
            url = urlsplit(self.path)
            if url.netloc and url.hostname != "127.0.0.1":
                # Plain HTTP to elsewhere, such as a virtual machine's identity endpoint.
                self._send(Response(status=502, body=b"no such host behind this proxy"))
                return
            self._send(self.server.direct(request))
            return
        started = time.monotonic()
        fault = self.server.faults.next_fault(self.host, request.method, request.path)
        answer = self._with_fault(request, fault)
        status = answer.status if answer else 0
        kind = fault.kind if fault else ""
        self._record_request(request.method, self.host, request.path, status, started, kind)
        if answer is None:
            self.close_connection = True
            return
        self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle_request

    def _with_fault(self, request: Request, fault: Fault | None) -> Response | None:
        """Return the answer, or None to close the connection without one."""
        if fault and fault.kind == "status":
            return _fault_response(fault, request.host)
        if fault and fault.kind == "drop":
            return None
        if fault and fault.kind == "black-hole":
            self.server.released.wait()
            return None
        if fault and fault.kind == "delay":
            time.sleep(fault.delay_s)
        answer = self._respond(request)
        return None if fault and fault.kind == "lost-answer" else answer

    def _respond(self, request: Request) -> Response:
        try:
            return self.server.respond(request)
        except Exception as error:  # an error of the stand-in must be visible
            log.exception("failed to answer method=%s path=%s", request.method, request.path)
            return service_error(500, f"The stand-in failed: {error!r}", code="StandInFailed")

    def _send(self, response: Response) -> None:
        reason = response.reason or self.responses.get(response.status, ("",))[0]
        lines = [f"{self.protocol_version} {response.status} {reason}"]
        if not any(name.lower() == "date" for name in response.headers):
            lines.append(f"Date: {formatdate(time.time() + self.server.ahead_s, usegmt=True)}")
        is_head = self.command == "HEAD"
        lines += [
            f"{name}: {text}"
            for name, text in response.headers.items()
            if is_head or name.lower() != "content-length"
        ]
        if not is_head and response.status not in (204, 304):
            lines.append(f"Content-Length: {len(response.body)}")
        if self.close_connection:
            lines.append("Connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        # One write: a head and a body sent apart wait for each other's acknowledgement.
        self.connection.sendall(head if is_head else head + response.body)

    def _record_request(
        self, method: str, host: str, path: str, status: int, started: float, fault: str
    ) -> None:
        self.server.journal.add(
            Entry(
                method=method,
                host=host,
                path=path,
                status=status,
                seconds=round(time.monotonic() - started, 3),
                user_agent=self.headers.get("User-Agent", ""),
                fault=fault,
            )
        )

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr: the journal has it."""


def _fault_response(fault: Fault, host: str) -> Response:
    code = _CODES.get(fault.status, "UserError")
    text = f"The stand-in was told to answer {fault.status}."
    wait = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    if ".blob." in host:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>"
        headers = {"Content-Type": "application/xml", "x-ms-error-code": code, **wait}
        return Response(status=fault.status, body=body.encode(), headers=headers)
    if fault.status == 404:
        # As the service answers a call that it does not have.
        return Response(status=404)
    error = service_error(fault.status, text, code=code)
    return Response(status=fault.status, body=error.body, headers={**error.headers, **wait})
