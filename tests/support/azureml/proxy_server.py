"""An HTTP proxy on loopback whose tunnels end in the stand-in itself.

A client asks it for a tunnel to a host of Azure; the proxy answers there with a certificate for
that host, so that no name has to be resolved and nothing leaves the machine. Requests without a
tunnel go to the admin port and to the managed identity.
"""

import ssl
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.azureml.errors import service_error
from tests.support.http.faults import Fault, Faults
from tests.support.http.journal import Journal
from tests.support.http.messages import Request, Response
from tests.support.http.server import Connection, Server

Respond = Callable[[Request], Response]
_CODES = {403: "AuthorizationFailure", 429: "TooManyRequests", 503: "ServiceUnavailable"}


class ProxyServer(Server):
    """The HTTP server of the stand-in, on one port.

    Args:
        certificate: File with certificate and key of the hosts.
        hosts: Hosts a tunnel may lead to, with `*` as a wildcard; 502 for others.
        respond: Function that answers a request to a host of Azure.
        direct: Function that answers a request without a tunnel.
        faults: Active faults.
        journal: Journal of the requests.
    """

    def __init__(
        self,
        certificate: Path,
        hosts: tuple[str, ...],
        respond: Respond,
        direct: Respond,
        faults: Faults,
        journal: Journal,
    ) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.hosts = hosts
        self.direct = direct
        super().__init__(respond, _fault_response, faults, journal, _Tunnel)


class _Tunnel(Connection):
    """A connection: requests to the proxy itself or, after CONNECT, to a host."""

    server: ProxyServer

    def finish(self) -> None:
        super().finish()
        # The server only knows the socket that the tunnel's took over.
        self.connection.close()

    def do_CONNECT(self) -> None:
        self.host = self.path.rpartition(":")[0].lower()
        self.close_connection = True
        started = time.monotonic()
        if not any(fnmatchcase(self.host, pattern) for pattern in self.server.hosts):
            self.record_request("", 502, started, "")
            self.send(Response(status=502, body=b"no such host behind this proxy"))
            return
        fault = self.server.faults.fault_of_connection(self.host)
        if fault and fault.kind == "drop":
            self.record_request("", 0, started, fault.kind)
            return
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if fault:
            self.server.released.wait()
            self.record_request("", 0, started, fault.kind)
            return
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def answer(self, request: Request) -> None:
        if self.host:
            super().answer(request)
            return
        url = urlsplit(self.path)
        if url.netloc and url.hostname != "127.0.0.1":
            # Plain HTTP to elsewhere, such as a virtual machine's identity endpoint.
            self.send(Response(status=502, body=b"no such host behind this proxy"))
            return
        self.send(self.server.direct(request))


def _fault_response(fault: Fault, request: Request) -> Response:
    code = _CODES.get(fault.status, "UserError")
    text = f"The stand-in was told to answer {fault.status}."
    wait = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    if ".blob." in request.host:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>"
        headers = {"Content-Type": "application/xml", "x-ms-error-code": code, **wait}
        return Response(status=fault.status, body=body.encode(), headers=headers)
    if fault.status == 404:
        # As the service answers a call that it does not have.
        return Response(status=404)
    error = service_error(fault.status, text, code=code)
    return Response(status=fault.status, body=error.body, headers={**error.headers, **wait})
