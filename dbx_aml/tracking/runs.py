"""Look at runs: what MLflow knows of them as plain data, whichever service tracks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbx_aml._common.errors import LinkError, RunError
from dbx_aml._common.text import first_line
from dbx_aml.link.workspace import AmlWorkspace
from dbx_aml.tracking.servers import databricks_host

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_BARS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 24
_MOST_RUNS = 1000


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run as a row of a table; `url` is None where the server has no pages."""

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
        experiment: Its name, or its path in Databricks; default the active one of MLflow.
        max_results: How many at most, 1 to 1000.
        tracking_uri: MLflow's; default as MLflow resolves it.

    Raises:
        RunError: There is no such experiment, or the server refuses.
    """
    client = _client(tracking_uri)
    experiment_id = _experiment_id(client, experiment)
    runs = _ask(
        "runs must be readable",
        experiment or experiment_id,
        lambda: client.search_runs([experiment_id], max_results=min(max_results, _MOST_RUNS)),
    )
    return [_row(run, client.tracking_uri) for run in runs]


def show_run(run_id: str, *, tracking_uri: str | None = None) -> dict[str, Any]:
    """Return everything a person wants of a run: the row, params, tags, metrics, artifacts.

    Each metric has its `last` value, how many `points`, and a `sparkline` of at most 24 bars.

    Raises:
        RunError: There is no such run, or the server refuses.
    """
    client = _client(tracking_uri)
    run = _ask("run must exist", run_id, lambda: client.get_run(run_id))
    metrics = {}
    for key, last in sorted(run.data.metrics.items()):
        history = client.get_metric_history(run_id, key)
        values = [m.value for m in sorted(history, key=lambda m: (m.step, m.timestamp))]
        metrics[key] = {"last": last, "points": len(values), "sparkline": sparkline(values)}
    return {
        "run": _row(run, client.tracking_uri),
        "params": dict(sorted(run.data.params.items())),
        "tags": {k: v for k, v in sorted(run.data.tags.items()) if not k.startswith("mlflow.")},
        "metrics": metrics,
        "artifacts": list(_artifacts(client, run_id)),
    }


def sparkline(values: list[float]) -> str:
    """Return values as bars of one line, at most 24: neighbours share one by their mean.

    A value that is not finite is left blank.
    """
    from itertools import pairwise
    from math import isfinite
    from statistics import fmean

    if not values:
        return ""
    count = min(len(values), _SPARK_WIDTH)
    edges = [i * len(values) // count for i in range(count + 1)]
    groups = [[v for v in values[a:b] if isfinite(v)] for a, b in pairwise(edges)]
    means = [fmean(group) if group else None for group in groups]
    finite = [mean for mean in means if mean is not None]
    if not finite:
        return " " * count
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    return "".join(
        " " if mean is None else _BARS[round((mean - low) / span * (len(_BARS) - 1))]
        for mean in means
    )


def run_url(tracking_uri: str, experiment_id: str, run_id: str) -> str | None:
    """Return the page of a run, or None where its server has none.

    Args:
        tracking_uri: For example "https://mlflow.contoso.com" or "databricks".
        experiment_id: As MLflow gives it.
        run_id: As MLflow gives it.
    """
    scheme = urlsplit(tracking_uri).scheme or tracking_uri
    if scheme == "azureml":
        return AmlWorkspace.from_tracking_uri(tracking_uri).run_url(run_id)
    if scheme in ("http", "https"):
        server = urlsplit(tracking_uri)
        # A password in the URI is no part of a link that is shown.
        netloc = server.netloc.rpartition("@")[2]
        base = f"{server.scheme}://{netloc}{server.path}".rstrip("/")
        return f"{base}/#/experiments/{experiment_id}/runs/{run_id}"
    if scheme == "databricks":
        host = _databricks_host(tracking_uri)
        return f"{host}/ml/experiments/{experiment_id}/runs/{run_id}" if host else None
    return None


@cache
def _databricks_host(tracking_uri: str) -> str | None:
    """Return the workspace's host; asking for it may ask that host, so once is enough."""
    set_here = os.environ.get("DATABRICKS_HOST") if tracking_uri == "databricks" else None
    try:
        return (set_here or databricks_host(tracking_uri)).rstrip("/")
    except LinkError:
        return None


def _client(tracking_uri: str | None) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)


def _ask(rule: str, given: str, question: Any) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return question()
    except MlflowException as err:
        raise RunError(f"{rule}: got {given!r}; {first_line(err)}") from err


def _experiment_id(client: MlflowClient, experiment: str | None) -> str:
    if not experiment:
        from mlflow.tracking.fluent import _get_experiment_id

        return str(_get_experiment_id())
    found = _ask(
        "experiment must exist", experiment, lambda: client.get_experiment_by_name(experiment)
    )
    if found is None:
        raise RunError(
            f"experiment must exist: got {experiment!r}; look at its name in the studio, or give "
            "the Databricks path"
        )
    return str(found.experiment_id)


def _row(run: Run, tracking_uri: str) -> RunRow:
    info = run.info
    start, end = info.start_time, info.end_time
    return RunRow(
        run_id=info.run_id,
        name=info.run_name or "",
        status=info.status,
        started=datetime.fromtimestamp(start / 1000, UTC) if start else None,
        seconds=(end - start) / 1000 if start and end else None,
        metrics=dict(sorted(run.data.metrics.items())),
        url=run_url(tracking_uri, info.experiment_id, info.run_id),
    )


def _artifacts(client: MlflowClient, run_id: str, path: str | None = None) -> Any:
    for file in client.list_artifacts(run_id, path):
        if file.is_dir:
            yield from _artifacts(client, run_id, file.path)
        else:
            yield {"path": file.path, "bytes": file.file_size}
