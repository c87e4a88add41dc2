"""A logged model of MLflow 3 as JSON, for a service without logged models.

The identifier of a logged model contains the identifier of its run, so the store finds the model
without a search.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from mlflow.entities import LoggedModel, LoggedModelStatus, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from dbx_aml._common.errors import UnsafePathError
from dbx_aml._common.json_content import check_types
from dbx_aml._common.paths import check_relative_path
from dbx_aml.tracking.azureml.logged_model_values import MetricValue, is_metric_value
from dbx_aml.tracking.azureml.tag_documents import LOGGED_MODEL_PREFIX

_RUN_CONDITION = re.compile(r"\s*(?:attributes\.)?source_run_id\s*=\s*['\"]([^'\"]+)['\"]\s*")
_MODEL_ID = re.compile(r"m-(?P<run_id>.+)-(?P<suffix>[0-9a-f]{8})")
Document = dict[str, Any]
_REQUIRED_TYPES = {"name": str, "folder": str, "status": str, "created": int, "updated": int}
_OPTIONAL_TYPES = {
    "tags": Mapping[str, str],
    "params": Mapping[str, str],
    "type": str,
    "in_placeholder_run": bool,
    "deleted": int,
}
_STATUSES = frozenset(status.value for status in LoggedModelStatus)


def new_model_id(run_id: str) -> str:
    """Return an identifier for a model of a run, for example "m-<run id>-5f0c12ab"."""
    return f"m-{run_id}-{uuid4().hex[:8]}"


def split_model_id(model_id: str) -> tuple[str, str]:
    """Return the run of a model, and the key of the model's document among the run's tags.

    Raises:
        MlflowException: The identifier does not belong to a model in Azure ML.
    """
    match = _MODEL_ID.fullmatch(model_id)
    if match is None:
        raise MlflowException(
            f"logged model {model_id!r} is not in Azure ML; its identifiers are 'm-<run id>-...'",
            RESOURCE_DOES_NOT_EXIST,
        )
    return match["run_id"], f"{LOGGED_MODEL_PREFIX}{match['suffix']}"


def is_azureml_model_id(model_id: str) -> bool:
    """Tell whether an identifier belongs to a model that this package keeps in Azure ML."""
    return bool(_MODEL_ID.fullmatch(model_id))


def model_id_from_key(run_id: str, key: str) -> str:
    """Return the identifier of the model whose document has a key."""
    return f"m-{run_id}-{key.removeprefix(LOGGED_MODEL_PREFIX)}"


def run_of_condition(condition: str | None) -> str | None:
    """Return the run id of a search for the models of one run; None for any other search."""
    match = _RUN_CONDITION.fullmatch(condition or "")
    return match[1] if match else None


def check_document(document: Any) -> None:
    """Refuse a document that does not describe a logged model.

    Raises:
        ValueError: A key is missing or has a value of a wrong type, or the folder leads out of
            the run. The message has no text of the document.
    """
    check_types(document, _REQUIRED_TYPES | _OPTIONAL_TYPES)
    if missing := sorted(_REQUIRED_TYPES.keys() - document.keys()):
        raise ValueError(f"it has no {missing[0]!r}")
    if document["status"] not in _STATUSES:
        raise ValueError("status must be one of MLflow's")
    try:
        check_relative_path(document["folder"])
    except UnsafePathError:
        raise ValueError("folder must be a folder of the run") from None
    metrics = document.get("metrics", [])
    if not isinstance(metrics, list) or not all(map(is_metric_value, metrics)):
        raise ValueError("metrics must be a list of values with their series")


def to_logged_model(
    document: Document, model_id: str, run: Run, values: Iterable[MetricValue] = ()
) -> LoggedModel:
    """Return MLflow's logged model for a document, with its metrics in the order of their times.

    Args:
        document: Document of the model.
        model_id: Identifier of the model.
        run: Run of the model, as the service stores it.
        values: Values of the model's metrics, each of them once or several times.
    """
    run_id = run.info.run_id
    each_value_once = dict.fromkeys(map(tuple, [*document.get("metrics", []), *values]))
    return LoggedModel(
        experiment_id=run.info.experiment_id,
        model_id=model_id,
        name=document["name"],
        artifact_location=f"{run.info.artifact_uri}/{document['folder']}",
        creation_timestamp=document["created"],
        last_updated_timestamp=document["updated"],
        model_type=document.get("type"),
        source_run_id=None if document.get("in_placeholder_run") else run_id,
        status=LoggedModelStatus(document["status"]),
        tags=dict(document.get("tags", {})),
        params=dict(document.get("params", {})),
        metrics=[
            Metric(
                key=key,
                value=value,
                timestamp=timestamp,
                step=step,
                model_id=model_id,
                dataset_name=dataset or None,
                dataset_digest=digest or None,
                run_id=metric_run,
            )
            for key, value, timestamp, step, dataset, digest, metric_run in sorted(
                each_value_once, key=lambda value: (value[0], value[2], value[3])
            )
        ],
    )
