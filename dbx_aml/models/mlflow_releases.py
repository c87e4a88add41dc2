"""Calls of MLflow that differ between its releases from 2.19 to 3, which the runtimes have."""

from __future__ import annotations

import importlib.util
import inspect
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dbx_aml._common.errors import ModelUriError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.logged_model import LoggedModel
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


def artifact_repository(
    location: str, tracking_uri: str, registry_uri: str | None = None
) -> ArtifactRepository:
    """Return MLflow's access to files, which asks the servers of these URIs.

    Args:
        location: URI of the files, for example "dbfs:/databricks/mlflow-tracking/1/5f0c/artifacts".
        tracking_uri: Server of the run that has the files.
        registry_uri: Registry of the files of a registered model.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    location = with_databricks_profile(location, tracking_uri)
    parameters = inspect.signature(get_artifact_repository).parameters
    # MLflow before 3.2 takes the process-wide tracking URI where a location names no server.
    if "tracking_uri" not in parameters and urlsplit(location).scheme == "mlflow-artifacts":
        location = MlflowArtifactsRepository.resolve_uri(location, tracking_uri)
    servers = {"tracking_uri": tracking_uri, "registry_uri": registry_uri}
    return get_artifact_repository(
        location, **{name: uri for name, uri in servers.items() if name in parameters}
    )


def with_databricks_profile(location: str, databricks_uri: str) -> str:
    """Add the profile of "databricks://<profile>" to a location that names no host."""
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

    return str(add_databricks_profile_info_to_artifact_uri(location, databricks_uri))


def get_logged_model(client: MlflowClient, model_id: str) -> LoggedModel:
    """Return a logged model from the tracking server of a client.

    Raises:
        ModelUriError: MLflow is of release 2, which has no logged models.
        MlflowException: The server has no such model.
    """
    if not hasattr(client, "get_logged_model"):
        import mlflow

        raise ModelUriError(
            f"model URI must name a run or a version with MLflow {mlflow.__version__}, which has "
            f"no logged models: got 'models:/{model_id}'; pass for example 'runs:/<run id>/model'"
        )
    return client.get_logged_model(model_id)


def validate_alias(alias: str) -> None:
    """Check an alias of a registered model as MLflow's server does.

    Raises:
        MlflowException: MLflow takes no such alias, or keeps it for itself.
    """
    from mlflow.utils import validation

    validation._validate_model_alias_name(alias)
    # MLflow 2 checks it in the first function.
    validate_reserved = getattr(validation, "_validate_model_alias_name_reserved", None)
    if validate_reserved is not None:
        validate_reserved(alias)


def spark_udf_requirements(mlflow_version: str) -> list[str]:
    """Return what `mlflow.pyfunc.spark_udf` imports although mlflow-skinny does not require it.

    Args:
        mlflow_version: Version of mlflow-skinny, for example "2.19.0".
    """
    from packaging.version import Version

    # Before this release spark_udf imports MLflow's server, on each worker too.
    return ["flask>=2.2"] if Version(mlflow_version) < Version("2.21") else []


def missing_for_spark_udf(mlflow_version: str) -> list[str]:
    """Return the requirements of `spark_udf_requirements` that this Python cannot import."""
    return [
        requirement
        for requirement in spark_udf_requirements(mlflow_version)
        if importlib.util.find_spec(requirement.partition(">")[0]) is None
    ]
