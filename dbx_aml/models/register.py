"""Register a model: a new one, or the next version, in the registry that was chosen."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from dbx_aml._common.errors import ArgumentError, RegistryError
from dbx_aml._common.text import first_line
from dbx_aml.models.lineage import (
    ARTIFACTS_SHA256,
    SIGNATURE,
    SOURCE_MODEL_URI,
    SOURCE_RUN_ID,
)
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.tracking.connect import mlflow_uris

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

# Characters that every registry takes as a tag's value.
_TAG_LENGTH = 1000
# Seconds that a version may take to be ready; Azure ML and Unity Catalog copy the files first.
_READY_S = 300


def register_model(
    model_uri: str,
    model_name: str,
    *,
    alias: str | None = None,
    tags: Mapping[str, str] | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
) -> ModelVersion:
    """Register a model as a new registered model, or as the next version of it.

    Waits until the version is ready. A registered model that was made for a version which then
    could not be created is removed again.

    Args:
        model_uri: For example "runs:/4be1.../model", "models:/m-5f0c..." or a path.
        model_name: For example "arrival_delay", or "main.flights.arrival_delay" in Unity Catalog.
        alias: Set on the version when it is ready, for example "champion".
        tags: Put on the version, beside those that say where it came from: the source run,
            the model URI, the signature, and one hash over all files.
        tracking_uri: An MLflow tracking URI, where the run is; default MLflow's own.
        registry_uri: An MLflow registry URI, for example "databricks-uc"; default MLflow's own.

    Returns:
        The version as the registry has it: ready, with tags and alias.

    Raises:
        ModelUriError: The URI names no model, or one that moves.
        ArgumentError: The name is empty.
        RegistryError: There is no such model, or the registry refused it.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = ModelUri.parse(model_uri)
    if not model_name.strip():
        raise ArgumentError(
            f"model_name must not be empty: got {model_name!r}; pass for example 'delay'"
        )
    with mlflow_uris(tracking_uri, registry_uri), TemporaryDirectory(prefix="dbx_aml_") as folder:
        client = MlflowClient()
        where_from = _where_from(uri, folder)
        version = _create(client, uri, model_name, {**where_from, **(tags or {})})
        if alias:
            try:
                client.set_registered_model_alias(model_name, alias, version.version)
            except MlflowException as err:
                raise RegistryError(
                    f"alias must be settable: got {alias!r} for version {version.version} of "
                    f"{model_name!r}, which is registered without it; {first_line(err)}"
                ) from err
        return client.get_model_version(model_name, version.version)


def _where_from(uri: ModelUri, folder: str) -> dict[str, str]:
    """Return the tags that say where a model came from; its files are read for that."""
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    try:
        path = Path(mlflow.artifacts.download_artifacts(str(uri), dst_path=folder))
        model = Model.load(str(path))
    except (MlflowException, OSError) as err:
        raise RegistryError(f"model must exist: got {str(uri)!r}; {first_line(err)}") from err
    tags = {SOURCE_MODEL_URI: str(uri), ARTIFACTS_SHA256: artifacts_sha256(path)}
    run_id = uri.run_id or model.run_id
    if run_id:
        tags[SOURCE_RUN_ID] = run_id
    if model.signature is not None:
        signature = json.dumps(model.signature.to_dict(), ensure_ascii=False)
        # A wide table's signature is longer than a tag may be: its hash still tells two apart.
        short = len(signature) <= _TAG_LENGTH
        tags[SIGNATURE] = (
            signature if short else f"sha256:{hashlib.sha256(signature.encode()).hexdigest()}"
        )
    return tags


def artifacts_sha256(folder: Path) -> str:
    """Return one hash over the names and contents of all files in a folder."""
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def _create(client: MlflowClient, uri: ModelUri, name: str, tags: dict[str, str]) -> ModelVersion:
    import mlflow
    from mlflow.exceptions import MlflowException

    existed = _exists(client, name)
    try:
        version: ModelVersion = mlflow.register_model(
            str(uri), name, await_registration_for=_READY_S, tags=tags
        )
    except Exception as err:
        if not existed:
            _remove_if_empty(client, name)
        if isinstance(err, MlflowException):
            raise RegistryError(
                f"model must be registrable: got {str(uri)!r} as {name!r}; {first_line(err)}"
            ) from err
        raise
    if version.status != "READY":
        raise RegistryError(
            f"model version must be ready: got {version.status} for version {version.version} of "
            f"{name!r} after {_READY_S} s; {version.status_message or 'look at the registry'}"
        )
    return version


def _exists(client: MlflowClient, name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as err:
        if err.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise RegistryError(f"registry must answer: got {first_line(err)}") from err
    return True


def _remove_if_empty(client: MlflowClient, name: str) -> None:
    """Remove what was made for a version that then failed; keep it if someone was faster."""
    from mlflow.exceptions import MlflowException

    try:
        if _exists(client, name) and not client.search_model_versions(f"name = '{_quoted(name)}'"):
            client.delete_registered_model(name)
    except (MlflowException, RegistryError):
        log.warning("could not remove the empty registered model name=%s", name, exc_info=True)


def _quoted(name: str) -> str:
    return name.replace("'", "\\'")
