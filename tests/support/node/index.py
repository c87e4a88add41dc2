"""A package index over HTTP that serves a folder of wheels, with delays, errors and wrong bytes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.support.node.wheel import sha256


class Index:
    """The content of the index and its faults.

    Args:
        folder: Folder of the wheels; it is read at each request.

    Attributes:
        delay_s: Seconds before each response.
        failures: Number of requests that get the status 503.
        corrupted_wheel: Beginning of the name of a wheel that is served with a wrong byte.
        requests: Path of each request.
        url: URL for pip's `--index-url`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.delay_s = 0.0
        self.failures = 0
        self.corrupted_wheel = ""
        self.requests: list[str] = []
        self.url = ""

    def project_page(self, project: str) -> bytes | None:
        """Return the page with links to a project's wheels; None if the folder has none."""
        prefix = project.replace("-", "_") + "-"
        files = self.folder.glob("*.whl")
        wheels = [file for file in files if file.name.lower().startswith(prefix)]
        if not wheels:
            return None
        links = (
            f'<a href="/files/{file.name}#sha256={sha256(file)}">{file.name}</a>' for file in wheels
        )
        return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()

    def wheel_content(self, name: str) -> bytes:
        """Return the bytes of a wheel."""
        content = (self.folder / name).read_bytes()
        is_corrupted = self.corrupted_wheel and name.startswith(self.corrupted_wheel)
        return content[:-1] + b"?" if is_corrupted else content


@contextmanager
def serve(folder: Path) -> Iterator[Index]:
    """Serve a folder of wheels until the block ends."""
    index = Index(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.requests.append(self.path)
            time.sleep(index.delay_s)
            if index.failures:
                index.failures -= 1
                return self.respond(503, b"")
            kind, _, name = self.path.strip("/").partition("/")
            content = index.wheel_content(name) if kind == "files" else index.project_page(name)
            return self.respond(404 if content is None else 200, content or b"")

        def respond(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index.url = f"http://127.0.0.1:{server.server_port}/simple/"
        Thread(target=server.serve_forever, daemon=True).start()
        yield index
        server.shutdown()
