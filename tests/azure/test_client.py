"""Requests to Azure Resource Manager and Azure ML: each error answer is a state to act on."""

import json
import re
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from requests import Response

from dbx_aml import AmlWorkspace
from dbx_aml._common.errors import (
    CredentialError,
    DbxAmlError,
    NotFoundError,
    OperationError,
    OperationTimeoutError,
    PermissionDeniedError,
    ServiceError,
    ServiceUnavailableError,
    UntrustedHostError,
)
from dbx_aml._common.retry import RetryPolicy
from dbx_aml.azure import client as azure_client
from dbx_aml.azure.client import AzureClient
from dbx_aml.azure.workspaces import with_tracking_uri

URL = "https://management.azure.com/subscriptions/s"


class FakeCredential:
    scope = "scope"

    def get_token(self, *scopes: str) -> AccessToken:
        return AccessToken("token-of-ana", 0)


class FakeService:
    """A service that answers each request with one status and body."""

    def __init__(self, status: int, body: str) -> None:
        self.response = Response()
        self.response.status_code = status
        self.response._content = body.encode()
        self.response.reason = "Reason"
        self.requests: list[tuple[str, str, dict[str, Any]]] = []

    def send(self, method: str, url: str, policy: Any, **options: Any) -> Response:
        self.requests.append((method, url, options))
        return self.response


def client_of(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> AzureClient:
    monkeypatch.setattr(azure_client, "send", service.send)
    return AzureClient(FakeCredential())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "https://collector.example/subscriptions/s",
        "https://management.azure.com.collector.example/",
        "https://westeurope.api.azureml.ms@collector.example/",
        "http://management.azure.com/subscriptions/s",
    ],
)
def test_no_token_is_requested_for_a_host_that_is_not_azures(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    def get_token(*_: str) -> AccessToken:
        raise AssertionError("a token was requested")

    monkeypatch.setattr(FakeCredential, "get_token", get_token)
    service = FakeService(200, "{}")
    client = client_of(service, monkeypatch)
    for call in (lambda: client.get(url), lambda: client.post_query(url, {})):
        with pytest.raises(UntrustedHostError):
            call()
    assert service.requests == []


def test_the_tracking_uri_of_azure_resource_manager_is_checked_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = AmlWorkspace(
        subscription_id="8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42",
        resource_group="rg-ml",
        workspace_name="mlw-team",
    )
    uri = f"azureml://collector.example/mlflow/v1.0{workspace.arm_id}"
    service = FakeService(200, json.dumps({"properties": {"mlFlowTrackingUri": uri}}))
    with pytest.raises(UntrustedHostError, match=r"got 'collector\.example'"):
        with_tracking_uri(client_of(service, monkeypatch), workspace)
    assert [url.partition("?")[0] for _, url, _ in service.requests] == [
        f"https://management.azure.com{workspace.arm_id}"
    ]


def test_a_request_has_the_token_and_its_answer_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService(200, '{"value": [1]}')
    client = client_of(service, monkeypatch)
    assert client.get(URL) == client.post_query(URL, {"max_results": 1}) == {"value": [1]}
    assert [method for method, _, _ in service.requests] == ["GET", "POST"]
    for _, _, options in service.requests:
        assert options["headers"] == {"Authorization": "Bearer token-of-ana"}
    assert [options["is_idempotent"] for _, _, options in service.requests] == [None, True]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, ServiceError),
        (401, CredentialError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ServiceError),
        (503, ServiceError),
    ],
)
@pytest.mark.parametrize(
    ("body", "description"),
    [
        (
            json.dumps({"error": {"code": "Code", "message": "its text"}}),
            "Code from management.azure.com: its text",
        ),
        (
            json.dumps({"Error": {"Code": "Code", "Message": "its text"}}),
            "Code from management.azure.com: its text",
        ),
        ("<html>", "from management.azure.com: Reason"),
        ("[]", "from management.azure.com: Reason"),
    ],
)
def test_an_error_has_status_code_host_and_message_but_no_token(
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    kind: type[DbxAmlError],
    body: str,
    description: str,
) -> None:
    with pytest.raises(kind) as caught:
        client_of(FakeService(status, body), monkeypatch).get(URL)
    assert type(caught.value) is kind
    assert f"got {status} {description}" in str(caught.value)
    assert "token-of-ana" not in str(caught.value)


class Answers:
    """A service that gives one answer after the other, and a clock that its waits move."""

    def __init__(self, *answers: tuple[int, dict[str, str], Any]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str]] = []
        self.policies: list[RetryPolicy] = []
        self.waits: list[float] = []
        self.now = 0.0

    def send(self, method: str, url: str, policy: RetryPolicy, **options: Any) -> Response:
        self.requests.append((method, url))
        self.policies.append(policy)
        status, headers, content = self.answers.pop(0)
        response = Response()
        response.status_code = status
        response.headers.update(headers)
        response._content = b"" if content is None else json.dumps(content).encode()
        return response

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def client(self, monkeypatch: pytest.MonkeyPatch) -> AzureClient:
        monkeypatch.setattr(azure_client, "send", self.send)
        return AzureClient(FakeCredential(), clock=lambda: self.now, sleep=self.sleep)  # type: ignore[arg-type]


OPERATION = "https://management.azure.com/subscriptions/s/operations/1?api-version=1"
STATUS = {"Azure-AsyncOperation": OPERATION}
LOCATION = {"Location": OPERATION}


def test_a_put_is_polled_as_often_as_the_service_asks_and_then_the_resource_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Answers(
        (201, {**STATUS, "Retry-After": "10"}, {"state": "Creating"}),
        (200, {"Retry-After": "60"}, {"status": "InProgress"}),
        (200, {}, {"status": "Running"}),
        (200, {}, {"status": "Succeeded"}),
        (200, {}, {"state": "Succeeded"}),
    )
    assert service.client(monkeypatch).put(URL, {}) == {"state": "Succeeded"}
    assert service.waits == [10.0, 60.0, 2.0]
    assert service.requests == [("PUT", URL), *[("GET", OPERATION)] * 3, ("GET", URL)]


@pytest.mark.parametrize("headers", [STATUS, LOCATION])
def test_a_wait_that_the_service_asks_for_is_bound_by_the_operations_deadline_alone(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    busy = (429, {"Retry-After": "300"}, None)
    end = (200, {}, {"status": "Succeeded"})
    service = Answers((202, headers, None), busy, busy, end, (200, {}, {"state": "Succeeded"}))
    assert service.client(monkeypatch).patch(URL, {}) == {"state": "Succeeded"}
    assert service.waits == [2.0, 300.0, 300.0]
    with pytest.raises(OperationTimeoutError, match=r"within 100 s: .* it goes on in Azure"):
        service = Answers((202, headers, None), busy, busy)
        service.client(monkeypatch).patch(URL, {}, timeout_s=100)


def test_an_outage_in_the_middle_of_an_operation_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = Answers((201, STATUS, {}))

    def sleep(_: float) -> None:
        raise ServiceUnavailableError("host management.azure.com must answer")

    monkeypatch.setattr(service, "sleep", sleep)
    with pytest.raises(ServiceUnavailableError):
        service.client(monkeypatch).put(URL, {}, show_command="dbx-aml endpoint show delay")
    assert "goes on in Azure; look at it with 'dbx-aml endpoint show delay'" in caplog.text


@pytest.mark.parametrize("body", ["<html>Sign in to the proxy</html>", "[]", '"text"'])
def test_an_answer_that_is_no_json_object_is_named(
    monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    with pytest.raises(ServiceError, match=r"must be a JSON object: got .*a proxy that answers"):
        client_of(FakeService(200, body), monkeypatch).get(URL)


def test_a_put_without_an_operation_returns_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Answers((200, {}, {"name": "blue"}))
    assert service.client(monkeypatch).put(URL, {}) == {"name": "blue"}
    assert service.requests == [("PUT", URL)]


def test_a_delete_is_polled_at_its_location_until_204_and_a_missing_resource_is_gone_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = {"Location": OPERATION.replace("/1?", "/2?")}
    service = Answers((202, LOCATION, None), (202, moved, None), (204, {}, None), (404, {}, {}))
    assert service.client(monkeypatch).delete(URL) is True
    assert [url for _, url in service.requests] == [URL, OPERATION, moved["Location"], URL]
    missing = Answers((404, {}, {}))
    assert missing.client(monkeypatch).delete(URL) is False


def test_a_failed_operation_ends_with_the_innermost_reason_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = {
        "code": "UserError",
        "message": "The deployment failed.",
        "details": [{"code": "OutOfQuota", "message": "8 cores are missing."}],
    }
    service = Answers((201, STATUS, {}), (200, {}, {"status": "Failed", "error": error}))
    reason = "got 'Failed'; OutOfQuota: 8 cores are missing. The deployment failed."
    with pytest.raises(OperationError, match=re.escape(reason)):
        service.client(monkeypatch).put(URL, {})


def test_an_operation_that_does_not_end_in_time_goes_on_and_the_command_to_look_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Answers((201, STATUS, {}), *[(200, {}, {"status": "InProgress"})] * 9)
    with pytest.raises(
        OperationTimeoutError, match=r"within 5 s: .* 'dbx-aml endpoint show delay'"
    ):
        service.client(monkeypatch).put(
            URL, {}, timeout_s=5, show_command="dbx-aml endpoint show delay"
        )
    # The last look is at the deadline itself.
    assert service.waits == [2.0, 2.0, 1.0]


def test_an_interrupted_wait_says_that_the_operation_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = Answers((201, STATUS, {}))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(service, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        service.client(monkeypatch).put(URL, {}, show_command="dbx-aml endpoint show delay")
    assert "goes on in Azure; look at it with 'dbx-aml endpoint show delay'" in caplog.text


@pytest.mark.parametrize("host", ["collector.example", "westeurope.api.azureml.ms"])
@pytest.mark.parametrize("header", ["Azure-AsyncOperation", "Location"])
def test_an_operation_at_another_host_gets_no_token_and_both_hosts_are_named(
    monkeypatch: pytest.MonkeyPatch, host: str, header: str
) -> None:
    service = Answers((202, {header: f"https://{host}/operations/1"}, None))
    with pytest.raises(UntrustedHostError, match=rf"'management\.azure\.com'.*{re.escape(host)}"):
        service.client(monkeypatch).delete(URL)
    assert service.requests == [("DELETE", URL)]


def test_a_list_follows_its_pages_at_the_same_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Answers(
        (200, {}, {"value": [{"name": "a"}], "nextLink": f"{URL}?skip=1"}),
        (200, {}, {"value": [{"name": "b"}], "nextLink": None}),
    )
    assert [item["name"] for item in service.client(monkeypatch).list(URL)] == ["a", "b"]
    elsewhere = Answers((200, {}, {"value": [], "nextLink": "https://collector.example/2"}))
    with pytest.raises(UntrustedHostError, match="next page"):
        list(elsewhere.client(monkeypatch).list(URL))
    endless = Answers(*[(200, {}, {"value": [{}], "nextLink": URL})] * 3)
    with pytest.raises(ServiceError, match="twice"):
        list(endless.client(monkeypatch).list(URL))


def test_only_reads_puts_and_deletes_are_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Answers(*[(200, {}, {})] * 5)
    client = service.client(monkeypatch)
    client.find(URL)
    client.put(URL, {})
    client.delete(URL)
    client.patch(URL, {})
    client.post(URL)
    assert [policy.max_attempts for policy in service.policies] == [5, 5, 5, 1, 1]


def test_a_forbidden_request_names_the_missing_action(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The client does not have authorization to perform action 'x/onlineEndpoints/write' over"
    service = Answers((403, {}, {"error": {"code": "AuthorizationFailed", "message": text}}))
    with pytest.raises(
        PermissionDeniedError, match="a role with the action 'x/onlineEndpoints/wri"
    ):
        service.client(monkeypatch).put(URL, {})
