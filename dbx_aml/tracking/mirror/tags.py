"""The tags of both sides, and what of a run they vouch for."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Run, RunStatus

OWN = "dbx_aml."
# On the source.
STATE = "dbx_aml.mirror"
PENDING, DONE, FAILED = "pending", "done", "failed"
ERROR = "dbx_aml.mirror_error"
DIGEST = "dbx_aml.mirror_digest"
LEASE = "dbx_aml.mirror_lease"
PROCESS = "dbx_aml.mirror_process"
# On the destination.
SOURCE_RUN = "dbx_aml.source_run_id"
SOURCE_EXPERIMENT = "dbx_aml.source_experiment"
SOURCE_WORKSPACE = "dbx_aml.source_workspace"
SOURCE_URL = "dbx_aml.source_url"
SOURCE_USER = "dbx_aml.source_user"
SOURCE_PARENT = "dbx_aml.source_parent_run_id"
SOURCE_STAGE = "dbx_aml.source_lifecycle_stage"
# Of a logged model at the destination.
SOURCE_MODEL = "dbx_aml.source_model_id"

PARENT = "mlflow.parentRunId"
# Azure ML sets it on each of its own runs.
ROOT = "mlflow.rootRunId"
# Databricks sets these itself, and refuses them from others.
OF_DATABRICKS = frozenset({"mlflow.user", "mlflow.log-model.history"})


def mirror_id(side: str) -> str:
    """Return the tag for the run that mirrors a source run: "dbx_aml.mirror.aml.run_id"."""
    return f"{OWN}{side}_run_id"


def is_over(run: Run) -> bool:
    """Tell whether a run says that it has ended."""
    return bool(RunStatus.is_terminated(RunStatus.from_string(run.info.status)))


def digest(run: Run) -> str:
    """Return a hash of what a server tells of a run without being asked for more.

    Everything that is logged to a run changes it, but for an artifact, and a point that is not
    the last one of its metric.
    """
    data, info = run.data, run.info
    inputs = run.inputs.dataset_inputs if run.inputs else []
    metrics = sorted((m.key, repr(m.value), m.timestamp, m.step) for m in data._metric_objs)
    told = [
        [info.status, info.end_time, info.run_name, info.lifecycle_stage],
        sorted(data.params.items()),
        sorted(plain(data.tags).items()),
        metrics,
        sorted((one.dataset.name, one.dataset.digest) for one in inputs),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def plain(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the tags that are not of this package."""
    return {key: text for key, text in tags.items() if not key.startswith(OWN)}
