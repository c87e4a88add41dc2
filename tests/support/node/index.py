"""A package index over HTTP that serves a folder of wheels, and can be slow, broken or strange."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.support.node.wheel import sha256


class Index:
    """What is served and how.

    Args:
        folder: Of the wheels; read at each request.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.delay_s = 0.0
        self.failures = 0
        self.corrupt = ""
        self.requests: list[str] = []
        self.url = ""

    def page(self, project: str) -> bytes | None:
        """Return the page with a project's files; None where there are none."""
        prefix = project.replace("-", "_") + "-"
        files = [one for one in self.folder.glob("*.whl") if one.name.lower().startswith(prefix)]
        if not files:
            return None
        links = (
            f'<a href="/files/{one.name}#sha256={sha256(one)}">{one.name}</a>' for one in files
        )
        return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()

    def file(self, name: str) -> bytes:
        """Return a wheel, or something else under its name."""
        content = (self.folder / name).read_bytes()
        return content[:-1] + b"?" if self.corrupt and name.startswith(self.corrupt) else content


@contextmanager
def serve(folder: Path) -> Iterator[Index]:
    """Serve a folder until the block ends."""
    index = Index(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.requests.append(self.path)
            time.sleep(index.delay_s)
            if index.failures:
                index.failures -= 1
                return self.answer(503, b"")
            kind, _, name = self.path.strip("/").partition("/")
            content = index.file(name) if kind == "files" else index.page(name)
            return self.answer(404 if content is None else 200, content or b"")

        def answer(self, status: int, content: bytes) -> None:
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
