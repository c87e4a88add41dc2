"""Identifiers as Azure ML writes them: MLflow's numbers and bare hex become GUIDs.

A client that takes an experiment for a number, or a run for 32 characters, has to fail here as it
would there.
"""

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

# Only the last twelve digits carry the number; the rest makes it look like Azure's.
_EXPERIMENT_PREFIX = "7d1f3b52-90ac-4e6d-b1f0-"
_GUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_RUN_FILTER = re.compile(rf"\brun_id\b\W*(?:=|!=|IN)\s*\(?(?:\s*,?\s*'{_GUID}')+", re.IGNORECASE)
_RUN_KEYS = ("run_id", "run_uuid")
# Name of a job -> run of the MLflow server: the run of a job has the job's name.
_JOB_RUNS: dict[str, str] = {}


def experiment_guid(number: str) -> str:
    """Return the GUID of an experiment of the MLflow server, for example of "7"."""
    return f"{_EXPERIMENT_PREFIX}{int(number):012x}"


def experiment_number(guid: str) -> str:
    """Return the number of an experiment in the MLflow server; "-1" for an unknown GUID."""
    if guid.lower().startswith(_EXPERIMENT_PREFIX):
        return str(int(guid[len(_EXPERIMENT_PREFIX) :], 16))
    # MLflow sends "0" without an active experiment; the service uses its default experiment.
    return guid if guid == "0" else "-1"


def name_run(run_id: str, job: str) -> None:
    """Let a run of the MLflow server have the name of a job."""
    _JOB_RUNS[job] = run_id


def run_guid(run_id: str) -> str:
    """Return a run of the MLflow server with Azure's dashes, or with the name of its job."""
    for job, job_run_id in _JOB_RUNS.items():
        if job_run_id == run_id:
            return job
    return str(UUID(run_id)) if re.fullmatch("[0-9a-f]{32}", run_id) else run_id


def run_hex(run_id: str) -> str:
    """Return a run's GUID, or the name of its job, as the MLflow server knows it."""
    if run_id in _JOB_RUNS:
        return _JOB_RUNS[run_id]
    return run_id.replace("-", "").lower() if re.fullmatch(_GUID, run_id) else run_id


def inward(value: Any, key: str = "") -> Any:
    """Return what a client sent in the MLflow server's identifiers."""
    if isinstance(value, dict):
        return {name: inward(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [inward(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if key in ("experiment_id", "experiment_ids"):
        return experiment_number(value)
    if key in _RUN_KEYS:
        return run_hex(value)
    if key == "filter":
        return _RUN_FILTER.sub(
            lambda match: re.sub(_GUID, lambda guid: run_hex(guid[0]), match[0]), value
        )
    return value


def inward_query(query: str) -> str:
    """Return a URL's query in the MLflow server's identifiers."""
    return urlencode([(key, inward(value, key)) for key, value in parse_qsl(query)])


def outward(value: Any, key: str = "") -> Any:
    """Return what the MLflow server answered in Azure's identifiers."""
    if isinstance(value, dict):
        return {name: outward(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [outward(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if key == "experiment_id" and value.isdigit():
        return experiment_guid(value)
    if key in _RUN_KEYS:
        return run_guid(value)
    return value
