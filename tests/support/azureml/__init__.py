"""A local stand-in of Azure Machine Learning, for tests with the unmodified azureml-mlflow.

It answers the service's own host names and paths through a proxy on loopback, so nothing in a
client changes. Behind it are a real MLflow server and Azurite; in between it behaves as Azure ML
does where it differs from MLflow: tokens, limits, unsupported calls, artifacts that are registered
before they are uploaded, identifiers. Faults are switched on by a test.
"""

from tests.support.azureml.permission import ALL_ACTIONS, RUNS_WRITE
from tests.support.azureml.service_process import AzureMl, azureml_service
from tests.support.azureml.workspace import Workspace

__all__ = [
    "ALL_ACTIONS",
    "RUNS_WRITE",
    "AzureMl",
    "Workspace",
    "azureml_service",
]
