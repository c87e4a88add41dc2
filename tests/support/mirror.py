"""What a server has of an experiment, read with nothing but MLflow's client: two must be equal."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


def snapshot(tracking_uri: str, experiment: str) -> dict[str, Any]:
    """Return every run of an experiment by its name, as plain data without this package's tags.

    Args:
        tracking_uri: Of the server.
        experiment: Its name or path; runs must have names of their own.
    """
    client = MlflowClient(tracking_uri)
    found = client.get_experiment_by_name(experiment)
    assert found, experiment
    runs, token = [], None
    while True:
        page = client.search_runs([found.experiment_id], max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(set(names.values())) == len(runs), f"a run twice: {sorted(names.values())}"
    models = _models(client, found.experiment_id)
    return {run.info.run_name: _run(client, run, names, models) for run in runs}


def _run(client: MlflowClient, run: Any, names: dict[str, str], models: Any) -> dict[str, Any]:
    info, data = run.info, run.data
    tags = {
        key: text
        for key, text in data.tags.items()
        if not key.startswith("dbx_aml.")
        and key not in ("mlflow.parentRunId", "mlflow.rootRunId", "mlflow.log-model.history")
    }
    parent = data.tags.get("mlflow.parentRunId")
    own = models.get(info.run_id, {})
    artifacts = _files(client, info.artifact_uri)
    return {
        "info": [info.status, info.start_time, info.end_time],
        "params": data.params,
        "tags": tags,
        "parent": names.get(parent) if parent else None,
        "metrics": {key: _points(client, info.run_id, key) for key in data.metrics},
        "datasets": sorted(
            [one.dataset.name, one.dataset.digest, *[tag.value for tag in one.tags]]
            for one in run.inputs.dataset_inputs
        ),
        # Azure ML has a model's files in its run.
        "artifacts": {p: c for p, c in artifacts.items() if p.partition("/")[0] not in own},
        "models": own,
    }


def _points(client: MlflowClient, run_id: str, key: str) -> list[list[Any]]:
    # As text: a NaN is not equal to itself.
    points = {
        (one.timestamp, one.step, repr(one.value)) for one in client.get_metric_history(run_id, key)
    }
    return sorted(map(list, points))


def _models(client: MlflowClient, experiment_id: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for model in client.search_logged_models([experiment_id]):
        own = found.setdefault(model.source_run_id, {})
        assert model.name not in own, f"a model twice: {model.name}"
        own[model.name] = {
            "files": _files(client, model.artifact_location),
            "status": str(model.status),
            "params": model.params,
            # Azure ML shows the newest value that the run has.
            "metrics": sorted({one.key for one in model.metrics or []}),
        }
    return found


def _files(client: MlflowClient, uri: str) -> dict[str, str]:
    repository = get_artifact_repository(uri, tracking_uri=client.tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(repository.download_artifacts("", folder))
        return {
            file.relative_to(root).as_posix(): f"{file.stat().st_size} {hash_of(file)}"
            for file in root.rglob("*")
            if file.is_file()
        }


def hash_of(file: Path) -> str:
    """Return a hash of a file's content, the same in every process."""
    import hashlib

    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def as_databricks(port: int) -> dict[str, str]:
    """Return the variables with which MLflow's "databricks" is an MLflow server on loopback."""
    return {
        "DATABRICKS_HOST": f"http://127.0.0.1:{port}",
        "DATABRICKS_TOKEN": "of-a-test",
        "DATABRICKS_CONFIG_FILE": os.devnull,
        "MLFLOW_TRACKING_URI": "databricks",
        "MLFLOW_REGISTRY_URI": "databricks",
    }


def wait_for(is_so: Callable[[], object], seconds: float = 20.0) -> bool:
    """Wait until something is so; tell whether it ever was."""
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(is_so())
