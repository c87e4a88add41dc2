"""Tags of a source run and of its mirrored run, and the digest that tells whether a run changed."""

import hashlib
import json
from collections.abc import Mapping

from mlflow.entities import Run, RunStatus

# All tags of this package.
_PREFIX = "dbx_aml."

# Tags of a source run. Each destination has further tags, see `DestinationTags`; the tags of a
# mirrored run are in `dbx_aml.models.lineage`.
STATUS = "dbx_aml.mirror"
PENDING, DONE, FAILED = "pending", "done", "failed"
LEASE = "dbx_aml.mirror.lease"
PROCESS_TOKEN = "dbx_aml.mirror.process"

PARENT_RUN_ID = "dbx_aml.source_parent_run_id"
SOURCE_LIFECYCLE_STAGE = "dbx_aml.source_lifecycle_stage"
# Tag of a mirrored logged model.
SOURCE_MODEL_ID = "dbx_aml.source_model_id"

PARENT_RUN_ID = "mlflow.parentRunId"
# Azure ML sets this tag on each run in its workspace.
ROOT_RUN_ID = "mlflow.rootRunId"
# Databricks sets these tags itself and refuses them from a client.
SET_BY_DATABRICKS = frozenset({"mlflow.user", "mlflow.log-model.history"})


class DestinationTags:
    """Names of the tags that a source run has for one destination.

    Args:
        destination: Name of the destination, "aml" or "databricks".

    Attributes:
        run_id: Tag with the mirrored run's id, for example "dbx_aml.mirror.aml.run_id".
        digest: Tag with the digest that the source run had when both runs were compared.
        error: Tag with the reason for which the run is not done, or "none".
    """

    def __init__(self, destination: str) -> None:
        self.run_id = f"{STATUS}.{destination}.run_id"
        self.digest = f"{STATUS}.{destination}.digest"
        self.error = f"{STATUS}.{destination}.error"


def is_terminated(run: Run) -> bool:
    """Tell whether the run's status is a final one."""
    return bool(RunStatus.is_terminated(RunStatus.from_string(run.info.status)))


def run_digest(run: Run) -> str:
    """Return a hash of everything that a search for runs returns about a run.

    Each logged value changes the hash, with two exceptions: an artifact, and a point that is not
    the last point of its metric.
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
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def user_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that this package did not set."""
    return {key: value for key, value in tags.items() if not key.startswith(_PREFIX)}
