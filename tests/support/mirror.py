"""Two MLflow stores to mirror between, and the content of an experiment, to compare two servers.

The content is read with MLflow's client alone, so it does not depend on the code under test.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from dbx_aml._common.deadline import poll_until
from dbx_aml.models import lineage
from dbx_aml.testing.mlflow_store import empty_mlflow_database
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.mirror_run import MirrorResult
from dbx_aml.tracking.mirror.mirror_runs import mirror_runs
from dbx_aml.tracking.mirror.run_states import RunStates
from dbx_aml.tracking.mirror.server import MlflowServer
from dbx_aml.tracking.mirror.source_runs import find_runs

EXPERIMENT_PATH = "/Users/ana@contoso.com/größe/イリス"


class MirrorStores:
    """Two SQLite stores, source and destination, each with one empty experiment."""

    def __init__(self, folder: Path) -> None:
        uris = []
        for name in ("source", "destination"):
            shutil.copy(empty_mlflow_database(), folder / f"{name}.db")
            uris.append(f"sqlite:///{folder / name}.db")
            location = (folder / f"{name}-artifacts").as_uri()
            MlflowClient(uris[-1]).create_experiment(EXPERIMENT_PATH, artifact_location=location)
        self.source_uri, self.destination_uri = uris
        self.source = MlflowClient(self.source_uri)
        self.destination = MlflowClient(self.destination_uri)
        self.experiment_id = self.source.get_experiment_by_name(EXPERIMENT_PATH).experiment_id

    @property
    def uri_options(self) -> list[str]:
        """Options of `dbx-aml mirror` that name the stores."""
        return [
            f"--source-tracking-uri={self.source_uri}",
            f"--destination-tracking-uri={self.destination_uri}",
        ]

    @property
    def connect_arguments(self) -> dict[str, str]:
        """Arguments of `connect` that name the stores."""
        return {
            "databricks_tracking_uri": self.source_uri,
            "aml_tracking_uri": self.destination_uri,
        }

    def servers(self) -> tuple[MlflowServer, MlflowServer]:
        """Return source and destination."""
        return MlflowServer(self.source_uri, "databricks"), MlflowServer(
            self.destination_uri, "aml"
        )

    def unfinished_runs(self) -> list[str]:
        """Return the names of the marked runs that are not done."""
        runs = self.source.search_runs([self.experiment_id])
        statuses = {run.info.run_name: run.data.tags.get(tags.STATUS) for run in runs}
        return [name for name, status in statuses.items() if status not in (None, tags.DONE)]

    def mirror(self, **options: Any) -> dict[str, MirrorResult]:
        """Mirror the marked runs; return the results of runs with a change by the runs' names."""
        options = {"lock_timeout_s": 0.0, "lock_poll_s": 0.1, **options}
        servers, experiment_ids = self.servers(), [self.experiment_id]
        states = RunStates(*servers, experiment_ids)
        runs = find_runs(servers[0], experiment_ids)
        results = mirror_runs(*servers, runs, states=states, **options)
        return {result.name: result for result in results if result.status != "unchanged"}

    def create_run(self, name: str, **run_tags: str) -> str:
        """Create a pending run that has ended, with a little of everything; return its id."""
        run = self.source.create_run(
            self.experiment_id, run_name=name, tags={tags.STATUS: tags.PENDING, **run_tags}
        )
        run_id = str(run.info.run_id)
        metrics = [Metric("loss", 1 / (step + 1), 1000 + step, step) for step in range(5)]
        self.source.log_batch(run_id, metrics, [Param("alpha", "0.5")], [RunTag("team", "a b")])
        self.source.log_text(run_id, "hello", "notes/a.txt")
        self.source.set_terminated(run_id)
        return run_id

    def source_tags(self, run_id: str) -> dict[str, str]:
        """Return the tags of a source run."""
        return dict(self.source.get_run(run_id).data.tags)

    def mirrored_ids(self, run_id: str, view_type: int = ViewType.ACTIVE_ONLY) -> list[str]:
        """Return the ids of the runs at the destination that mirror a source run."""
        experiment = self.destination.get_experiment_by_name(EXPERIMENT_PATH)
        runs = self.destination.search_runs(
            [experiment.experiment_id],
            f"tags.`{lineage.SOURCE_RUN_ID}` = '{run_id}'",
            run_view_type=view_type,
        )
        return [run.info.run_id for run in runs]

    def assert_equal(self) -> None:
        """Assert that both stores have the same runs."""
        assert self.source_content() == self.destination_content()

    def source_content(self) -> dict[str, Any]:
        """Return the content of the source."""
        return experiment_content(self.source_uri, EXPERIMENT_PATH)

    def destination_content(self) -> dict[str, Any]:
        """Return the content of the destination."""
        return experiment_content(self.destination_uri, EXPERIMENT_PATH)


def experiment_content(tracking_uri: str, experiment_name: str) -> dict[str, Any]:
    """Return every run of an experiment by its name, without the tags of this package.

    Args:
        tracking_uri: Server of the experiment.
        experiment_name: Name or path; no two runs have one name.
    """
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name(experiment_name)
    assert experiment, experiment_name
    runs, token = [], None
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    run_names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(set(run_names.values())) == len(runs), f"a run twice: {sorted(run_names.values())}"
    models = _models_by_run(client, experiment.experiment_id)
    return {run.info.run_name: _run_content(client, run, run_names, models) for run in runs}


def _run_content(
    client: MlflowClient, run: Any, run_names: dict[str, str], models: Any
) -> dict[str, Any]:
    info, data = run.info, run.data
    user_tags = {
        key: value
        for key, value in data.tags.items()
        if not key.startswith("dbx_aml.")
        and key not in ("mlflow.parentRunId", "mlflow.rootRunId", "mlflow.log-model.history")
    }
    parent_id = data.tags.get("mlflow.parentRunId")
    run_models = models.get(info.run_id, {})
    artifacts = _files(client, info.artifact_uri)
    return {
        "info": [info.status, info.start_time, info.end_time],
        "params": data.params,
        "tags": user_tags,
        "parent": run_names.get(parent_id) if parent_id else None,
        "metrics": {key: _metric_points(client, info.run_id, key) for key in data.metrics},
        "datasets": sorted(
            [entry.dataset.name, entry.dataset.digest, *[tag.value for tag in entry.tags]]
            for entry in run.inputs.dataset_inputs
        ),
        # Azure ML keeps a model's files in its run.
        "artifacts": {
            path: content
            for path, content in artifacts.items()
            if path.partition("/")[0] not in run_models
        },
        "models": run_models,
    }


def _metric_points(client: MlflowClient, run_id: str, key: str) -> list[list[Any]]:
    # Values as texts: a NaN is not equal to itself.
    points = {
        (metric.timestamp, metric.step, repr(metric.value))
        for metric in client.get_metric_history(run_id, key)
    }
    return sorted(map(list, points))


def _models_by_run(client: MlflowClient, experiment_id: str) -> dict[str, dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for model in client.search_logged_models([experiment_id]):
        run_models = models.setdefault(model.source_run_id, {})
        assert model.name not in run_models, f"a model twice: {model.name}"
        run_models[model.name] = {
            "files": _files(client, model.artifact_location),
            "status": str(model.status),
            "params": model.params,
            "metrics": sorted(
                (metric.key, metric.timestamp, metric.step, repr(metric.value))
                for metric in model.metrics or []
            ),
        }
    return models


def _files(client: MlflowClient, uri: str) -> dict[str, str]:
    repository = get_artifact_repository(uri, tracking_uri=client.tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(repository.download_artifacts("", folder))
        return {
            file.relative_to(root).as_posix(): f"{file.stat().st_size} {_sha256(file)}"
            for file in root.rglob("*")
            if file.is_file()
        }


def _sha256(file: Path) -> str:
    import hashlib

    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def databricks_environment(port: int) -> dict[str, str]:
    """Return the variables with which MLflow's "databricks" is an MLflow server on loopback."""
    return {
        "DATABRICKS_HOST": f"http://127.0.0.1:{port}",
        "DATABRICKS_TOKEN": "of-a-test",
        "DATABRICKS_CONFIG_FILE": os.devnull,
        "MLFLOW_TRACKING_URI": "databricks",
        "MLFLOW_REGISTRY_URI": "databricks",
    }


def assert_soon(condition: Any, timeout_s: float = 20.0) -> None:
    """Assert that a condition becomes true before the end of the time."""
    assert poll_until(condition, timeout_s, 0.05)
