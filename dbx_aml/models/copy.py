"""Copy a registered version from one registry to another, with its lineage: `copy_model_version`.

A copy is found again by the tags on it: the source registry, model, version and its time of
creation, and one hash over all files. So a second call, and a call after a killed one, end with
the same version.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.deadline import time_limit
from dbx_aml._common.errors import ArgumentError, DbxAmlError, RegistryError
from dbx_aml._common.log import get_logger
from dbx_aml._common.paths import sha256_of_folder
from dbx_aml._common.text import first_line
from dbx_aml.link.connected_link import current_link
from dbx_aml.link.uris import is_azureml_uri, is_unity_catalog_uri
from dbx_aml.models import lineage
from dbx_aml.models.mlflow_client import read_pages
from dbx_aml.models.model_download import (
    DownloadedModel,
    ReportBytes,
    download_model,
    locked_folder,
)
from dbx_aml.models.model_files import locate_model, registry_uri_of
from dbx_aml.models.model_names import check_model_name, map_model_name
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.models.pages import model_version_url, run_url
from dbx_aml.models.registration import (
    READY_TIMEOUT_S,
    create_registered_model,
    delete_if_empty,
    name_filter,
    signature_tag,
)
from dbx_aml.models.registries import (
    LOOKUP_TIMEOUT_S,
    Registry,
    check_registered,
    find_elsewhere,
    find_registry,
    get_version,
    linked_registries,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = get_logger(__name__)

_READY, _PENDING = "READY", "PENDING_REGISTRATION"
_COPIES_EXPERIMENT = "/Shared/dbx-aml model copies"
_MODEL_FOLDER = "model"
_VERSIONS_PER_PAGE = 200


@dataclass(frozen=True, kw_only=True)
class CopiedModelVersion:
    """A version that is a copy of a version in another registry.

    Args:
        name: Registered model of the copy.
        version: Number of the copy.
        model_uri: URI of the copy in its registry, for example "models:/main-ml-delay/1".
        registry: Registry of the copy, as tags name it.
        is_new: Whether this call created the copy; False if an earlier call did.
        source_model_uri: URI of the source in its registry.
        source_registry: Registry of the source, as tags name it.
        artifacts_sha256: Hash over the names and contents of all files.
        aliases: Aliases of the copy.
        tags: Tags of the copy.
        url: Page of the copy, None where its registry has no pages.
    """

    name: str
    version: str
    model_uri: str
    registry: str
    is_new: bool
    source_model_uri: str
    source_registry: str
    artifacts_sha256: str
    aliases: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    url: str | None = None


def _report_nothing(step: str, done: int, total: int) -> None:
    """Ignore the progress."""


def copy_model_version(
    source: str,
    destination: str | None = None,
    *,
    source_registry: str | None = None,
    destination_registry: str | None = None,
    with_aliases: bool = False,
    report: ReportBytes = _report_nothing,
) -> CopiedModelVersion:
    """Copy a registered version to another registry, or return its existing copy.

    The copy has the files of the source byte by byte, its signature, tags and description, and tags
    for its lineage: source registry, model and version, run and the page of the run, and one hash
    over all files. The source gets a tag that names the copy, if the caller may tag it. If a call
    is killed, the next one goes on with the files that are on this machine.

    Args:
        source: Registered version, for example "models:/main.ml.delay/3" or
            "models:/main.ml.delay@champion".
        destination: Registered model of the copy, for example "main-ml-delay". By default the
            name of the source, with "-" for each "." where the registry takes no dots.
        source_registry: Word of the link ("databricks-uc", "databricks" or "aml") or MLflow
            registry URI. By default the registry of the link that has the version.
        destination_registry: Word or URI as well. By default the other registry of the link.
        with_aliases: Whether the aliases of the source move to the copy.
        report: Function that is called with the progress: step, bytes done, bytes expected.

    Raises:
        ModelUriError: The source names no version.
        ArgumentError: The destination refuses the name, or is the source itself.
        RegistryError: The source does not exist, or a registry refuses a call.
    """
    uri = ModelUri.parse(source)
    check_registered(uri)
    registry, version, target = _find_ends(uri, source_registry, destination_registry)
    source_uri = ModelUri(kind="version", name=version.name, version=str(version.version))
    origin = _original_of(version, target, destination)
    if origin is not None:
        with _one_line_errors(target):
            origin = _set_aliases(target, origin, list(version.aliases) if with_aliases else [])
        return _describe(origin, target, version, registry, is_new=False)
    name = (
        check_model_name(destination, target.uri)
        if destination
        else map_model_name(str(version.name), target.uri)
    )
    if name == version.name and target.is_same(registry):
        raise ArgumentError(
            f"destination must not be the source itself: got {name!r} in {target.title}; pass "
            "another name as destination, or another destination_registry"
        )
    key = f"{registry.identity} {source_uri} {version.creation_timestamp} {target.identity} {name}"
    with locked_folder(key) as folder:
        job = _Copy(registry, version, source_uri, target, name, folder, report)
        with _one_line_errors(target):
            copy, is_new = job.run()
            copy = _set_aliases(target, copy, list(version.aliases) if with_aliases else [])
            _tag_source(registry, version, target, copy)
        shutil.rmtree(folder, ignore_errors=True)
    return _describe(copy, target, version, registry, is_new=is_new)


@contextmanager
def _one_line_errors(target: Registry) -> Iterator[None]:
    """Turn the error of a registry, its storage or the network into one line."""
    try:
        yield
    except DbxAmlError:
        raise
    except Exception as err:
        if not _is_of_service(err):
            raise
        raise RegistryError(
            f"model version must be copied to {target.title}: got {first_line(err)}; "
            "run the copy again: it goes on where it stopped"
        ) from err


def copy_from_other_registry(
    uri: ModelUri, client: MlflowClient, name: str, tags: Mapping[str, str] | None
) -> ModelVersion | None:
    """Copy a version that only the other registry of the link has; return None if it has none.

    Args:
        uri: URI of a model; a model that is not registered has no copy.
        client: Client of the registry that MLflow uses.
        name: Registered model of the copy.
        tags: Tags to set on the copy.
    """
    if uri.kind not in ("version", "alias"):
        return None
    registry_uri = registry_uri_of(client)
    if get_version(uri, Registry(registry_uri, client.tracking_uri)) is not None:
        return None
    elsewhere = find_elsewhere(uri, registry_uri)
    if elsewhere is None:
        return None
    registry, version = elsewhere
    copy = copy_model_version(
        f"models:/{version.name}/{version.version}",
        name,
        source_registry=registry.uri,
        destination_registry=registry_uri,
    )
    for key, text in (tags or {}).items():
        client.set_model_version_tag(copy.name, copy.version, key, text)
    return client.get_model_version(copy.name, copy.version)


class _Copy:
    """Finds, continues or creates the copy of a version."""

    def __init__(
        self,
        registry: Registry,
        version: ModelVersion,
        source_uri: ModelUri,
        target: Registry,
        name: str,
        folder: Path,
        report: ReportBytes,
    ) -> None:
        self._registry = registry
        self._version = version
        self._source_uri = source_uri
        self._target = target
        self._name = name
        self._folder = folder
        self._report = report

    def run(self) -> tuple[ModelVersion, bool]:
        """Return the copy, and whether this call created or completed it."""
        self._report("Looking for a copy", 0, 0)
        copies = self._find_copies()
        ready = next((copy for copy in copies if copy.status == _READY), None)
        if ready is not None:
            return ready, False
        client = self._target.client
        for copy in copies:
            if copy.status == _PENDING and is_unity_catalog_uri(self._target.uri):
                return self._continue_in_unity_catalog(copy), True
            if copy.status == _PENDING:
                return self._await_ready(copy), True
            # The registry gave up this version.
            client.delete_model_version(copy.name, str(copy.version))
        model = self._download()
        tags = tags_of_copy(self._version, self._registry, model.folder)
        self._report("Uploading", 0, model.size)
        is_new_name = create_registered_model(client, self._name)
        try:
            copy = self._create_version(model.folder, tags)
        except Exception:
            if is_new_name:
                delete_if_empty(client, self._name)
            raise
        return self._drop_second_copy(self._await_ready(copy)), True

    def _download(self) -> DownloadedModel:
        try:
            location = locate_model(self._source_uri, self._registry.client)
            return download_model(location, self._folder, self._report)
        except Exception as err:
            if not _is_of_service(err):
                raise
            raise RegistryError(
                f"files of {str(self._source_uri)!r} must be readable in {self._registry.title}: "
                f"got {first_line(err)}; run the copy again: it goes on where it stopped"
            ) from err

    def _create_version(self, folder: Path, tags: dict[str, str]) -> ModelVersion:
        client, uri = self._target.client, self._target.uri
        source, run_id = str(self._source_uri), None
        if is_azureml_uri(uri):
            source = str(folder)
        elif not is_unity_catalog_uri(uri):
            source, run_id = self._upload_to_run(folder, tags)
        # Not `create_model_version`: it would make Unity Catalog's store download the files again.
        return client._create_model_version(
            self._name,
            source,
            run_id=run_id,
            tags=lineage.version_tags_for(uri, {**creation_tags(), **tags}),
            description=self._version.description or None,
            await_creation_for=0,
            local_model_path=str(folder),
        )

    def _upload_to_run(self, folder: Path, tags: Mapping[str, str]) -> tuple[str, str]:
        """Upload the files to a run at the destination; return their location and the run's id.

        MLflow's own registry keeps no files: a version names the files of a run on its server.
        """
        client = self._target.client
        experiment = client.get_experiment_by_name(_COPIES_EXPERIMENT)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else client.create_experiment(_COPIES_EXPERIMENT, tags=creation_tags())
        )
        if experiment and experiment.lifecycle_stage == "deleted":
            # 'dbx-aml clean' deletes it, and MLflow keeps its name.
            client.restore_experiment(experiment_id)
        sha256 = tags[lineage.ARTIFACTS_SHA256]
        runs = client.search_runs(
            [experiment_id], f"tags.`{lineage.ARTIFACTS_SHA256}` = '{sha256}'", max_results=1
        )
        run = runs[0] if runs else None
        if run is None:
            own_tags = {key: text for key, text in tags.items() if lineage.is_lineage_tag(key)}
            run = client.create_run(
                experiment_id,
                tags={**creation_tags(), **own_tags},
                run_name=f"copy of {self._source_uri}",
            )
        run_id = str(run.info.run_id)
        if run.info.status != "FINISHED":
            client.log_artifacts(run_id, str(folder), _MODEL_FOLDER)
            client.set_terminated(run_id)
        return f"{run.info.artifact_uri.rstrip('/')}/{_MODEL_FOLDER}", run_id

    def _continue_in_unity_catalog(self, copy: ModelVersion) -> ModelVersion:
        """Upload the files of a version whose upload was killed, and end its registration."""
        model = self._download()
        self._report("Uploading", 0, model.size)
        client, name, number = self._target.client, copy.name, str(copy.version)
        store = client._get_registry_client().store
        upload = SimpleNamespace(
            name=name,
            version=number,
            storage_location=client.get_model_version_download_uri(name, number),
        )
        store._get_artifact_repo(upload).log_artifacts(
            local_dir=str(model.folder), artifact_path=""
        )
        store._finalize_model_version(name=name, version=number)
        return self._await_ready(copy)

    def _await_ready(self, copy: ModelVersion) -> ModelVersion:
        client = self._target.client
        client._get_registry_client().store._await_model_version_creation(copy, READY_TIMEOUT_S)
        copy = client.get_model_version(copy.name, str(copy.version))
        if copy.status != _READY:
            raise RegistryError(
                f"model version must be ready: got {copy.status} for version {copy.version} of "
                f"{copy.name!r} in {self._target.title}; "
                f"{copy.status_message or 'look at the registry'}"
            )
        return copy

    def _drop_second_copy(self, copy: ModelVersion) -> ModelVersion:
        """Keep the first of two copies that two machines made at the same time."""
        ready = [version for version in self._find_copies() if version.status == _READY]
        first = min(ready, key=lambda version: int(version.version), default=copy)
        if str(first.version) != str(copy.version):
            self._target.client.delete_model_version(copy.name, str(copy.version))
        return first

    def _find_copies(self) -> list[ModelVersion]:
        """Return the versions at the destination that are copies of the source, oldest first."""
        source_tags = lineage.read_lineage(self._version.tags)
        sha256 = source_tags.get(lineage.ARTIFACTS_SHA256)
        copies = []
        for version in list_versions(self._target, self._name):
            tags = lineage.read_lineage(version.tags)
            if not self._is_source(tags):
                continue
            copy_sha256 = tags.get(lineage.ARTIFACTS_SHA256)
            if sha256 is None or copy_sha256 is None or copy_sha256 == sha256:
                copies.append(version)
        return sorted(copies, key=lambda version: int(version.version))

    def _is_source(self, tags: Mapping[str, str]) -> bool:
        created_at = tags.get(lineage.SOURCE_CREATED_AT)
        return (
            tags.get(lineage.SOURCE_MODEL_URI) == str(self._source_uri)
            and created_at in (None, str(self._version.creation_timestamp or ""))
            and _is_same_registry(tags.get(lineage.SOURCE_REGISTRY, ""), self._registry.identity)
        )


def tags_of_copy(version: ModelVersion, registry: Registry, folder: Path) -> dict[str, str]:
    """Return the tags of a copy: the tags of its source, and its lineage.

    Args:
        version: Source version.
        registry: Registry of the source.
        folder: Files of the source on this machine.
    """
    run_id, run_page = source_run(version, registry)
    own_tags = {
        lineage.SOURCE_REGISTRY: registry.identity,
        lineage.SOURCE_MODEL_URI: f"models:/{version.name}/{version.version}",
        lineage.SOURCE_CREATED_AT: str(version.creation_timestamp or ""),
        lineage.SOURCE_RUN_ID: run_id,
        lineage.SOURCE_URL: run_page,
        lineage.ARTIFACTS_SHA256: sha256_of_folder(folder),
        lineage.SIGNATURE: signature_tag(folder),
    }
    tags = {key: text for key, text in own_tags.items() if text}
    for key, text in version.tags.items():
        if lineage.is_lineage_tag(key):
            continue
        if len(text) > lineage.MAX_TAG_LENGTH:
            log.warning("left out a tag that is too long key=%s characters=%s", key, len(text))
        else:
            tags[key] = text
    return tags


def list_versions(registry: Registry, name: str) -> list[ModelVersion]:
    """Return all versions of a registered model with their tags and aliases.

    Args:
        registry: Registry.
        name: Registered model; without one of this name there are no versions.
    """
    from mlflow.exceptions import MlflowException

    client = registry.client
    search = partial(client.search_model_versions, name_filter(name), _VERSIONS_PER_PAGE)
    try:
        versions = list(read_pages(lambda token: search(page_token=token), "model-versions/search"))
    except MlflowException as err:
        if err.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    if is_unity_catalog_uri(registry.uri):
        # Its search leaves tags and aliases out.
        return [client.get_model_version(name, str(version.version)) for version in versions]
    if versions and not is_azureml_uri(registry.uri):
        # The search of MLflow's own registry leaves aliases out.
        numbers = client.get_registered_model(name).aliases
        for version in versions:
            aliases = [
                key for key, number in numbers.items() if str(number) == str(version.version)
            ]
            version._aliases = aliases
    return versions


def source_run(version: ModelVersion, registry: Registry) -> tuple[str, str]:
    """Return the id and the page of the run that logged a version; an unknown value is ""."""
    tags = lineage.read_lineage(version.tags)
    run_id = version.run_id or tags.get(lineage.SOURCE_RUN_ID) or ""
    page = version.run_link or tags.get(lineage.SOURCE_URL) or ""
    if version.run_id and not page:
        page = _page_of_run(version.run_id, registry)
    return run_id, page


def _page_of_run(run_id: str, registry: Registry) -> str:
    """Return the page of a run beside a registry; "" if its server does not show the run."""
    from mlflow.exceptions import MlflowException

    try:
        with time_limit(LOOKUP_TIMEOUT_S):
            return run_url(run_id, tracking_uri=registry.tracking_uri) or ""
    except (MlflowException, DbxAmlError):
        return ""


def _find_ends(
    uri: ModelUri, source_registry: str | None, destination_registry: str | None
) -> tuple[Registry, ModelVersion, Registry]:
    """Return the source registry, the version in it, and the destination registry."""
    link = current_link()
    linked = linked_registries(link)
    if destination_registry is not None:
        target = find_registry(destination_registry, link)
    candidates = linked
    if source_registry is not None:
        candidates = [find_registry(source_registry, link)]
    elif destination_registry is not None:
        others = [registry for registry in linked if not registry.is_same(target)]
        candidates = others or linked
    versions = [
        (registry, version)
        for registry in candidates
        if (version := get_version(uri, registry)) is not None
    ]
    if not versions:
        titles = " and ".join(registry.title for registry in candidates)
        raise RegistryError(
            f"model version must exist: got {str(uri)!r}, which is not in {titles}; "
            "name its registry as source_registry"
        )
    originals = [
        (registry, version)
        for registry, version in versions
        if not lineage.read_lineage(version.tags).get(lineage.SOURCE_REGISTRY)
    ]
    if len(versions) > 1 and len(originals) != 1:
        raise RegistryError(
            f"source must be in one registry: got {str(uri)!r}, which is in "
            f"{' and '.join(registry.title for registry, _ in versions)}; "
            "name one of the two as source_registry"
        )
    registry, version = versions[0] if len(versions) == 1 else originals[0]
    if destination_registry is None:
        others = [other for other in linked if not other.is_same(registry)]
        if not others:
            raise ArgumentError(
                "destination must be another registry: got a link with one registry; pass "
                "destination_registry, for example 'aml'"
            )
        target = others[0]
    return registry, version, target


def _original_of(
    version: ModelVersion, target: Registry, destination: str | None
) -> ModelVersion | None:
    """Return the version that the source itself was copied from, if it is in the destination."""
    tags = lineage.read_lineage(version.tags)
    if not _is_same_registry(tags.get(lineage.SOURCE_REGISTRY, ""), target.identity):
        return None
    uri = ModelUri.parse(tags.get(lineage.SOURCE_MODEL_URI, ""))
    original = get_version(uri, target) if destination in (None, uri.name) else None
    if original is None:
        return None
    created_at = tags.get(lineage.SOURCE_CREATED_AT)
    return original if created_at == str(original.creation_timestamp) else None


def _is_same_registry(identity: str, other_identity: str) -> bool:
    """Compare two registries by their names in tags.

    Several workspaces share one Unity Catalog. Its models have the same full names and times of
    creation in each of them.
    """
    if all(name.startswith("databricks-uc://") for name in (identity, other_identity)):
        return True
    return identity.lower() == other_identity.lower()


def _set_aliases(target: Registry, copy: ModelVersion, aliases: list[str]) -> ModelVersion:
    """Let aliases name a copy; return the copy as the registry shows it."""
    for alias in aliases:
        if alias not in copy.aliases:
            target.client.set_registered_model_alias(copy.name, alias, str(copy.version))
    return target.client.get_model_version(copy.name, str(copy.version))


def _tag_source(
    registry: Registry, version: ModelVersion, target: Registry, copy: ModelVersion
) -> None:
    """Let the source name its copy, if the caller may tag it."""
    from mlflow.exceptions import MlflowException

    tags = lineage.copy_tag(target.identity, f"models:/{copy.name}/{copy.version}")
    sha256 = lineage.read_lineage(copy.tags).get(lineage.ARTIFACTS_SHA256)
    if sha256:
        tags[lineage.ARTIFACTS_SHA256] = sha256
    try:
        for key, text in lineage.version_tags_for(registry.uri, tags).items():
            if version.tags.get(key) != text:
                registry.client.set_model_version_tag(version.name, str(version.version), key, text)
    except (MlflowException, DbxAmlError) as err:
        log.warning(
            "could not tag the source model=%s version=%s: %s",
            version.name,
            version.version,
            first_line(err),
        )


def _describe(
    copy: ModelVersion,
    target: Registry,
    version: ModelVersion,
    registry: Registry,
    *,
    is_new: bool,
) -> CopiedModelVersion:
    tags = lineage.read_lineage(copy.tags)
    return CopiedModelVersion(
        name=copy.name,
        version=str(copy.version),
        model_uri=f"models:/{copy.name}/{copy.version}",
        registry=target.identity,
        is_new=is_new,
        source_model_uri=f"models:/{version.name}/{version.version}",
        source_registry=registry.identity,
        artifacts_sha256=tags.get(lineage.ARTIFACTS_SHA256, ""),
        aliases=sorted(copy.aliases),
        tags=dict(copy.tags),
        url=model_version_url(copy.name, copy.version, registry_uri=target.uri),
    )


def _is_of_service(error: Exception) -> bool:
    """Tell whether an error comes from a registry, its storage or the network."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    return isinstance(error, MlflowException | RequestException | OSError)
