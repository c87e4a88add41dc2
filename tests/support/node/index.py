"""A package index over HTTP that serves a folder of wheels."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.support.node.wheel import sha256


class Index:
    """The content of the index.

    Args:
        folder: Folder of the wheels; it is read at each request.

    Attributes:
        requests: Path of each request.
        url: URL for pip's `--index-url`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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


@contextmanager
def serve(folder: Path) -> Iterator[Index]:
    """Serve a folder of wheels until the block ends."""
    index = Index(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.requests.append(self.path)
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "files":
                content: bytes | None = (index.folder / name).read_bytes()
            else:
                content = index.project_page(name)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index.url = f"http://127.0.0.1:{server.server_port}/simple/"
        Thread(target=server.serve_forever, daemon=True).start()
        yield index
        server.shutdown()
