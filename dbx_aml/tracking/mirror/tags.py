"""Tags of a source run and of its mirrored run, and the digest that tells whether a run changed."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlflow.entities import Run, RunStatus

from dbx_aml._common.chunks import split_chunks
from dbx_aml.models import lineage
from dbx_aml.tracking.mirror.metric_points import stored_value

# All tags of this package.
_PREFIX = "dbx_aml."

# Tags of a source run. Each destination has further tags, see `DestinationTags`; the tags of a
# mirrored run are in `dbx_aml.models.lineage`.
STATUS = "dbx_aml.mirror"
PENDING, DONE, FAILED = "pending", "done", "failed"
LEASE = "dbx_aml.mirror.lease"
PROCESS_TOKEN = "dbx_aml.mirror.process"

PARENT_RUN_ID = "mlflow.parentRunId"
# Azure ML sets this tag on each run in its workspace.
ROOT_RUN_ID = "mlflow.rootRunId"
# Azure ML takes tags of 1,000 characters.
_NAMES_LENGTH = 900
# Databricks sets these tags itself and refuses them from a client.
SET_BY_DATABRICKS = frozenset({"mlflow.user", "mlflow.log-model.history"})


class DestinationTags:
    """Names of the tags that a source run has for one destination.

    Args:
        destination: Name of the destination, "aml" or "databricks".

    Attributes:
        run_id: Tag with the mirrored run's id, for example "dbx_aml.mirror.aml.run_id".
        error: Tag with the reason for which the run is not done, or "none".
    """

    def __init__(self, destination: str) -> None:
        self.run_id = f"{STATUS}.{destination}.run_id"
        self.error = f"{STATUS}.{destination}.error"


def is_terminated(run: Run) -> bool:
    """Tell whether the run's status is a final one."""
    return bool(RunStatus.is_terminated(RunStatus.from_string(run.info.status)))


def is_done(run: Run) -> bool:
    """Tell whether a run of the source is not deleted and was mirrored whole."""
    return bool(run.info.lifecycle_stage == "active" and run.data.tags.get(STATUS) == DONE)


def run_digest(run: Run, models: Sequence[Any]) -> str:
    """Return a hash of everything that searches return about a run and its logged models.

    Each logged value changes the hash, with two exceptions: an artifact, and a point that is not
    the last point of its metric.

    Args:
        run: Run that has ended, or a running run, whose models are mirrored after its end.
        models: Logged models of the run.
    """
    data, info = run.data, run.info
    inputs = run.inputs.dataset_inputs if run.inputs else []
    metrics = sorted((m.key, repr(m.value), m.timestamp, m.step) for m in data._metric_objs)
    content = [
        [info.status, info.end_time, info.run_name, info.lifecycle_stage],
        sorted(data.params.items()),
        sorted(user_tags(data.tags).items()),
        metrics,
        sorted((entry.dataset.name, entry.dataset.digest) for entry in inputs),
    ]
    if models and is_terminated(run):
        content.append([[model.name, *model_values(model).items()] for model in models])
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


def model_values(model: Any, metrics: Iterable[Any] | None = None) -> dict[tuple[str, str], str]:
    """Return the values of a logged model as texts, by their kind and name.

    Of several points of a metric, the last one counts.

    Args:
        model: Logged model.
        metrics: Metrics that count; by default all metrics of the model.
    """
    points = sorted(
        (
            metric.key,
            metric.dataset_name or "",
            metric.timestamp,
            metric.step,
            repr(stored_value(metric.value)),
        )
        for metric in (model.metrics if metrics is None else metrics) or []
    )
    return {
        ("model status", ""): str(model.status),
        ("model type", ""): model.model_type or "",
        **{("model param", key): value for key, value in sorted((model.params or {}).items())},
        **{("model tag", key): value for key, value in sorted(user_tags(model.tags).items())},
        **{
            ("model metric", f"{key} {dataset}".strip()): f"{value} at step {step}"
            for key, dataset, _, step, value in points
        },
    }


def user_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that this package did not set."""
    return {key: value for key, value in tags.items() if not key.startswith(_PREFIX)}


def with_names(expected_tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags with the list of their names, which a mirrored run or logged model keeps.

    By the list, a tag that is deleted at the source is told from a tag that somebody has set at
    the destination alone.
    """
    names = json.dumps(sorted(expected_tags), ensure_ascii=False)
    pieces = enumerate(split_chunks(names, _NAMES_LENGTH), 1)
    return {**expected_tags, **{_names_tag(number): piece for number, piece in pieces}}


def deleted_names(existing_tags: Mapping[str, str], expected_tags: Mapping[str, str]) -> list[str]:
    """Return the names of the tags that came from the source, which has them no more.

    Args:
        existing_tags: Tags at the destination.
        expected_tags: Tags that the source gives.
    """
    text, number = "", 1
    while piece := existing_tags.get(_names_tag(number)):
        text, number = text + piece, number + 1
    try:
        # Pieces of an earlier, longer list may follow the list.
        names = json.JSONDecoder().raw_decode(text)[0]
        return sorted(set(names) & existing_tags.keys() - expected_tags.keys())
    except (TypeError, ValueError):
        return []


def _names_tag(number: int) -> str:
    return lineage.SOURCE_TAGS if number == 1 else f"{lineage.SOURCE_TAGS}.{number}"
