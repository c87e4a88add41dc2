"""Runs and their metrics as plain data, for tables and for programs, from any tracking server."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from dbx_aml._common.errors import DbxAmlError, RunError
from dbx_aml._common.redact import redact
from dbx_aml._common.text import first_line
from dbx_aml.models.mlflow_client import create_client, get_metric_history, list_all_artifacts
from dbx_aml.models.pages import run_url

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Result = TypeVar("Result")

_BARS = "▁▂▃▄▅▆▇█"
_SPARKLINE_WIDTH = 24
_MAX_RUNS = 1000


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run as a row of a table.

    Args:
        run_id: Id of the run.
        name: Name of the run, empty for a run without a name.
        status: MLflow's status, for example "FINISHED".
        started: Start time in UTC.
        seconds: Duration, None for a run that has not ended.
        metrics: Last value of each metric.
        url: Page of the run, None for a server without pages.
    """

    run_id: str
    name: str
    status: str
    started: datetime | None
    seconds: float | None
    metrics: dict[str, float]
    url: str | None


def list_runs(
    experiment: str | None = None, *, max_results: int = 20, tracking_uri: str | None = None
) -> list[RunRow]:
    """Return the newest runs of an experiment, newest first.

    Args:
        experiment: Name, or path in Databricks; by default MLflow's active experiment, on another
            server than MLflow's own the one of MLFLOW_EXPERIMENT_NAME, else "Default".
        max_results: Largest number of runs, 1 to 1000.
        tracking_uri: MLflow tracking URI; by default MLflow's own.

    Raises:
        RunError: The server has no such experiment, or refuses the caller.
    """
    client = _create_client(tracking_uri)
    experiment_id = _find_experiment_id(client, experiment)
    runs = _call_mlflow(
        lambda: client.search_runs([experiment_id], max_results=min(max_results, _MAX_RUNS)),
        "runs must be readable",
        experiment or experiment_id,
    )
    return [_to_row(run, client.tracking_uri) for run in runs]


def show_run(run_id: str, *, tracking_uri: str | None = None) -> dict[str, Any]:
    """Return a run with its params, tags, metrics and artifacts.

    Returns:
        `run` is a `RunRow`. Each of `metrics` has its `last` value, the number of its `points`,
        and a `sparkline` of at most 24 bars. Tags of MLflow itself are left out.

    Raises:
        RunError: The server has no such run, or refuses the caller.
    """
    client = _create_client(tracking_uri)
    run = _call_mlflow(lambda: client.get_run(run_id), "run must exist", run_id)
    metrics = {}
    for key, last_value in sorted(run.data.metrics.items()):
        history = _call_mlflow(
            partial(get_metric_history, client, run_id, key), "metric must be readable", key
        )
        values = [metric.value for metric in sorted(history, key=lambda m: (m.step, m.timestamp))]
        metrics[key] = {
            "last": last_value,
            "points": len(values),
            "sparkline": sparkline(values),
        }
    files = _call_mlflow(
        lambda: list(list_all_artifacts(lambda folder: client.list_artifacts(run_id, folder))),
        "artifacts must be readable",
        run.info.artifact_uri,
    )
    return {
        "run": _to_row(run, client.tracking_uri),
        "params": dict(sorted(run.data.params.items())),
        "tags": {k: v for k, v in sorted(run.data.tags.items()) if not k.startswith("mlflow.")},
        "metrics": metrics,
        "artifacts": [
            {"path": file.path, "bytes": file.file_size}
            for file in sorted(files, key=lambda file: str(file.path))
        ],
    }


def sparkline(values: list[float]) -> str:
    """Return values as at most 24 bars on one line; a bar is the mean of neighbouring values.

    Values that are not finite are left out; a bar without values is a blank.
    """
    if not values:
        return ""
    count = min(len(values), _SPARKLINE_WIDTH)
    edges = [position * len(values) // count for position in range(count + 1)]
    groups = [[value for value in values[a:b] if isfinite(value)] for a, b in pairwise(edges)]
    means = [fmean(group) if group else None for group in groups]
    finite_means = [mean for mean in means if mean is not None]
    if not finite_means:
        return " " * count
    low, high = min(finite_means), max(finite_means)
    span = (high - low) or 1.0
    return "".join(
        " " if mean is None else _BARS[round((mean - low) / span * (len(_BARS) - 1))]
        for mean in means
    )


def _call_mlflow(call: Callable[[], Result], rule: str, name: str | None) -> Result:
    try:
        return call()
    except DbxAmlError:
        raise
    except Exception as err:
        # The repositories of MLflow raise the errors of many libraries.
        raise RunError(f"{rule}: got {redact(str(name))!r}; {first_line(err)}") from err


def _create_client(tracking_uri: str | None) -> MlflowClient:
    return _call_mlflow(
        lambda: create_client(tracking_uri), "tracking URI must be one of MLflow's", tracking_uri
    )


def _find_experiment_id(client: MlflowClient, experiment_name: str | None) -> str:
    import mlflow
    from mlflow.tracking import fluent

    rule = "experiment must exist"
    is_own_server = client.tracking_uri == mlflow.get_tracking_uri()
    if not experiment_name and not (is_own_server and fluent._active_experiment_id):
        # MLflow's own function would create the experiment that this variable names.
        experiment_name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not experiment_name and is_own_server:
        experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
        return str(_call_mlflow(fluent._get_experiment_id, rule, experiment_id))
    # An id counts on its own server alone.
    experiment_name = experiment_name or "Default"
    experiment = _call_mlflow(
        lambda: client.get_experiment_by_name(experiment_name), rule, experiment_name
    )
    if experiment is None:
        raise RunError(
            f"experiment must exist: got {experiment_name!r}; look at its name in the studio, or "
            "give the Databricks path"
        )
    return str(experiment.experiment_id)


def _to_row(run: Run, tracking_uri: str) -> RunRow:
    info = run.info
    start_ms, end_ms = info.start_time, info.end_time
    return RunRow(
        run_id=info.run_id,
        name=info.run_name or "",
        status=info.status,
        started=datetime.fromtimestamp(start_ms / 1000, UTC) if start_ms else None,
        seconds=(end_ms - start_ms) / 1000 if start_ms and end_ms else None,
        metrics=dict(sorted(run.data.metrics.items())),
        url=run_url(info.run_id, info.experiment_id, tracking_uri=tracking_uri),
    )
