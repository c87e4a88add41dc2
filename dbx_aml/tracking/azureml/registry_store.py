"""MLflow's model registry in Azure ML: azureml-mlflow's store, with aliases and more sources.

Azure ML registers a model from a run's folder in the same workspace, or from an upload. It knows
neither `models:/m-...` nor runs of another server, and it has no aliases.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
from azureml.mlflow._store.model_registry.model_registry import AzureMLflowModelRegistry
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModel
from mlflow.entities.model_registry.registered_model_alias import RegisteredModelAlias
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import NOT_IMPLEMENTED, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry import SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.tracking.artifact_utils import get_artifact_uri
from mlflow.utils.search_utils import SearchModelUtils

from dbx_aml._common.daemon_threads import DaemonThreadPool
from dbx_aml._common.errors import is_not_found
from dbx_aml._common.redact import redact
from dbx_aml.link.uris import parse_azureml_uri
from dbx_aml.models.lineage import (
    ARTIFACTS_SHA256,
    LOGGED_MODEL_ID,
    SOURCE_MODEL_URI,
    SOURCE_RUN_ID,
)
from dbx_aml.models.mlflow_client import create_client, read_pages
from dbx_aml.models.mlflow_releases import get_logged_model, validate_alias
from dbx_aml.models.registries import describe_model_elsewhere
from dbx_aml.tracking.azureml.artifact_repository import AmlArtifactRepository, create_upload
from dbx_aml.tracking.azureml.mlflow_calls import (
    CallNotSupportedError,
    call_mlflow_api,
    create_once,
)
from dbx_aml.tracking.azureml.model_version_tags import (
    ALIAS_PREFIX,
    CREATE_ID,
    is_internal_tag,
    timestamp,
    versions_by_alias,
)
from dbx_aml.tracking.azureml.search_filter import split_filter
from dbx_aml.tracking.azureml.service_context import service_context_of
from dbx_aml.tracking.azureml.store import AmlTrackingStore

_MAX_TAG_LENGTH = 1000
_VERSIONS_PER_PAGE = 200
# MLflow sets this tag on a prompt, which its own server keeps as a registered model.
_PROMPT_TAG = "mlflow.prompt.is_prompt"
# Words of Azure ML for a filter of registered models that it does not know.
_REFUSED_FILTER = "unsupported filter string"
_THREADS = 8


class AmlModelRegistryStore(AzureMLflowModelRegistry):  # type: ignore[misc]
    """The model registry of one workspace.

    Args:
        service_context: Service context of the workspace.
        uri: Registry URI.
        tracking_uri: Server of runs and logged models; by default the registry's workspace.
    """

    def __init__(self, service_context: Any, uri: str, tracking_uri: str | None = None) -> None:
        super().__init__(service_context)
        self._uri = uri
        self._tracking_uri = tracking_uri or uri
        self._has_aliases = True

    @classmethod
    def from_uri(cls, uri: str, tracking_uri: str | None = None) -> "AmlModelRegistryStore":
        """Return the registry of the workspace that a URI names, without a request."""
        return cls(service_context_of(uri), uri, tracking_uri)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None,
        call_all_endpoints: bool = False,
        extra_headers: Any = None,
        **_: Any,
    ) -> Any:
        """Make a call within the retry limit of this package instead of MLflow's."""
        endpoints = [self._get_endpoint_from_method(api)]
        if call_all_endpoints:
            endpoints = self._get_all_endpoints_from_method(api)
        for number, (endpoint, method) in enumerate(endpoints):
            try:
                return call_mlflow_api(
                    self.get_host_creds,
                    endpoint,
                    method,
                    json_body,
                    self._get_response_from_method(api),
                    is_idempotent=api.__name__ != "CreateModelVersion",
                )
            except MlflowException as error:
                is_last = number == len(endpoints) - 1
                if is_last or str(error.error_code) != "ENDPOINT_NOT_FOUND":
                    raise
        raise ValueError(f"no endpoint for {api}")

    def create_registered_model(
        self, name: str, tags: Any = None, *args: Any, **kwargs: Any
    ) -> RegisteredModel:
        """Create a registered model; a prompt is refused."""
        _refuse_prompt(tags)
        model: RegisteredModel = super().create_registered_model(name, tags, *args, **kwargs)
        return model

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
        """Create a version of a registered model from any source.

        A model outside of this workspace is downloaded and uploaded; a tag holds its source.
        """
        _refuse_prompt(tags)
        tags = list(tags or [])
        source_uri = source
        if source.startswith("models:/"):
            source, run_id, model_id = self._model_location(source, run_id, model_id)
        elif source.startswith("runs:/"):
            run_of_source, path = RunsArtifactRepository.parse_runs_uri(source)
            source = get_artifact_uri(run_of_source, path, self._tracking_uri)
        is_in_workspace = self._is_in_workspace(source)
        if model_id is None and run_id and is_in_workspace:
            model_id = self._logged_model_at(source, run_id)
        if model_id:
            tags.append(ModelVersionTag(LOGGED_MODEL_ID, model_id))
        # The service reads the first version of each file.
        if is_in_workspace and not self._artifacts_at(source).has_newer_content():
            version = self._create_version(name, source, run_id, tags, run_link, description)
            return self._with_aliases(version)
        tag_keys = {tag.key for tag in tags}
        if SOURCE_MODEL_URI not in tag_keys:
            tags.append(ModelVersionTag(SOURCE_MODEL_URI, redact(source_uri)[:_MAX_TAG_LENGTH]))
        if run_id and SOURCE_RUN_ID not in tag_keys:
            tags.append(ModelVersionTag(SOURCE_RUN_ID, run_id))
        sha256 = next((tag.value for tag in tags if tag.key == ARTIFACTS_SHA256), None)
        with tempfile.TemporaryDirectory() as folder:
            model_folder = self._download_model(source, source_uri, local_model_path, folder)
            source = self._upload_model(model_folder, sha256)
            if not is_in_workspace:
                run_id = None
            version = self._create_version(name, source, run_id, tags, run_link, description)
        return self._with_aliases(version)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias name a version, by the service's own alias if it has aliases."""
        validate_alias(alias)
        set_alias = super().set_registered_model_alias
        if self._is_done_by_service(lambda: set_alias(name, alias, version)):
            return
        # The new tag first, so that the alias names a version at every moment.
        tag = ModelVersionTag(f"{ALIAS_PREFIX}{alias}", timestamp())
        self.set_model_version_tag(name, str(version), tag)
        self._remove_alias(name, alias, except_version=str(version))

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias."""
        delete_alias = super().delete_registered_model_alias
        if not self._is_done_by_service(lambda: delete_alias(name, alias)):
            self._remove_alias(name, alias)

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Return the version that an alias names; the newest version for the alias "latest"."""
        if alias.lower() == "latest":
            newest = max((int(item.version) for item in self.get_latest_versions(name)), default=0)
            if newest:
                return self.get_model_version(name, str(newest))
        if self._has_aliases:
            try:
                return self._with_aliases(super().get_model_version_by_alias(name, alias))
            except CallNotSupportedError:
                self._has_aliases = False
        super().get_registered_model(name)
        version = versions_by_alias(self._stored_versions(name)).get(alias)
        if version is None:
            raise MlflowException(
                f"Registered model alias {alias} not found.", RESOURCE_DOES_NOT_EXIST
            )
        return self.get_model_version(name, version)

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        """Return a version with its aliases."""
        with self._naming_other_registry(name, str(version)):
            return self._with_aliases(super().get_model_version(name, version))

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        """Return the location of a version's files."""
        with self._naming_other_registry(name, str(version)):
            return str(super().get_model_version_download_uri(name, version))

    @contextmanager
    def _naming_other_registry(self, name: str, version: str | None = None) -> Iterator[None]:
        """Let the error for a missing model name the other registry of the link that has it."""
        try:
            yield
        except MlflowException as error:
            if not is_not_found(error):
                raise
            message = describe_model_elsewhere(name, version, self._uri)
            if not message:
                raise
            raise MlflowException(message, RESOURCE_DOES_NOT_EXIST) from None

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a registered model with its aliases."""
        with self._naming_other_registry(name):
            return self._with_model_aliases(super().get_registered_model(name))

    def search_registered_models(self, *args: Any, **kwargs: Any) -> Any:
        """Return registered models with their aliases, see `search_models_without_aliases`."""
        page = self.search_models_without_aliases(*args, **kwargs)
        with DaemonThreadPool(_THREADS) as pool:
            return PagedList(list(pool.map(self._with_model_aliases, page)), page.token)

    def search_models_without_aliases(
        self,
        filter_string: str | None = None,
        max_results: int | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> Any:
        """Return registered models as the service has them: aliases are tags on their versions.

        MLflow adds a condition about prompts to each filter. Azure ML refuses that condition, so
        this package decides it. If Azure ML refuses the other conditions too, all registered
        models are read and filtered here.
        """
        service_filter, prompt_conditions = split_filter(
            filter_string,
            SearchModelUtils,
            lambda condition: (condition.kind, condition.key) == ("tag", _PROMPT_TAG),
        )
        search = super().search_registered_models
        try:
            page = search(service_filter, max_results, order_by, page_token)
        except MlflowException as error:
            if _REFUSED_FILTER not in error.message:
                raise
            page = _filter_models(search, filter_string, max_results, order_by, page_token)
        models = [
            model
            for model in page
            # MLflow counts a model without the tag as one with "false".
            if all(
                item.is_met_by(model._tags.get(_PROMPT_TAG, "false")) for item in prompt_conditions
            )
        ]
        return PagedList(models, page.token)

    def update_registered_model(self, *args: Any, **kwargs: Any) -> RegisteredModel:
        """Change a registered model; return it with its aliases."""
        return self._with_model_aliases(super().update_registered_model(*args, **kwargs))

    def update_model_version(self, *args: Any, **kwargs: Any) -> ModelVersion:
        """Change a version; return it with its aliases."""
        return self._with_aliases(super().update_model_version(*args, **kwargs))

    def transition_model_version_stage(self, *args: Any, **kwargs: Any) -> ModelVersion:
        """Change the stage of a version; return the version with its aliases."""
        return self._with_aliases(super().transition_model_version_stage(*args, **kwargs))

    def search_model_versions(self, *args: Any, **kwargs: Any) -> Any:
        """Return versions with their aliases."""
        page = super().search_model_versions(*args, **kwargs)
        return PagedList([self._with_aliases(version) for version in page], page.token)

    def get_latest_versions(self, name: str, stages: Any = None) -> list[ModelVersion]:
        """Return the newest version of each stage, with its aliases."""
        versions = super().get_latest_versions(name, stages)
        return [self._with_aliases(version) for version in versions]

    def _is_done_by_service(self, call: Callable[[], None]) -> bool:
        """Make a call about aliases; return False if the service has no aliases."""
        if self._has_aliases:
            try:
                call()
            except CallNotSupportedError:
                self._has_aliases = False
        return self._has_aliases

    def _remove_alias(self, name: str, alias: str, except_version: str = "") -> None:
        key = f"{ALIAS_PREFIX}{alias}"
        for version in self._stored_versions(name):
            if key in version.tags and str(version.version) != except_version:
                self.delete_model_version_tag(name, str(version.version), key)

    def _stored_versions(self, name: str) -> list[ModelVersion]:
        """Return all versions of a registered model, as the service stores them."""
        quoted_name = name.replace("'", "''")
        condition = f"name='{quoted_name}'"
        search = partial(super().search_model_versions, condition, _VERSIONS_PER_PAGE, None)
        return list(read_pages(search, "model-versions/search"))

    def _create_version(
        self,
        name: str,
        source: str,
        run_id: str | None,
        tags: list[ModelVersionTag],
        run_link: str | None,
        description: str | None,
    ) -> ModelVersion:
        """Create a version once: after a lost answer, the version is searched before a retry."""
        create_id = uuid4().hex
        all_tags = [*tags, ModelVersionTag(CREATE_ID, create_id)]
        create = super().create_model_version

        def find_created() -> ModelVersion | None:
            versions = self._stored_versions(name)
            return next((item for item in versions if item.tags.get(CREATE_ID) == create_id), None)

        version: ModelVersion = create_once(
            lambda: create(name, source, run_id, all_tags, run_link, description),
            find_created,
            "POST model-versions/create",
        )
        return version

    def _with_aliases(self, version: ModelVersion) -> ModelVersion:
        """Return a version with its aliases and its logged model, and without their tags."""
        tagged_aliases = [
            key.removeprefix(ALIAS_PREFIX) for key in version.tags if key.startswith(ALIAS_PREFIX)
        ]
        version._aliases = sorted({*version.aliases, *tagged_aliases})
        if hasattr(version, "_model_id") and not version._model_id:
            version._model_id = version.tags.get(LOGGED_MODEL_ID)
        version._tags = {
            key: text for key, text in version.tags.items() if not is_internal_tag(key)
        }
        return version

    def _with_model_aliases(self, model: RegisteredModel) -> RegisteredModel:
        """Return a registered model with its aliases, and without their tags on its versions."""
        latest_versions = model.latest_versions or []
        if not model.aliases:
            newest = max((int(version.version) for version in latest_versions), default=0)
            # A model whose only versions are the latest ones needs no search.
            has_all_versions = 0 < newest <= len(latest_versions)
            versions = latest_versions if has_all_versions else self._stored_versions(model.name)
            for alias, number in versions_by_alias(versions).items():
                model._add_alias(RegisteredModelAlias(alias, number))
        model._latest_version = [self._with_aliases(version) for version in latest_versions]
        return model

    def _model_location(
        self, model_uri: str, run_id: str | None, model_id: str | None
    ) -> tuple[str, str | None, str | None]:
        """Return the artifact URI, the run id and the model id of a `models:/` URI."""
        client = create_client(self._tracking_uri, self._uri)
        name = model_uri.removeprefix("models:/")
        if "/" in name or "@" in name:
            from mlflow.store.artifact.utils.models import get_model_name_and_version

            name, version = get_model_name_and_version(client, model_uri)
            return str(client.get_model_version_download_uri(name, version)), run_id, model_id
        model = get_logged_model(client, name)
        return model.artifact_location, run_id or model.source_run_id, model.model_id

    def _logged_model_at(self, artifact_uri: str, run_id: str) -> str | None:
        """Return the identifier of the logged model at an artifact URI of a run."""
        resource = parse_azureml_uri(artifact_uri)
        if resource is None or resource.run_artifact is None:
            return None
        _, artifact_run_id, path = resource.run_artifact
        if artifact_run_id != run_id:
            return None
        return AmlTrackingStore.from_uri(self._uri).model_in_folder(run_id, path)

    def _is_in_workspace(self, artifact_uri: str) -> bool:
        """Tell whether an artifact URI is of this workspace, so that the service can read it."""
        if not artifact_uri.startswith("azureml://"):
            return False
        resource, workspace = parse_azureml_uri(artifact_uri), parse_azureml_uri(self._uri)
        if resource is None:
            return True
        if workspace is None or not resource.has_same_names(workspace):
            return False
        # An error where the artifact has another host than the workspace.
        service_context_of(artifact_uri, self._uri)
        return True

    def _artifacts_at(self, artifact_uri: str) -> AmlArtifactRepository:
        return AmlArtifactRepository(artifact_uri, registry_uri=self._uri)

    def _download_model(
        self, artifact_uri: str, source_uri: str, local_model_path: str | None, folder: str
    ) -> Path:
        """Return a local folder with the model, downloaded if it is not local.

        Args:
            artifact_uri: Location of the model's files.
            source_uri: URI that the caller registers, for the error.
            local_model_path: Local folder that the caller knows.
            folder: Folder for the download.
        """
        if local_model_path and (Path(local_model_path) / "MLmodel").exists():
            return Path(local_model_path)
        if artifact_uri.startswith(("file://", "/")):
            path = Path(artifact_uri.removeprefix("file://"))
        else:
            path = Path(
                mlflow.artifacts.download_artifacts(
                    artifact_uri=artifact_uri, dst_path=folder, tracking_uri=self._tracking_uri
                )
            )
        if not (path / "MLmodel").exists():
            raise MlflowException(
                "source of a model version must be a folder with an MLmodel file: "
                f"got {redact(source_uri)!r}",
                RESOURCE_DOES_NOT_EXIST,
            )
        return path

    def _upload_model(self, folder: Path, sha256: str | None) -> str:
        """Upload a model, and return the URI that the service registers from.

        Args:
            folder: Folder of the model.
            sha256: Hash over all files, if it is known. A model of the same hash goes to the same
                place: what a killed upload wrote is not sent again.
        """
        repository = create_upload(self._uri, "model" if sha256 else folder.name, sha256)
        repository.log_missing_artifacts(str(folder))
        return str(repository.artifact_uri)


def _filter_models(
    search: Callable[..., Any],
    filter_string: str | None,
    max_results: int | None,
    order_by: list[str] | None,
    page_token: str | None,
) -> Any:
    """Return a page of the registered models that meet a filter; all of them are read.

    Args:
        search: Method of the service's store that returns a page of registered models.
        filter_string: Filter that the service refuses.
        max_results: Largest number of models on the page.
        order_by: Clauses of MLflow.
        page_token: Token of the page.
    """
    search_all = partial(search, None, SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT, None)
    models = list(read_pages(search_all, "registered-models/search"))
    matching = SearchModelUtils.sort(SearchModelUtils.filter(models, filter_string), order_by)
    page_size = max_results or SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT
    return PagedList(*SearchModelUtils.paginate(matching, page_token, page_size))


def _refuse_prompt(tags: Any) -> None:
    if any(tag.key == _PROMPT_TAG for tag in tags or []):
        _refuse_prompt_call()


def _refuse_prompt_call(*_: Any, **__: Any) -> None:
    raise MlflowException(
        "Azure ML takes no prompts: keep prompts in Unity Catalog or on an MLflow server; "
        "call for example mlflow.set_registry_uri('databricks-uc')",
        NOT_IMPLEMENTED,
    )


# Each version of MLflow has other methods for prompts.
for _method in dir(AbstractStore):
    if "prompt" in _method:
        setattr(AmlModelRegistryStore, _method, _refuse_prompt_call)
