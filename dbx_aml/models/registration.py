"""Parts that registering and copying a model share: names, signatures, remains of a failure."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import ArgumentError, ServiceError
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import first_line
from dbx_aml.models.lineage import MAX_TAG_LENGTH, version_tags_for
from dbx_aml.models.mlflow_releases import validate_alias

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = get_logger(__name__)

# Azure ML and Unity Catalog copy the files before a version is ready.
READY_TIMEOUT_S = 300


def signature_tag(folder: Path) -> str:
    """Return the signature of a saved model for a tag; "" for a model without one."""
    from mlflow.models import Model

    signature = Model.load(str(folder)).signature
    if signature is None:
        return ""
    text = json.dumps(signature.to_dict(), ensure_ascii=False)
    if len(text) > MAX_TAG_LENGTH:
        # A hash still shows whether two versions have the same signature.
        text = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return text


def check_alias(alias: str) -> None:
    """Check an alias before a registry is called.

    Raises:
        ArgumentError: MLflow takes no such alias.
    """
    from mlflow.exceptions import MlflowException

    try:
        validate_alias(alias)
    except MlflowException as err:
        raise ArgumentError(
            f"alias must be a name that MLflow takes: got {alias!r}; {first_line(err)}"
        ) from err


def name_filter(name: str) -> str:
    """Return MLflow's filter for a registered model."""
    if "'" in name and '"' not in name:
        return f'name="{name}"'
    # MLflow finds no name with both quotes, but takes this filter.
    return "name='{}'".format(name.replace("'", "''"))


def create_registered_model(client: MlflowClient, name: str) -> bool:
    """Create a registered model unless it exists; return whether it was created."""
    from mlflow.exceptions import MlflowException

    # A user may be allowed to create versions of a registered model, and no registered models.
    try:
        client.get_registered_model(name)
    except MlflowException as err:
        if err.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    else:
        return False
    try:
        tags = version_tags_for(str(client._registry_uri), creation_tags())
        client.create_registered_model(name, tags)
    except MlflowException as err:
        if err.error_code in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            return False  # another process created it meanwhile
        raise
    return True


def delete_if_empty(client: MlflowClient, name: str) -> None:
    """Delete a registered model unless another process created a version of it meanwhile."""
    from mlflow.exceptions import MlflowException

    try:
        if not client.search_model_versions(name_filter(name)):
            client.delete_registered_model(name)
    except (MlflowException, ServiceError):
        log.warning("could not delete the empty registered model name=%s", name, exc_info=True)
