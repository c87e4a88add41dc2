"""A client without this package: the plain stores of azureml-mlflow, in the process of the test."""

from typing import Any

from azureml.mlflow._store.artifact.artifact_repo import AzureMLflowArtifactRepository
from azureml.mlflow._store.model_registry.model_registry import AzureMLflowModelRegistry
from azureml.mlflow._store.tracking.store import AzureMLRestStore

from dbx_aml.tracking.azureml.service_context import service_context_of


def plain_store(uri: str) -> Any:
    """Return azureml-mlflow's tracking store of a workspace."""
    return AzureMLRestStore(service_context_of(uri))


def plain_registry(uri: str) -> Any:
    """Return azureml-mlflow's model registry of a workspace."""
    return AzureMLflowModelRegistry(service_context_of(uri))


def plain_artifacts(artifact_uri: str) -> Any:
    """Return azureml-mlflow's artifacts; the global tracking URI has to name the workspace."""
    return AzureMLflowArtifactRepository(artifact_uri)
