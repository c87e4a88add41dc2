"""Register a model as a new registered model, or as the next version of one: `register_model`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import ArgumentError, RegistryError, ServiceError
from dbx_aml._common.json_content import parse_json
from dbx_aml._common.log import get_logger
from dbx_aml._common.paths import sha256_of_folder
from dbx_aml._common.text import first_line
from dbx_aml.link.connected_link import current_link
from dbx_aml.models.copy import copy_from_other_registry
from dbx_aml.models.lineage import (
    ARTIFACTS_SHA256,
    SIGNATURE,
    SOURCE_MODEL_URI,
    SOURCE_RUN_ID,
    version_tags_for,
)
from dbx_aml.models.mirrored_source import find_mirrored_source
from dbx_aml.models.mlflow_client import create_client
from dbx_aml.models.model_files import ModelLocation, locate_model, registry_uri_of
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.models.registration import (
    READY_TIMEOUT_S,
    check_alias,
    create_registered_model,
    delete_if_empty,
    signature_tag,
)
from dbx_aml.models.registries import find_registry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model

log = get_logger(__name__)

# Tag of MLflow 3 on a logged model: the versions that were registered from it.
_VERSIONS_TAG = "mlflow.modelVersions"


def register_model(
    model_uri: str,
    model_name: str,
    *,
    alias: str | None = None,
    tags: Mapping[str, str] | None = None,
    tracking_uri: str | None = None,
    registry: str | None = None,
    registry_uri: str | None = None,
) -> ModelVersion:
    """Register a model as a new registered model, or as the next version of one.

    Waits until the version is ready. If the registry refuses the version, a registered model
    without any version is deleted again. MLflow's process-wide URIs do not change.

    A version that only the other registry of the link has is copied, see `copy_model_version`. In
    mode "dual" the id of a mirrored run, or of its model, stands for the run in Databricks.

    Args:
        model_uri: Model to register, for example "runs:/4be1.../model", "models:/m-5f0c..." or
            a path.
        model_name: Registered model, for example "arrival_delay", or in Unity Catalog
            "main.flights.arrival_delay".
        alias: Alias to set on the version when it is ready, for example "champion".
        tags: Tags of the version, beside those for its lineage: source run, model URI,
            signature, and one hash over all files.
        tracking_uri: MLflow tracking URI of the run. Default: MLflow's current one.
        registry: Registry of the link: "databricks-uc", "databricks" or "aml".
        registry_uri: Another registry by its MLflow URI. Default: MLflow's current one.

    Returns:
        The version as the registry shows it: ready, with its tags and alias.

    Raises:
        ModelUriError: The URI names no model, or a stage or "latest", which may change.
        ArgumentError: The name is empty, or MLflow takes no such alias.
        RegistryError: The model does not exist, or the registry refused it.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    uri = ModelUri.parse(model_uri)
    if not model_name.strip():
        raise ArgumentError(
            f"model_name must not be empty: got {model_name!r}; pass for example 'delay'"
        )
    if alias:
        check_alias(alias)
    if registry is not None:
        registry_uri = find_registry(registry, current_link()).uri
    client = create_client(tracking_uri, registry_uri)
    copied_version = copy_from_other_registry(uri, client, model_name, tags)
    if copied_version is not None:
        return _with_alias(client, copied_version, alias)
    uri = find_mirrored_source(uri, client)
    with TemporaryDirectory(prefix="dbx_aml_") as folder:
        try:
            location = locate_model(uri, client)
            path = location.download(Path(folder))
            model = Model.load(str(path))
        except (MlflowException, OSError) as err:
            raise RegistryError(f"model must exist: got {model_uri!r}; {first_line(err)}") from err
        lineage = {**creation_tags(), **_lineage_tags(location, model, path)}
        lineage = version_tags_for(registry_uri_of(client), lineage)
        version = _create_version(client, location, path, model_name, {**lineage, **(tags or {})})
    return _with_alias(client, version, alias)


def _with_alias(client: MlflowClient, version: ModelVersion, alias: str | None) -> ModelVersion:
    """Set an alias unless it is None; return the version as the registry shows it."""
    from mlflow.exceptions import MlflowException

    name = version.name
    if alias:
        try:
            client.set_registered_model_alias(name, alias, version.version)
        except MlflowException as err:
            raise RegistryError(
                f"alias must be settable: got {alias!r} for version {version.version} of "
                f"{name!r}, which is registered without it; {first_line(err)}"
            ) from err
    return client.get_model_version(name, version.version)


def _lineage_tags(location: ModelLocation, model: Model, path: Path) -> dict[str, str]:
    """Return the tags that say where a model came from."""
    tags = {SOURCE_MODEL_URI: str(location.uri), ARTIFACTS_SHA256: sha256_of_folder(path)}
    run_id = location.run_id or model.run_id
    if run_id:
        tags[SOURCE_RUN_ID] = run_id
    signature = signature_tag(path)
    if signature:
        tags[SIGNATURE] = signature
    return tags


def _create_version(
    client: MlflowClient, location: ModelLocation, path: Path, name: str, tags: dict[str, str]
) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    # MLflow 2 has no logged models and no such parameter.
    logged_model = {"model_id": location.model_id} if location.model_id else {}
    is_new_name = False
    try:
        is_new_name = create_registered_model(client, name)
        # Not `create_model_version`: it would make Unity Catalog's and Azure ML's stores download
        # the files again.
        version = client._create_model_version(
            name,
            location.source,
            run_id=location.run_id,
            tags=tags,
            await_creation_for=READY_TIMEOUT_S,
            local_model_path=str(path),
            **logged_model,
        )
    except Exception as err:
        if is_new_name:
            delete_if_empty(client, name)
        if isinstance(err, MlflowException):
            raise RegistryError(
                f"model must be registrable: got {str(location.uri)!r} as {name!r}; "
                f"{first_line(err)}"
            ) from err
        raise
    if version.status != "READY":
        raise RegistryError(
            f"model version must be ready: got {version.status} for version {version.version} of "
            f"{name!r} after {READY_TIMEOUT_S} s; "
            f"{version.status_message or 'look at the registry'}"
        )
    if location.model_id:
        _tag_logged_model(client, location.model_id, version)
    return version


def _tag_logged_model(client: MlflowClient, model_id: str, version: ModelVersion) -> None:
    """Add a version to the list on its logged model, which MLflow's pages link from."""
    from mlflow.exceptions import MlflowException

    try:
        text = client.get_logged_model(model_id).tags.get(_VERSIONS_TAG, "[]")
        versions = _parse_versions(text)
        versions.append({"name": version.name, "version": version.version})
        client.set_logged_model_tags(model_id, {_VERSIONS_TAG: json.dumps(versions)})
    except (MlflowException, ServiceError) as err:
        log.warning("could not tag logged model model_id=%s: %s", model_id, first_line(err))


def _parse_versions(text: str) -> list[Any]:
    """Return the versions in the tag of a logged model; an empty list for any other text."""
    try:
        versions = parse_json(text)
    except ValueError:
        return []
    return versions if isinstance(versions, list) else []
