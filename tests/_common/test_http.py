"""Requests: retries by method and status, a total deadline, no redirect, paging that ends."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter, Retry

from dbx_aml._common import http
from dbx_aml._common.deadline import call_within
from dbx_aml._common.errors import ServiceError
from dbx_aml._common.http import (
    NoAnswerError,
    Transfer,
    bound_client,
    paged,
    root_cause,
    send,
    send_within,
)
from dbx_aml._common.retry import RetryPolicy
from tests.support.clock import FakeClock
from tests.support.http.scripted_server import ScriptedServer

POLICY = RetryPolicy(timeout_s=20)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ScriptedServer()
    yield server
    server.stop()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_read_is_retried_after_a_temporary_failure(server: ScriptedServer, status: int) -> None:
    server.responses = [(status, {}), (status, {})]
    clock = FakeClock()
    assert send("GET", server.url, POLICY, clock=clock, sleep=clock.sleep).status_code == 200
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "requests"), [(429, 2), (503, 2), (500, 1), (504, 1)])
def test_a_write_is_retried_only_if_it_was_refused(
    server: ScriptedServer, status: int, requests: int
) -> None:
    server.responses = [(status, {"Retry-After": "3"})]
    clock = FakeClock()
    answer = send("POST", server.url, POLICY, json={}, clock=clock, sleep=clock.sleep)
    assert answer.status_code == (200 if requests == 2 else status)
    assert len(server.requests) == requests
    assert clock.sleeps == [3.0] * (requests - 1)


def test_a_post_that_only_reads_can_be_declared_idempotent(server: ScriptedServer) -> None:
    server.responses = [(500, {})]
    assert send("POST", server.url, POLICY, json={}, is_idempotent=True).status_code == 200


def test_after_the_last_attempt_the_answer_comes_back_whatever_its_status(
    server: ScriptedServer,
) -> None:
    server.responses = [(503, {"Retry-After": "3600"})]
    assert send("GET", server.url, POLICY).status_code == 503
    server.responses = [(404, {})]
    assert send("GET", server.url, POLICY).status_code == 404
    assert len(server.requests) == 2


def test_a_host_that_never_answers_is_left_at_the_deadline(server: ScriptedServer) -> None:
    server.responses = [(0, {})]
    started = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"host 127\.0\.0\.1 must answer: got no answer"):
        send("GET", server.url, RetryPolicy(timeout_s=0.3))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("timeout", [0.1, None])
def test_a_slow_host_has_one_text_whoever_ends_the_wait(
    server: ScriptedServer, timeout: float | None
) -> None:
    server.responses = [(0, {})]
    with pytest.raises((requests.Timeout, TimeoutError)) as caught:
        if timeout is None:
            call_within(lambda: requests.get(server.url, timeout=30), 0.1)
        requests.get(server.url, timeout=timeout)
    assert root_cause(caught.value) == "no answer in time"


def test_a_closed_port_is_retried_and_then_named_without_the_token(server: ScriptedServer) -> None:
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


def test_a_redirect_is_returned_and_not_followed(server: ScriptedServer) -> None:
    server.responses = [(302, {"Location": f"{server.url}/elsewhere"})]
    assert send("GET", f"{server.url}/here", POLICY).status_code == 302
    assert [path for _, path, _ in server.requests] == ["/here"]


def test_the_header_with_the_token_is_not_replaced_by_a_netrc(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ana password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    send("GET", server.url, POLICY, headers={"Authorization": "Bearer of-ana"})
    assert server.requests[0][2]["Authorization"] == "Bearer of-ana"


def test_requests_share_connections_but_no_cookies(server: ScriptedServer) -> None:
    server.responses = [(200, {"Set-Cookie": "user=ana"})]
    for _ in range(3):
        send("GET", server.url, POLICY)
    assert len(server.connections) == 1
    assert all("Cookie" not in headers for _, _, headers in server.requests)


def send_with_other_library(url: str) -> requests.Response:
    """Send a request as MLflow does: with its own retries, timeout and wait."""
    with requests.Session() as session:
        retries = Retry(7, status_forcelist=[429, 503], backoff_factor=0.01)
        session.mount("http://", HTTPAdapter(max_retries=retries))
        return session.get(url, timeout=120)


def send_within_policy(url: str, policy: RetryPolicy) -> requests.Response:
    with send_within(policy):
        return send_with_other_library(url)


SENDERS = [lambda url, policy: send("GET", url, policy), send_within_policy]


@pytest.mark.parametrize("send_request", SENDERS, ids=["own", "other library"])
@pytest.mark.parametrize("drips_headers", [True, False])
def test_an_answer_that_comes_byte_by_byte_ends_at_the_deadline(
    server: ScriptedServer, send_request: Callable[..., Any], drips_headers: bool
) -> None:
    server.drip_s, server.drips_headers, server.chunks = 0.05, drips_headers, [b" "] * 1000
    started = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"host 127\.0\.0\.1 must answer: got no answer"):
        send_request(server.url, RetryPolicy(timeout_s=0.3))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("send_request", SENDERS, ids=["own", "other library"])
def test_an_answer_that_is_too_large_is_not_read(
    server: ScriptedServer, send_request: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 2**20)
    server.chunks = [b"x" * 2**20]
    assert len(send_request(server.url, POLICY).content) == 2**20
    server.chunks = [b"x" * 2**16] * 10_000
    with pytest.raises(ServiceError, match=r"answer of 127\.0\.0\.1 must have at most 1 MiB"):
        send_request(server.url, POLICY)


@pytest.mark.parametrize("send_request", SENDERS, ids=["own", "other library"])
def test_of_an_error_only_the_beginning_is_read(
    server: ScriptedServer, send_request: Callable[..., Any]
) -> None:
    server.responses = [(404, {})]
    server.chunks = [b"x" * 2**16] * 10_000
    response = send_request(server.url, POLICY)
    assert (response.status_code, response.content) == (404, b"x" * 8192)


def test_the_wait_of_another_library_is_no_longer_than_the_policy(server: ScriptedServer) -> None:
    server.responses = [(429, {"Retry-After": "3600"})] * 9
    started = time.monotonic()
    with pytest.raises(NoAnswerError, match="429, which asks to wait 3600 s"):
        send_within_policy(server.url, RetryPolicy(timeout_s=60))
    assert time.monotonic() - started < 20
    assert len(server.requests) == 1


@pytest.mark.parametrize("header", ["0", "-5", "nan"])
def test_a_service_that_asks_for_no_wait_gets_a_handful_of_requests(
    server: ScriptedServer, header: str
) -> None:
    server.responses = [(503, {"Retry-After": header})] * 100
    with pytest.raises(NoAnswerError):
        send_within_policy(server.url, RetryPolicy(timeout_s=1.5))
    assert len(server.requests) == 3


def test_another_library_that_retries_by_itself_gets_every_answer(server: ScriptedServer) -> None:
    server.responses = [(503, {"Retry-After": "7"})]
    response = send_within_policy(server.url, RetryPolicy(timeout_s=60, max_attempts=1))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "7")


def test_an_error_of_a_block_is_not_taken_for_the_one_that_its_caller_handles() -> None:
    def close_again() -> None:
        try:
            raise ServiceError("closed")
        except ServiceError:
            with send_within(POLICY):
                int("one")

    with pytest.raises(ValueError, match="invalid literal"):
        close_again()


def test_a_bound_client_sends_each_request_within_the_policy(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        name = "ana"

        def get(self, url: str) -> int:
            return send_with_other_library(url).status_code

    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "0.5")
    client = bound_client(Client())
    assert client.name == "ana"
    server.responses = [(503, {}), (200, {})]
    assert client.get(server.url) == 200
    server.responses = [(429, {"Retry-After": "3600"})]
    with pytest.raises(NoAnswerError, match=r"within 0\.5 s"):
        client.get(server.url)


def test_outside_of_the_block_other_libraries_keep_their_own_policy(server: ScriptedServer) -> None:
    with send_within(POLICY):
        pass
    server.responses = [(503, {"Retry-After": "0"})] * 3
    assert send_with_other_library(server.url).status_code == 200
    with send_within(POLICY), send_within(None):
        server.responses = [(500, {})]
        assert send_with_other_library(server.url).status_code == 500


def test_a_library_that_reads_the_raw_body_gets_all_of_it(server: ScriptedServer) -> None:
    server.chunks = [b"x" * 100_000]
    with send_within(POLICY):
        response = requests.get(server.url, stream=True, timeout=5)
    assert b"".join(response.raw.stream(4096)) == b"x" * 100_000


def test_a_large_body_has_the_time_that_it_takes_at_the_lowest_rate(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.drip_s = 0.5
    with pytest.raises(NoAnswerError):
        send("GET", server.url, RetryPolicy(timeout_s=0.2))
    monkeypatch.setattr(http, "LOWEST_BYTES_PER_S", 100)
    policy = RetryPolicy(timeout_s=0.2)
    assert send("POST", server.url, policy, data=b"x" * 1000).status_code == 200


def test_a_transfer_goes_on_as_long_as_bytes_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LOWEST_BYTES_PER_S", 100)
    received: list[bytes] = []

    def receive_slowly() -> str:
        for _ in range(10):
            time.sleep(0.1)
            received.append(b"x" * 20)
        return "done"

    transfer = Transfer(start_s=0.5, measure_size=lambda: sum(map(len, received)))
    assert transfer.run(receive_slowly) == "done"


def test_a_transfer_that_stands_still_is_left() -> None:
    released = Event()
    transfer = Transfer(start_s=0.2)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="files must come with 64 KiB a second: got less"):
        transfer.run(lambda: released.wait(30))
    assert time.monotonic() - started < 20
    released.set()
    with pytest.raises(TimeoutError, match="of the call"):
        Transfer().run(_raise_timeout)


def _raise_timeout() -> None:
    raise TimeoutError("of the call")


def test_pages_are_read_to_the_last() -> None:
    pages = {None: ([1, 2], "a"), "a": ([], "b"), "b": ([3], "")}
    assert list(paged(pages.__getitem__, "runs/search")) == [1, 2, 3]


def test_a_list_that_repeats_a_token_ends_with_an_error_that_names_the_call() -> None:
    pages = {None: ([1], "a"), "a": ([2], "b"), "b": ([3], "a")}
    items = paged(pages.__getitem__, "runs/search")
    assert [next(items) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ServiceError, match=r"pages of runs/search must end: got the token 'a'"):
        next(items)


def test_a_list_may_start_at_a_later_page() -> None:
    pages = {"a": ([2], "b"), "b": ([3], None)}
    assert list(paged(pages.__getitem__, "metrics/get-history", first_token="a")) == [2, 3]


def test_a_list_with_more_pages_than_could_be_ends_with_an_error() -> None:
    with pytest.raises(ServiceError, match="pages of runs/search must end: got more than 10,000"):
        list(paged(lambda token: ([], f"{token}x"[-9:] + str(time.monotonic_ns())), "runs/search"))
