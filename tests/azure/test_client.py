"""Requests to Azure Resource Manager and Azure ML: each error answer is a state to act on."""

import json
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from requests import Response

from dbx_aml._common.errors import (
    CredentialError,
    DbxAmlError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
)
from dbx_aml.azure import client as azure_client
from dbx_aml.azure.client import AzureClient

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
