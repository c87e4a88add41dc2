"""Requests: retries by method and status, a total deadline, no redirect, paging that ends."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from dbx_aml._common.errors import ServiceError
from dbx_aml._common.http import NoAnswerError, paged, send
from dbx_aml._common.retry import RetryPolicy
from tests.support.clock import FakeClock

POLICY = RetryPolicy(timeout_s=20)


class Server:
    """A server that gives each of some answers in turn: status, headers, body."""

    def __init__(self) -> None:
        self.responses: list[tuple[int, dict[str, str]]] = []
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
                self.send_response(status or 500)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(b"{}")

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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.stop()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_read_is_retried_after_a_temporary_failure(server: Server, status: int) -> None:
    server.responses = [(status, {}), (status, {})]
    clock = FakeClock()
    assert send("GET", server.url, POLICY, clock=clock, sleep=clock.sleep).status_code == 200
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "requests"), [(429, 2), (503, 2), (500, 1), (504, 1)])
def test_a_write_is_retried_only_if_it_was_refused(
    server: Server, status: int, requests: int
) -> None:
    server.responses = [(status, {"Retry-After": "3"})]
    clock = FakeClock()
    answer = send("POST", server.url, POLICY, json={}, clock=clock, sleep=clock.sleep)
    assert answer.status_code == (200 if requests == 2 else status)
    assert len(server.requests) == requests
    assert clock.sleeps == [3.0] * (requests - 1)


def test_a_post_that_only_reads_can_be_declared_idempotent(server: Server) -> None:
    server.responses = [(500, {})]
    assert send("POST", server.url, POLICY, json={}, is_idempotent=True).status_code == 200


def test_after_the_last_attempt_the_answer_comes_back_whatever_its_status(server: Server) -> None:
    server.responses = [(503, {"Retry-After": "3600"})]
    assert send("GET", server.url, POLICY).status_code == 503
    server.responses = [(404, {})]
    assert send("GET", server.url, POLICY).status_code == 404
    assert len(server.requests) == 2


def test_a_host_that_never_answers_is_left_at_the_deadline(server: Server) -> None:
    server.responses = [(0, {})]
    started = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"host 127\.0\.0\.1 must answer: got no answer"):
        send("GET", server.url, RetryPolicy(timeout_s=0.3))
    assert time.monotonic() - started < 5


def test_a_closed_port_is_retried_and_then_named_without_the_token(server: Server) -> None:
    server.stop()
    with pytest.raises(NoAnswerError, match="host 127") as caught:
        send(
            "GET",
            server.url,
            RetryPolicy(timeout_s=5, max_attempts=2),
            headers={"Authorization": "Bearer token-of-ana"},
        )
    assert "token-of-ana" not in str(caught.value)
    assert type(caught.value.cause).__name__ == "ConnectionError"


def test_a_redirect_is_returned_and_not_followed(server: Server) -> None:
    server.responses = [(302, {"Location": f"{server.url}/elsewhere"})]
    assert send("GET", f"{server.url}/here", POLICY).status_code == 302
    assert [path for _, path, _ in server.requests] == ["/here"]


def test_the_header_with_the_token_is_not_replaced_by_a_netrc(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ana password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    send("GET", server.url, POLICY, headers={"Authorization": "Bearer of-ana"})
    assert server.requests[0][2]["Authorization"] == "Bearer of-ana"


def test_requests_share_connections_but_no_cookies(server: Server) -> None:
    server.responses = [(200, {"Set-Cookie": "user=ana"})]
    for _ in range(3):
        send("GET", server.url, POLICY)
    assert len(server.connections) == 1
    assert all("Cookie" not in headers for _, _, headers in server.requests)


def test_pages_are_read_to_the_last() -> None:
    pages = {None: ([1, 2], "a"), "a": ([], "b"), "b": ([3], "")}
    assert list(paged(pages.__getitem__, "runs/search")) == [1, 2, 3]


def test_a_list_that_repeats_a_token_ends_with_an_error_that_names_the_call() -> None:
    pages = {None: ([1], "a"), "a": ([2], "b"), "b": ([3], "a")}
    items = paged(pages.__getitem__, "runs/search")
    assert [next(items) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ServiceError, match=r"pages of runs/search must end: got the token 'a'"):
        next(items)
