"""The credential with which a store calls Azure ML."""

from typing import Any

import pytest

from dbx_aml.link.link import Link
from dbx_aml.tracking.azureml import service_context
from dbx_aml.tracking.azureml.plugin import artifact_repository
from dbx_aml.tracking.connect import set_connected_link

URI = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0"
    "/subscriptions/8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42/resourceGroups/rg"
    "/providers/Microsoft.MachineLearningServices/workspaces/mlw"
)


def test_an_open_store_calls_with_the_credential_of_the_connected_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NamedCredential:
        def __init__(self, link: Link) -> None:
            self.name = link.client_id or "environment"

        def get_token(self, *scopes: str, **options: Any) -> str:
            return self.name

    monkeypatch.setattr(service_context, "get_credential", NamedCredential)
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
    context = service_context.service_context_of(URI)

    assert context.auth.get_token("scope") == "environment"
    for client_id in ("first", "second"):
        set_connected_link(Link(client_id=client_id))
        assert context.auth.get_token("scope") == client_id


def test_a_shared_registry_is_opened_with_a_credential_that_never_opens_a_login(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from azureml.mlflow._client.artifact import registry_artifact_client

    arguments: dict[str, Any] = {}

    def get_registry_client(registry_name: str, auth: Any) -> tuple[None, str, str]:
        arguments.update(name=registry_name, auth=type(auth).__name__)
        return None, "rg", "sub"

    monkeypatch.setattr(registry_artifact_client, "get_registry_client", get_registry_client)
    uri = URI.replace("v1.0", "v2.0").partition("/subscriptions")[0]
    path = "registries/shared/models/delay/versions/3/storage/account/paths/container/model"

    repository = artifact_repository(f"{uri}/{path}")

    assert arguments == {"name": "shared", "auth": "LinkCredential"}
    assert repository.artifacts.path.startswith("mlflow/v2.0/registries/shared/models/delay")
