"""The credential with which a store calls Azure ML."""

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow.deployments import get_deploy_client
from mlflow.exceptions import MlflowException

from dbx_aml import AmlWorkspace
from dbx_aml.link.connected_link import set_connected_link
from dbx_aml.link.link import Link
from dbx_aml.tracking.azureml import service_context
from dbx_aml.tracking.azureml.plugin import artifact_repository
from dbx_aml.tracking.azureml.registry_store import AmlModelRegistryStore
from dbx_aml.tracking.azureml.store import AmlTrackingStore

URI = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0"
    "/subscriptions/8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42/resourceGroups/rg"
    "/providers/Microsoft.MachineLearningServices/workspaces/mlw"
)


ARTIFACTS = "/experiments/1/runs/11111111-1111-1111-1111-111111111111/artifacts/model"
PRIVATE_HOST = "e1d0.workspace.westeurope.api.azureml.ms"


def at_host(host: str, path: str = "", scheme: str = "azureml") -> str:
    return URI.replace("azureml://westeurope.api.azureml.ms", f"{scheme}://{host}") + path


@pytest.fixture
def no_request(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each request, and each request of a token, fail the test, even if it is caught."""
    requests: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        requests.append(arguments[:1])
        raise OSError("no request is expected")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(service_context, "get_credential", refuse)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield
    assert requests == []


WAYS_IN: dict[str, Callable[[str], object]] = {
    "tracking": lambda host: track_at(at_host(host)),
    "tracking, older scheme": lambda host: track_at(at_host(host, scheme="adbazureml")),
    "registry": lambda host: mlflow.MlflowClient(
        "sqlite://", at_host(host)
    ).search_registered_models(),
    "artifacts": lambda host: mlflow.artifacts.list_artifacts(at_host(host, ARTIFACTS)),
    "load_model": lambda host: mlflow.pyfunc.load_model(at_host(host, ARTIFACTS)),
    "model version": lambda host: AmlModelRegistryStore.from_uri(URI).create_model_version(
        "m", at_host(host, ARTIFACTS)
    ),
    "deployments": lambda host: get_deploy_client(at_host(host)).list_endpoints(),
    "shared registry": lambda host: artifact_repository(
        f"azureml://{host}/mlflow/v2.0/registries/shared/models/m/versions/3"
    ),
}


def track_at(uri: str) -> object:
    mlflow.set_tracking_uri(uri)
    return mlflow.search_experiments()


@pytest.mark.usefixtures("no_request")
@pytest.mark.parametrize("way_in", WAYS_IN)
def test_no_way_in_asks_for_a_token_for_a_host_that_is_not_azures(way_in: str) -> None:
    for host in ("collector.example", "westeurope.api.azureml.ms@collector.example"):
        with pytest.raises(MlflowException) as caught:
            WAYS_IN[way_in](host)
        message = str(caught.value)
        assert "host must be one of Azure ML's: got '" in message
        assert "collector.example'; use the tracking URI" in message
        assert "\n" not in message


@pytest.mark.usefixtures("no_request")
def test_the_own_token_of_a_job_goes_to_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = at_host("collector.example")
    job = {"URI": uri, "TOKEN": "token-of-the-job"}
    for name, text in job.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", text)
    monkeypatch.setenv("MLFLOW_RUN_ID", "11111111-1111-1111-1111-111111111111")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "1")
    with pytest.raises(MlflowException, match=r"got 'collector\.example'"):
        mlflow.log_metric("a", 1.0)


@pytest.mark.usefixtures("no_request")
@pytest.mark.parametrize("host", ["collector.example", "northeurope.api.azureml.ms"])
def test_a_run_with_artifacts_at_another_host_is_an_error_that_names_both(host: str) -> None:
    store = AmlTrackingStore.from_uri(URI)
    run_id = "11111111-1111-1111-1111-111111111111"
    store._artifact_uris[run_id] = at_host(host, ARTIFACTS)
    expected = rf"artifacts of run {run_id}: host must be .*got '{host}'"
    with pytest.raises(MlflowException, match=expected):
        store._container_of_run(run_id)
    with pytest.raises(MlflowException, match=expected):
        artifact_repository(at_host(host, ARTIFACTS), URI, URI)


@pytest.mark.usefixtures("no_request")
def test_a_run_with_artifacts_in_another_workspace_is_an_error() -> None:
    store = AmlTrackingStore.from_uri(URI)
    store._artifact_uris["r"] = URI.replace("/mlw", "/other") + ARTIFACTS
    with pytest.raises(MlflowException, match="artifacts of run r must be in its workspace: got"):
        store._container_of_run("r")


@pytest.mark.usefixtures("no_request")
def test_artifacts_are_read_at_the_host_of_the_workspace_that_the_user_chose() -> None:
    private_uri = at_host(PRIVATE_HOST)
    uri = at_host("WestEurope.api.azureml.ms", ARTIFACTS)
    repository = artifact_repository(uri, tracking_uri=private_uri)
    assert repository.context.host_url == f"https://{PRIVATE_HOST}"
    mlflow.set_tracking_uri(private_uri)
    assert artifact_repository(URI + ARTIFACTS).context.host_url == f"https://{PRIVATE_HOST}"
    mlflow.set_tracking_uri("sqlite://")
    assert (
        artifact_repository(URI + ARTIFACTS).context.host_url == "https://westeurope.api.azureml.ms"
    )
    set_connected_link(Link(mode="aml", aml_workspace=AmlWorkspace.from_tracking_uri(private_uri)))
    assert artifact_repository(URI + ARTIFACTS).context.host_url == f"https://{PRIVATE_HOST}"
    assert service_context.service_context_of(URI).host_url == f"https://{PRIVATE_HOST}"


@pytest.mark.usefixtures("no_request")
def test_an_allowed_host_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBX_AML_ALLOWED_HOSTS", "ml.contoso.com")
    uri = at_host("ml.contoso.com")
    assert service_context.service_context_of(uri).host_url == "https://ml.contoso.com"
    repository = artifact_repository(URI + ARTIFACTS, tracking_uri=uri)
    assert repository.context.host_url == "https://ml.contoso.com"


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

    base_url = "https://westeurope.api.azureml.ms/mferp"

    def get_registry_client(registry_name: str, auth: Any) -> tuple[object, str, str]:
        arguments.update(name=registry_name, auth=type(auth).__name__)
        return SimpleNamespace(_client=SimpleNamespace(_base_url=base_url)), "rg", "sub"

    monkeypatch.setattr(registry_artifact_client, "get_registry_client", get_registry_client)
    uri = URI.replace("v1.0", "v2.0").partition("/subscriptions")[0]
    path = "registries/shared/models/delay/versions/3/storage/account/paths/container/model"

    repository = artifact_repository(f"{uri}/{path}")

    assert arguments == {"name": "shared", "auth": "LinkCredential"}
    assert repository.artifacts.path.startswith("mlflow/v2.0/registries/shared/models/delay")
    base_url = "https://collector.example/mferp"
    with pytest.raises(MlflowException, match=r"got 'collector\.example'"):
        artifact_repository(f"{uri}/{path}")
