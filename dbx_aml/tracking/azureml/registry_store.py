"""MLflow's model registry in Azure ML: azureml-mlflow's, with MLflow 3's sources and with aliases.

Azure ML registers from a run's folder in the same workspace, or from an upload; it knows neither
`models:/m-...` nor runs of another server. And it has no aliases.
"""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
from azureml.mlflow._store.model_registry.model_registry import AzureMLflowModelRegistry
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModel
from mlflow.entities.model_registry.registered_model_alias import RegisteredModelAlias
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository
from mlflow.store.entities.paged_list import PagedList

from dbx_aml.models.lineage import LOGGED_MODEL_ID, SOURCE_MODEL_URI, SOURCE_RUN_ID
from dbx_aml.tracking.azureml.artifact_container import run_parts
from dbx_aml.tracking.azureml.artifact_repository import new_upload
from dbx_aml.tracking.azureml.mlflow_calls import (
    AnswerLostError,
    Attempts,
    CallNotSupportedError,
    call,
)
from dbx_aml.tracking.azureml.model_version_tags import (
    ALIAS,
    CREATE_ID,
    aliases_among,
    is_hidden,
    timestamp,
)
from dbx_aml.tracking.azureml.service_context import context_of, names_workspace, same_workspace
from dbx_aml.tracking.azureml.store import AmlTrackingStore

log = logging.getLogger(__name__)
_TAG_VALUE = 1000


class AmlModelRegistryStore(AzureMLflowModelRegistry):  # type: ignore[misc]
    """The model registry of one workspace.

    Args:
        service_context: Of the workspace.
        uri: The registry URI.
        tracking_uri: Where runs and logged models are; the registry's workspace without it.
    """

    def __init__(self, service_context: Any, uri: str, tracking_uri: str | None = None) -> None:
        super().__init__(service_context)
        self._uri = uri
        self._tracking_uri = tracking_uri or uri
        self._has_aliases = True

    @classmethod
    def of(cls, uri: str, tracking_uri: str | None = None) -> "AmlModelRegistryStore":
        """Return the registry of the workspace that a URI names; it asks nothing yet."""
        return cls(context_of(uri), uri, tracking_uri)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None,
        call_all_endpoints: bool = False,
        extra_headers: Any = None,
        **_: Any,
    ) -> Any:
        """Make a call with our bound on retries instead of MLflow's."""
        endpoints = [self._get_endpoint_from_method(api)]
        if call_all_endpoints:
            endpoints = self._get_all_endpoints_from_method(api)
        for number, (endpoint, method) in enumerate(endpoints):
            response = self._get_response_from_method(api)
            try:
                once = api.__name__ == "CreateModelVersion"
                return call(self.get_host_creds, endpoint, method, json_body, response, once=once)
            except MlflowException as error:
                last = number == len(endpoints) - 1
                if last or str(error.error_code) != "ENDPOINT_NOT_FOUND":
                    raise
        raise ValueError(f"no endpoint for {api}")

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Any = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Create a version of a registered model, whatever its source is.

        What is not in this workspace is downloaded and uploaded again; a tag says where it was.
        """
        tags = list(tags or [])
        given = source
        if source.startswith("models:/"):
            source, run_id, model_id = self._logged_model_source(source, run_id, model_id)
        elif source.startswith("runs:/"):
            source = RunsArtifactRepository.get_underlying_uri(source, self._tracking_uri)
        if model_id is None and run_id and self._is_here(source):
            model_id = self._model_at(source, run_id)
        if model_id:
            tags.append(ModelVersionTag(LOGGED_MODEL_ID, model_id))
        if self._is_here(source):
            version = self._create(name, source, run_id, tags, run_link, description)
            return self._completed(version)
        tags.append(ModelVersionTag(SOURCE_MODEL_URI, given[:_TAG_VALUE]))
        if run_id:
            tags.append(ModelVersionTag(SOURCE_RUN_ID, run_id))
        with tempfile.TemporaryDirectory() as folder:
            local = self._local_copy(source, given, local_model_path, folder)
            source = self._uploaded(local)
            version = self._create(name, source, None, tags, run_link, description)
        return self._completed(version)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias name a version; the service does it where it can."""
        if self._on_server(
            lambda: super(AmlModelRegistryStore, self).set_registered_model_alias(
                name, alias, version
            )
        ):
            return
        # First the new one, so that there is no moment without any.
        tag = ModelVersionTag(f"{ALIAS}{alias}", timestamp())
        self.set_model_version_tag(name, str(version), tag)
        self._remove_alias(name, alias, but=str(version))

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias."""
        if not self._on_server(
            lambda: super(AmlModelRegistryStore, self).delete_registered_model_alias(name, alias)
        ):
            self._remove_alias(name, alias)

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Return the version that an alias names."""
        if self._has_aliases:
            try:
                found: ModelVersion = super().get_model_version_by_alias(name, alias)
                return self._completed(found)
            except CallNotSupportedError:
                self._has_aliases = False
        super().get_registered_model(name)
        version = aliases_among(self._plain_versions(name)).get(alias)
        if version is None:
            raise MlflowException(
                f"Registered model alias {alias} not found.", RESOURCE_DOES_NOT_EXIST
            )
        return self.get_model_version(name, version)

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        """Return a version with its aliases."""
        return self._completed(super().get_model_version(name, version))

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a registered model with its aliases."""
        model: RegisteredModel = super().get_registered_model(name)
        model._latest_version = [self._completed(one) for one in model.latest_versions or []]
        if not model.aliases:
            for alias, version in aliases_among(self._plain_versions(name)).items():
                model._add_alias(RegisteredModelAlias(alias, version))
        return model

    def search_model_versions(self, *args: Any, **kwargs: Any) -> Any:
        """Return versions with their aliases."""
        found = super().search_model_versions(*args, **kwargs)
        return PagedList([self._completed(version) for version in found], found.token)

    def get_latest_versions(self, name: str, stages: Any = None) -> list[ModelVersion]:
        """Return the newest version of each stage, with its aliases."""
        return [self._completed(version) for version in super().get_latest_versions(name, stages)]

    def _on_server(self, attempt: Callable[[], None]) -> bool:
        """Return whether the service has aliases; then it did what was asked."""
        if self._has_aliases:
            try:
                attempt()
            except CallNotSupportedError:
                self._has_aliases = False
        return self._has_aliases

    def _remove_alias(self, name: str, alias: str, but: str = "") -> None:
        for version in self._plain_versions(name):
            if f"{ALIAS}{alias}" in version.tags and str(version.version) != but:
                self.delete_model_version_tag(name, str(version.version), f"{ALIAS}{alias}")

    def _plain_versions(self, name: str) -> list[ModelVersion]:
        quoted = name.replace("'", "''")
        found: list[ModelVersion] = []
        token = None
        while True:
            page = super().search_model_versions(f"name='{quoted}'", 200, None, token)
            found += page
            token = page.token
            if not token:
                return found

    def _create(
        self,
        name: str,
        source: str,
        run_id: str | None,
        tags: list[ModelVersionTag],
        run_link: str | None,
        description: str | None,
    ) -> ModelVersion:
        create_id = uuid4().hex
        tags = [*tags, ModelVersionTag(CREATE_ID, create_id)]
        attempts = Attempts("POST model-versions/create")
        while True:
            try:
                made: ModelVersion = super().create_model_version(
                    name, source, run_id, tags, run_link, description
                )
                return made
            except AnswerLostError as error:
                for version in self._plain_versions(name):
                    if version.tags.get(CREATE_ID) == create_id:
                        return version
                attempts.wait(str(error))

    def _completed(self, version: ModelVersion) -> ModelVersion:
        """Return a version with its aliases and its logged model, and without their tags."""
        own = [key.removeprefix(ALIAS) for key in version.tags if key.startswith(ALIAS)]
        version._aliases = sorted({*version.aliases, *own})
        if hasattr(version, "_model_id") and not version._model_id:
            version._model_id = version.tags.get(LOGGED_MODEL_ID)
        version._tags = {key: text for key, text in version.tags.items() if not is_hidden(key)}
        return version

    def _logged_model_source(
        self, source: str, run_id: str | None, model_id: str | None
    ) -> tuple[str, str | None, str | None]:
        """Return the place of a model, and its run and its identifier."""
        rest = source.removeprefix("models:/")
        if "/" in rest or "@" in rest:
            # A registered model: its place is what is registered.
            return self._place_of_version(source), run_id, model_id
        model = mlflow.MlflowClient(self._tracking_uri, self._uri).get_logged_model(rest)
        return model.artifact_location, run_id or model.source_run_id, model.model_id

    def _place_of_version(self, source: str) -> str:
        from mlflow.store.artifact.utils.models import get_model_name_and_version

        client = mlflow.MlflowClient(self._tracking_uri, self._uri)
        name, version = get_model_name_and_version(client, source)
        return str(client.get_model_version_download_uri(name, version))

    def _model_at(self, source: str, run_id: str) -> str | None:
        parts = run_parts(source)
        if parts is None or parts[1] != run_id:
            return None
        return AmlTrackingStore.of(source).model_in_folder(run_id, parts[2])

    def _is_here(self, source: str) -> bool:
        """Tell whether the service can read a source: it is of this workspace."""
        if not source.startswith("azureml://"):
            return False
        return not names_workspace(source) or same_workspace(source, self._uri)

    def _local_copy(self, source: str, given: str, local: str | None, folder: str) -> Path:
        if local and (Path(local) / "MLmodel").exists():
            return Path(local)
        path = source.removeprefix("file://") if source.startswith(("file://", "/")) else None
        if path is None:
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=source, dst_path=folder, tracking_uri=self._tracking_uri
            )
        if not (Path(path) / "MLmodel").exists():
            raise MlflowException(
                f"source of a model version must be a folder with an MLmodel file: got {given!r}",
                RESOURCE_DOES_NOT_EXIST,
            )
        return Path(path)

    def _uploaded(self, folder: Path) -> str:
        """Upload a model, and return the URI that the service registers from."""
        repository = new_upload(self._uri, folder.name or "model")
        repository.log_artifacts(str(folder))
        return str(repository.artifact_uri)
