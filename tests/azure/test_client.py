"""Requests to Azure Resource Manager and Azure ML: each error answer is a state to act on."""

import json
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from requests import Response

from dbx_aml import AmlWorkspace
from dbx_aml._common.errors import (
    CredentialError,
    DbxAmlError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
    UntrustedHostError,
)
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
        assert options["is_idempotent"]


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
