"""A host that sends every caller on to another host, and the requests that the other host got."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def redirecting_server() -> Iterator[tuple[str, list[str]]]:
    """Start both hosts on this machine; yield the URL of the first and the second one's requests.

    Example:
        with redirecting_server() as (url, requests_elsewhere):
            call(url)
            assert requests_elsewhere == []
    """
    requests_elsewhere: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        target = ""

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not self.target:
                requests_elsewhere.append(f"{self.command} {self.path}")
            self.send_response(307 if self.target else 200)
            self.send_header("Location", f"{self.target}/taken")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_HEAD = answer

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing to stderr."""

    with ExitStack() as stack:

        def start(handler: type[Handler]) -> str:
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return f"127.0.0.1:{server.server_port}"

        elsewhere = start(Handler).replace("127.0.0.1", "localhost")
        first = type("FirstHandler", (Handler,), {"target": f"http://{elsewhere}"})
        yield f"http://{start(first)}", requests_elsewhere
