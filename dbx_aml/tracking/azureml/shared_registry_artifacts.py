"""Artifacts of a model in a registry that several workspaces share."""

from typing import Any
from urllib.parse import urlsplit

from azureml.mlflow._client.artifact.registry_artifact_client import RegistryArtifactClient
from azureml.mlflow._store.artifact.artifact_repo import AzureMLflowArtifactRepository
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from dbx_aml.link.clouds import check_azure_url
from dbx_aml.tracking.azureml.mlflow_calls import mlflow_errors
from dbx_aml.tracking.azureml.service_context import shared_registry_context


class SharedRegistryRepository(AzureMLflowArtifactRepository):  # type: ignore[misc,unused-ignore]
    """The repository of azureml-mlflow with a credential that never opens a login.

    Args:
        artifact_uri: "azureml://<host>/mlflow/v2.0/registries/<name>/models/...".
        tracking_uri: Tracking URI that MLflow passes on.
        registry_uri: Registry URI that MLflow passes on.

    Raises:
        MlflowException: The URI, or the registry that it names, has a host that is not Azure ML's.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        ArtifactRepository.__init__(self, artifact_uri)
        self.tracking_uri: Any = tracking_uri
        self.registry_uri: Any = registry_uri
        url = urlsplit(artifact_uri)
        name = url.path.partition("/registries/")[2].partition("/")[0]
        context = shared_registry_context(url.netloc, name)
        self.artifacts = RegistryArtifactClient(context, url.path[1:])
        with mlflow_errors():
            # Azure ML itself says at which host the registry is.
            check_azure_url(self.artifacts._client._client._base_url)
