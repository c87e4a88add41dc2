"""A logged model of MLflow 3 as JSON, for a service that has no such thing.

Its identifier holds that of its run, so it is found without a search.
"""

import re
import time
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from mlflow.entities import LoggedModel, LoggedModelStatus, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.utils.name_utils import _generate_random_name

from dbx_aml.tracking.azureml.tag_documents import MODEL

_OF_ONE_RUN = re.compile(r"\s*(?:attributes\.)?source_run_id\s*=\s*['\"]([^'\"]+)['\"]\s*")
_ID = re.compile(r"m-(?P<run>.+)-(?P<own>[0-9a-f]{8})")
Document = dict[str, Any]
# A value of a metric: name, value, time in ms, step, dataset's name and digest, run.
Link = list[Any]


def new_model_id(run_id: str) -> str:
    """Return an identifier for a model of a run, for example "m-<run id>-5f0c12ab"."""
    return f"m-{run_id}-{uuid4().hex[:8]}"


def random_name() -> str:
    """Return a name for a model that was given none, as MLflow makes them."""
    return str(_generate_random_name())


def now() -> int:
    """Return the time as documents have it, in ms since 1970."""
    return time.time_ns() // 1_000_000


def parts_of(model_id: str) -> tuple[str, str]:
    """Return the run of a model, and the key of its document among the run's tags.

    Raises:
        MlflowException: It is not an identifier that this package made.
    """
    found = _ID.fullmatch(model_id)
    if found is None:
        raise MlflowException(
            f"logged model {model_id!r} is not in Azure ML; its identifiers are 'm-<run id>-...'",
            RESOURCE_DOES_NOT_EXIST,
        )
    return found["run"], f"{MODEL}{found['own']}"


def is_ours(model_id: str) -> bool:
    """Tell whether an identifier is of a model that this package keeps in Azure ML."""
    return bool(_ID.fullmatch(model_id))


def model_id_of(run_id: str, key: str) -> str:
    """Return the identifier of the model whose document has this key."""
    return f"m-{run_id}-{key.removeprefix(MODEL)}"


def run_asked_for(condition: str | None) -> str | None:
    """Return the run whose models alone a search asks for; None where it asks for more."""
    found = _OF_ONE_RUN.fullmatch(condition or "")
    return found[1] if found else None


def link(metric: Metric, run_id: str) -> Link:
    """Return what a document keeps of a value of a metric."""
    dataset = [metric.dataset_name or "", metric.dataset_digest or ""]
    return [metric.key, metric.value, metric.timestamp, metric.step, *dataset, run_id]


def same_series(one: Link) -> tuple[str, str, str, str]:
    """Return what makes two values ones of the same metric: name, dataset, run."""
    return one[0], one[4], one[5], one[6]


def merged(links: Iterable[Link]) -> list[Link]:
    """Return the last value of each metric."""
    found: dict[tuple[str, str, str, str], Link] = {}
    for one in links:
        before = found.get(same_series(one))
        if before is None or (one[2], one[3]) >= (before[2], before[3]):
            found[same_series(one)] = one
    return list(found.values())


def logged_model(document: Document, model_id: str, run: Run) -> LoggedModel:
    """Return MLflow's view of a document, with the newest values of its metrics.

    Args:
        document: As the store keeps it.
        model_id: Its identifier.
        run: Its run, as the service has it.
    """
    run_id = run.info.run_id
    return LoggedModel(
        experiment_id=run.info.experiment_id,
        model_id=model_id,
        name=document["name"],
        artifact_location=f"{run.info.artifact_uri}/{document['folder']}",
        creation_timestamp=document["created"],
        last_updated_timestamp=document["updated"],
        model_type=document.get("type"),
        source_run_id=None if document.get("carried") else run_id,
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
            for key, value, timestamp, step, dataset, digest, metric_run in _newest(document, run)
        ],
    )


def _newest(document: Document, run: Run) -> list[Link]:
    """Return the document's metrics, those of its own run as the run has them by now.

    A document is written when a metric is new to it, not for each value. What the run has is this
    metric's last value, unless several datasets share its name.
    """
    links: list[Link] = document.get("metrics", [])
    own = [one[0] for one in links if one[6] == run.info.run_id]
    of_run = {metric.key: metric for metric in run.data._metric_objs}
    found = []
    for one in links:
        metric = of_run.get(one[0])
        if metric and one[6] == run.info.run_id and own.count(one[0]) == 1:
            one = [one[0], metric.value, metric.timestamp, metric.step, *one[4:]]
        found.append(one)
    return found
