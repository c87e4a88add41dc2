"""Requests to Azure ML: one bound over attempts, waits, headers and body."""

import time
from collections.abc import Iterator

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import MlflowHostCreds

from dbx_aml._common import http
from dbx_aml._common.errors import ServiceError
from dbx_aml.tracking.azureml.mlflow_calls import AnswerLostError, send_request
from tests.support.http.scripted_server import ScriptedServer

ENDPOINT = "/api/2.0/mlflow/runs/get"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "1.5")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    server = ScriptedServer()
    yield server
    server.stop()


def host_creds(server: ScriptedServer) -> MlflowHostCreds:
    return MlflowHostCreds(server.url, token="of-ana")


@pytest.mark.parametrize("drips_headers", [True, False])
def test_an_answer_that_drips_is_left_at_the_end_of_the_time(
    server: ScriptedServer, drips_headers: bool
) -> None:
    server.drip_s, server.drips_headers, server.chunks = 0.05, drips_headers, [b" "] * 2000
    started = time.monotonic()
    with pytest.raises(
        MlflowException, match=r"must succeed within 1\.5 s: .* no answer"
    ) as caught:
        send_request(lambda: host_creds(server), "GET", ENDPOINT)
    assert time.monotonic() - started < 30
    assert "of-ana" not in str(caught.value)


def test_a_creating_request_whose_answer_drips_is_sent_once(server: ScriptedServer) -> None:
    server.drip_s, server.chunks = 0.05, [b" "] * 2000
    with pytest.raises(AnswerLostError):
        send_request(lambda: host_creds(server), "POST", ENDPOINT, is_idempotent=False, json={})
    assert len(server.requests) == 1


@pytest.mark.parametrize("header", ["-5", "nan", "0", "0.000001", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_senseless_retry_after_is_a_handful_of_requests(
    server: ScriptedServer, header: str
) -> None:
    server.responses = [(503, {"Retry-After": header})] * 100
    with pytest.raises(MlflowException, match="3 attempts failed, the last with status 503"):
        send_request(lambda: host_creds(server), "GET", ENDPOINT)
    assert len(server.requests) == 3


def test_an_hour_that_is_asked_for_is_not_waited_but_named(server: ScriptedServer) -> None:
    server.responses = [(429, {"Retry-After": "3600"})]
    with pytest.raises(MlflowException, match=r"within 1\.5 s: .*which asks to wait 3600 s"):
        send_request(lambda: host_creds(server), "GET", ENDPOINT)


def test_an_answer_that_is_too_large_is_not_asked_for_again(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 2**20)
    server.chunks = [b"x" * 2**16] * 1000
    with pytest.raises(ServiceError, match="must have at most 1 MiB"):
        send_request(lambda: host_creds(server), "GET", ENDPOINT)
    assert len(server.requests) == 1
