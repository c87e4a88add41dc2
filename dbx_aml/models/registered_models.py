"""Registered models and versions of the linked registries, as rows for tables and programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import ArgumentError, RegistryError
from dbx_aml._common.text import one_line
from dbx_aml.link.connected_link import current_link
from dbx_aml.link.uris import is_azureml_uri
from dbx_aml.models import lineage
from dbx_aml.models.copy import list_versions, source_run
from dbx_aml.models.mlflow_client import list_all_artifacts, read_pages
from dbx_aml.models.model_files import locate_model
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.models.pages import model_version_url
from dbx_aml.models.registration import check_alias
from dbx_aml.models.registries import (
    Registry,
    find_registry,
    get_registered_version,
    linked_registries,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class ModelVersionRow:
    """A version as a row of a table.

    Args:
        registry: Registry, for example "databricks-uc" or "aml".
        name: Registered model.
        version: Number of the version; "" for a registered model without versions.
        aliases: Aliases of the version.
        stage: MLflow's stage, where the registry still has stages.
        status: MLflow's status, for example "READY".
        created: Time of creation in UTC.
        url: Page of the version, None where the registry has no pages.
        run_id: Run that logged the model.
        run_url: Page of the run.
        copied_from: URI of the source of a copy, with its registry.
        copies: URIs of the copies of this version, each with its registry.
    """

    registry: str
    name: str
    version: str = ""
    aliases: list[str] = field(default_factory=list)
    stage: str = ""
    status: str = ""
    created: datetime | None = None
    url: str | None = None
    run_id: str = ""
    run_url: str = ""
    copied_from: str = ""
    copies: list[str] = field(default_factory=list)


def list_registered_models(
    name: str | None = None, *, registry: str | None = None, max_results: int = 20
) -> list[ModelVersionRow]:
    """Return the versions of the linked registries, the newest version of each model first.

    Args:
        name: Registered model; by default all models.
        registry: Word of the link or MLflow registry URI; by default both registries of the link.
        max_results: Largest number of registered models of each registry.

    Raises:
        RegistryError: A registry does not answer, or refuses the caller.
    """
    link = current_link()
    registries = [find_registry(registry, link)] if registry else _distinct(linked_registries(link))
    return [
        row
        for model_registry in registries
        for row in _call_registry(
            model_registry, partial(_rows_of, model_registry, name, max_results)
        )
    ]


def show_model_version(source: str, *, registry: str | None = None) -> dict[str, Any]:
    """Return everything about a version: its row, description, tags, signature and files.

    Args:
        source: URI of a version or an alias, for example "models:/main.ml.delay@champion".
        registry: Word of the link or MLflow registry URI; by default the first registry of the
            link that has the version.

    Raises:
        RegistryError: No registry has the version.
    """
    uri = ModelUri.parse(source)
    model_registry, version = get_registered_version(uri, registry)
    tags = lineage.read_lineage(version.tags)

    def list_files() -> list[dict[str, Any]]:
        pinned = ModelUri(kind="version", name=version.name, version=str(version.version))
        location = locate_model(pinned, model_registry.client)
        infos = list_all_artifacts(location.repository.list_artifacts, location.path or None)
        return sorted(
            ({"path": info.path, "bytes": info.file_size} for info in infos),
            key=lambda file: str(file["path"]),
        )

    return {
        "version": _to_row(model_registry, version),
        "description": version.description or "",
        "lineage": tags,
        "tags": {
            key: text for key, text in version.tags.items() if not lineage.is_lineage_tag(key)
        },
        "files": _call_registry(model_registry, list_files),
    }


def set_model_alias(source: str, alias: str, *, registry: str | None = None) -> ModelVersionRow:
    """Let an alias name a version; return the version.

    Args:
        source: URI of the version, for example "models:/main.ml.delay/3".
        alias: Alias, for example "champion".
        registry: Word of the link or MLflow registry URI; by default the first registry of the
            link that has the version.

    Raises:
        ArgumentError: MLflow takes no such alias.
        RegistryError: No registry has the version, or the registry refuses the alias.
    """
    check_alias(alias)
    model_registry, version = get_registered_version(ModelUri.parse(source), registry)
    client, number = model_registry.client, str(version.version)
    _call_registry(
        model_registry, lambda: client.set_registered_model_alias(version.name, alias, number)
    )
    return _to_row(model_registry, client.get_model_version(version.name, number))


def delete_model_alias(name: str, alias: str, *, registry: str | None = None) -> None:
    """Delete an alias of a registered model.

    Args:
        name: Registered model.
        alias: Alias, for example "champion".
        registry: Word of the link or MLflow registry URI; by default the first registry of the
            link in which the alias names a version.

    Raises:
        ArgumentError: The name is a URI.
        RegistryError: No registry has the alias.
    """
    if name.startswith("models:"):
        raise ArgumentError(
            f"registered model must be given by its name: got {name!r}; pass for example 'delay'"
        )
    uri = ModelUri(kind="alias", name=name, alias=alias)
    model_registry, _ = get_registered_version(uri, registry)
    client = model_registry.client
    _call_registry(model_registry, lambda: client.delete_registered_model_alias(name, alias))


def _rows_of(registry: Registry, name: str | None, max_results: int) -> list[ModelVersionRow]:
    if name is None:
        search = registry.client.search_registered_models
        if is_azureml_uri(registry.uri):
            # Its aliases are tags on the versions, which this function reads anyway.
            search = registry.client._get_registry_client().store.search_models_without_aliases
        # A page may be short, or empty, although others follow.
        found = read_pages(
            lambda token: search(max_results=max_results, page_token=token),
            "registered-models/search",
        )
        names = [str(model.name) for model in islice(found, max_results)]
    else:
        names = [name]
    with ThreadPoolExecutor(_THREADS) as pool:
        versions_of_names = list(pool.map(lambda model: list_versions(registry, model), names))
        rows: list[ModelVersionRow] = []
        for model_name, versions in zip(names, versions_of_names, strict=True):
            newest_first = sorted(versions, key=lambda version: -int(version.version))
            # In Databricks the page of a run takes a request.
            rows += pool.map(partial(_to_row, registry), newest_first)
            if not versions and name is None:
                rows.append(ModelVersionRow(registry=registry.word, name=model_name))
    return rows


def _to_row(registry: Registry, version: ModelVersion) -> ModelVersionRow:
    run_id, run_url = source_run(version, registry)
    tags = lineage.read_lineage(version.tags)
    stage = version.current_stage or ""
    created_ms = version.creation_timestamp
    source_registry = tags.get(lineage.SOURCE_REGISTRY)
    return ModelVersionRow(
        registry=registry.word,
        name=version.name,
        version=str(version.version),
        aliases=sorted(version.aliases),
        stage="" if stage == "None" else stage,
        status=str(version.status),
        created=datetime.fromtimestamp(created_ms / 1000, UTC) if created_ms else None,
        url=model_version_url(version.name, version.version, registry_uri=registry.uri),
        run_id=run_id,
        run_url=run_url,
        copied_from=(
            f"{tags.get(lineage.SOURCE_MODEL_URI, '')} in {source_registry}"
            if source_registry
            else ""
        ),
        copies=[f"{uri} in {place}" for place, uri in lineage.read_copies(version.tags)],
    )


def _distinct(registries: Iterable[Registry]) -> list[Registry]:
    """Return each registry once: one MLflow server may stand for both services."""
    return list({registry.uri: registry for registry in registries}.values())


def _call_registry(registry: Registry, call: Callable[[], Any]) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as err:
        raise RegistryError(
            f"{registry.title} must answer: got {one_line(err, 160)}; sign in there, or name "
            "the registry to list"
        ) from err
