"""Find a model on the servers that the caller names, and download its files.

MLflow's functions look up `models:/` and `runs:/` URIs on the servers that are set for the whole
process. Here each request goes through the caller's `MlflowClient`, so two threads can use two
registries at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dbx_aml._common.http import send_within
from dbx_aml._common.paths import check_relative_path
from dbx_aml._common.retry import service_policy
from dbx_aml.models.mlflow_client import read_pages, transfer_files
from dbx_aml.models.mlflow_releases import (
    artifact_repository,
    get_logged_model,
    with_databricks_profile,
)
from dbx_aml.models.model_uri import ModelUri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo, Run
    from mlflow.entities.logged_model import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_MLMODEL = "MLmodel"


@dataclass(frozen=True, kw_only=True)
class ModelLocation:
    """A model that was found on its server.

    Args:
        uri: URI that no moving alias changes any more, for example "models:/delay/3".
        source: URI that a registry copies the files from.
        repository: MLflow's access to the files.
        path: Folder of the model in `repository`.
        run_id: Run that logged the model.
        model_id: Logged model of MLflow 3.
        created_at: Time at which a registered version was created, in milliseconds.
    """

    uri: ModelUri
    source: str
    repository: ArtifactRepository
    path: str = ""
    run_id: str | None = None
    model_id: str | None = None
    created_at: int | None = None

    def download(self, folder: Path) -> Path:
        """Download the model into a folder; return the folder of its MLmodel file."""
        folder.mkdir(parents=True, exist_ok=True)
        return transfer_files(
            lambda: Path(self.repository.download_artifacts(self.path, dst_path=str(folder))),
            folder,
        )


def locate_model(uri: ModelUri, client: MlflowClient) -> ModelLocation:
    """Find a model on the servers of a client; an alias is resolved to its version.

    Raises:
        ModelUriError: A logged model with MLflow 2, which has none.
        MlflowException: A server has no such model, version, alias or run.
    """
    match uri.kind:
        case "alias":
            version = client.get_model_version_by_alias(str(uri.name), str(uri.alias))
            pinned = ModelUri(kind="version", name=uri.name, version=str(version.version))
            return _registered_version(pinned, version, client)
        case "version":
            version = client.get_model_version(str(uri.name), str(uri.version))
            return _registered_version(uri, version, client)
        case "logged_model":
            return _logged_model(uri, get_logged_model(client, str(uri.model_id)), client)
        case "run":
            return _model_of_run(uri, client)
        case "path":
            return ModelLocation(
                uri=uri, source=str(uri), repository=_artifact_repository(str(uri), client)
            )


def registry_uri_of(client: MlflowClient) -> str:
    """Return the registry URI of a client, for which MLflow has no public attribute."""
    return str(client._registry_uri)


def _registered_version(
    uri: ModelUri, version: ModelVersion, client: MlflowClient
) -> ModelLocation:
    from mlflow.utils.uri import is_databricks_unity_catalog_uri, is_databricks_uri

    registry_uri = registry_uri_of(client)
    repository: ArtifactRepository
    if is_databricks_unity_catalog_uri(registry_uri):
        from mlflow.store.artifact import unity_catalog_models_artifact_repo as unity_catalog

        repository = unity_catalog.UnityCatalogModelsArtifactRepository(  # type: ignore[abstract]
            str(uri), registry_uri=registry_uri
        )
    elif is_databricks_uri(registry_uri):
        from mlflow.store.artifact import databricks_models_artifact_repo as databricks

        repository = databricks.DatabricksModelsArtifactRepository(
            with_databricks_profile(str(uri), registry_uri)
        )
    else:
        location = client.get_model_version_download_uri(str(uri.name), str(uri.version))
        repository = _artifact_repository(location, client)
    return ModelLocation(
        uri=uri,
        source=str(uri),
        repository=repository,
        run_id=version.run_id,
        created_at=version.creation_timestamp,
    )


def _logged_model(uri: ModelUri, model: LoggedModel, client: MlflowClient) -> ModelLocation:
    from mlflow.store.db.db_types import DATABASE_ENGINES

    # A registry in a database resolves "models:/m-..." in this process, with MLflow's process-wide
    # tracking URI: it is given the location of the files.
    scheme = urlsplit(registry_uri_of(client)).scheme.partition("+")[0]
    in_database = scheme in DATABASE_ENGINES
    return ModelLocation(
        uri=uri,
        source=model.artifact_location if in_database else f"models:/{model.model_id}",
        repository=_artifact_repository(model.artifact_location, client),
        run_id=model.source_run_id,
        model_id=model.model_id,
    )


def _model_of_run(uri: ModelUri, client: MlflowClient) -> ModelLocation:
    """Find a model by its run: among the run's artifacts, else (MLflow 3) its logged models."""
    run = client.get_run(str(uri.run_id))
    path = str(uri.path)
    repository = _artifact_repository(run.info.artifact_uri, client)
    files = {file.path for file in repository.list_artifacts(path)}
    model = None if f"{path}/{_MLMODEL}" in files else _newest_logged_model(run, path, client)
    if model is not None:
        return _logged_model(uri, model, client)
    return ModelLocation(
        uri=uri,
        source=f"{run.info.artifact_uri.rstrip('/')}/{path}",
        repository=repository,
        path=path,
        run_id=run.info.run_id,
    )


def _newest_logged_model(run: Run, name: str, client: MlflowClient) -> LoggedModel | None:
    """Return the run's logged model of this name, the one of the highest step if several are."""
    if not hasattr(client, "search_logged_models"):
        return None  # MLflow 2
    named_models = read_pages(
        lambda token: client.search_logged_models(
            experiment_ids=[run.info.experiment_id],
            filter_string=f"name = '{name}'",
            page_token=token,
        ),
        "logged-models/search",
    )
    # Databricks cannot filter by run.
    models = [model for model in named_models if model.source_run_id == run.info.run_id]
    steps = {output.model_id: output.step for output in run.outputs.model_outputs}
    return max(
        models,
        key=lambda model: (steps.get(model.model_id, 0), model.creation_timestamp),
        default=None,
    )


def _artifact_repository(location: str, client: MlflowClient) -> ArtifactRepository:
    """Return MLflow's access to files, with the servers of the client.

    The listing of a folder is checked, and ends in time.
    """
    repository = artifact_repository(location, client.tracking_uri, registry_uri_of(client))
    list_folder = repository.list_artifacts

    def list_checked(path: str | None = None) -> list[FileInfo]:
        with send_within(service_policy(), is_idempotent=True):
            infos = list(list_folder(path))
        for info in infos:
            check_relative_path(info.path)
        return infos

    # MLflow 2.19 and 3.0 download each listed file to wherever its path leads.
    repository.list_artifacts = list_checked  # type: ignore[method-assign]
    return repository
