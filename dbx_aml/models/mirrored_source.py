"""Find the run or logged model in Databricks that a mirrored one in Azure ML stands for.

In mode "dual" MLflow tracks in Databricks, and each run has a mirrored run in Azure ML with another
id. A user may copy either id from a page.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dbx_aml._common.deadline import time_limit
from dbx_aml._common.errors import DbxAmlError, is_not_found
from dbx_aml.link.connected_link import connected_link
from dbx_aml.models.lineage import SOURCE_LOGGED_MODEL_ID, SOURCE_RUN_ID
from dbx_aml.models.mlflow_client import create_client
from dbx_aml.models.mlflow_releases import get_logged_model
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.models.registries import LOOKUP_TIMEOUT_S, find_registry

if TYPE_CHECKING:
    from mlflow import MlflowClient


def find_mirrored_source(uri: ModelUri, client: MlflowClient) -> ModelUri:
    """Return the URI of the source run or logged model if only Azure ML has what a URI names.

    Args:
        uri: URI of any kind; only "runs:/..." and "models:/m-..." may be mirrored.
        client: Client of the tracking server that MLflow uses.

    Returns:
        The same URI where the tracking server has the run or model, or where Azure ML has none.
    """
    from mlflow.exceptions import MlflowException

    link = connected_link()
    if link is None or link.mode != "dual" or uri.kind not in ("run", "logged_model"):
        return uri
    try:
        _read_tags(uri, client)
    except MlflowException as err:
        if not is_not_found(err) and err.error_code != "INVALID_PARAMETER_VALUE":
            return uri
    else:
        return uri
    try:
        with time_limit(LOOKUP_TIMEOUT_S):
            tags = _read_tags(uri, create_client(find_registry("aml", link).tracking_uri))
    except (MlflowException, DbxAmlError):
        # The caller then shows the answer of the caller's tracking server.
        return uri
    if uri.kind == "run":
        return replace(uri, run_id=tags.get(SOURCE_RUN_ID, uri.run_id))
    return replace(uri, model_id=tags.get(SOURCE_LOGGED_MODEL_ID, uri.model_id))


def _read_tags(uri: ModelUri, client: MlflowClient) -> dict[str, str]:
    if uri.kind == "run":
        return dict(client.get_run(str(uri.run_id)).data.tags)
    return dict(get_logged_model(client, str(uri.model_id)).tags)
