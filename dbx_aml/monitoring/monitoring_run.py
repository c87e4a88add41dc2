"""The MLflow run of monitoring: the numbers of each window as metrics, and the page."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbx_aml._common.chunks import split_chunks
from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import MonitoringError
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import one_line
from dbx_aml.models.mlflow_client import create_client
from dbx_aml.monitoring.quality import CHALLENGER_ROW, quality_numbers
from dbx_aml.monitoring.quarantine import QUARANTINE_ROW

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = get_logger(__name__)

# Tag of the run: the table that it monitors.
TABLE_TAG = "dbx_aml.monitored_table"
# Metrics of each column, by column of the drift table.
_DRIFT_METRICS = {
    "psi": "population_stability_index",
    "js": "js_distance",
    "normalized_wasserstein": "dbx_aml_normalized_wasserstein",
}
_METRICS_PER_CALL = 1000
_METRIC_NAME_LENGTH = 250
_NO_METRIC_CHARACTER = re.compile(r"[^\w\-. /]")


def log_monitoring_run(
    model_run_id: str,
    table: str,
    drift_rows: Iterable[Mapping[str, Any]],
    profile_rows: Iterable[Mapping[str, Any]],
    page: Path | None,
) -> str | None:
    """Log numbers to the table's run of monitoring, in the experiment of the model's run.

    Each table has one such run: a new window adds a step, the start of the window in seconds since
    1970. A server that does not answer costs a warning: the tables have the numbers.

    Args:
        model_run_id: Run that logged the model.
        table: Name of the scored table.
        drift_rows: Rows of the drift table that are new.
        profile_rows: Rows of the profile table that are new.
        page: Page, which becomes an artifact; None without a page.

    Returns:
        Id of the run; None if it could not be logged.
    """
    from mlflow.entities import Metric

    numbers = [*_drift_numbers(drift_rows), *_profile_numbers(profile_rows)]
    metrics = [
        Metric(_metric_name(name), value, start // 1000, start // 1_000_000)
        for name, start, value in numbers
    ]
    try:
        client = create_client()
        run_id = _find_or_create_run(client, model_run_id, table)
        for call_metrics in split_chunks(metrics, _METRICS_PER_CALL):
            client.log_batch(run_id, call_metrics)
        if page is not None:
            client.log_artifact(run_id, str(page))
        client.set_terminated(run_id)
    except Exception as err:  # noqa: BLE001 - the artifact repositories of MLflow raise anything
        log.warning("the run of monitoring was not logged: %s", one_line(err, 200))
        return None
    return run_id


def _find_or_create_run(client: MlflowClient, model_run_id: str, table: str) -> str:
    experiment_id = client.get_run(model_run_id).info.experiment_id
    # MLflow's filter has two quotes, and no escape.
    quote = '"' if "'" in table else "'"
    found = client.search_runs(
        [experiment_id], f"tags.`{TABLE_TAG}` = {quote}{table}{quote}", max_results=1
    )
    if found:
        return str(found[0].info.run_id)
    tags = {**creation_tags(), TABLE_TAG: table}
    run = client.create_run(experiment_id, tags=tags, run_name=f"monitor {table}")
    return str(run.info.run_id)


def _metric_name(name: str) -> str:
    """Return a name that MLflow takes: it refuses all metrics of a call for one that is no path."""
    return posixpath.normpath(_NO_METRIC_CHARACTER.sub("_", name))[:_METRIC_NAME_LENGTH]


def _drift_numbers(rows: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, int, float]]:
    for row in rows:
        if row["drift_type"] == "BASELINE" and row["slice_key"] is None:
            for name, column in _DRIFT_METRICS.items():
                if row.get(column) is not None:
                    yield f"{name}/{row['column_name']}", row["dbx_aml_window"], row[column]


def _profile_numbers(rows: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, int, float]]:
    for row in rows:
        if row["slice_key"] is not None or not row["column_name"].startswith(":"):
            continue
        if row["column_name"] == QUARANTINE_ROW:
            yield "percent_quarantined", row["dbx_aml_window"], row["dbx_aml_percent_quarantined"]
            continue
        is_challenger = row["column_name"] == CHALLENGER_ROW
        if not is_challenger:
            yield "rows", row["dbx_aml_window"], float(row["count"])
        for name, value in quality_numbers(row).items():
            metric = f"challenger_quality/{name}" if is_challenger else f"quality/{name}"
            yield metric, row["dbx_aml_window"], value


def find_run_dataset(run_uri: str) -> tuple[str, int | None]:
    """Return table and version of the dataset that a run was trained on.

    A dataset with the context "training" comes first.

    Args:
        run_uri: URI of the run, for example "runs:/9f2c41d0".

    Raises:
        MonitoringError: The run cannot be read, or has no dataset that is a table.
    """
    from mlflow.exceptions import MlflowException

    run_id = run_uri.removeprefix("runs:/").strip("/")
    try:
        inputs = create_client().get_run(run_id).inputs.dataset_inputs
    except MlflowException as err:
        raise MonitoringError(
            f"baseline must be a run that exists: got {run_uri!r}; {one_line(err, 200)}"
        ) from err
    for item in sorted(inputs, key=lambda item: not _is_training(item.tags)):
        found = _table_of(item.dataset.source_type, item.dataset.source)
        if found is not None:
            return found
    names = ", ".join(f"{item.dataset.name} ({item.dataset.source_type})" for item in inputs)
    raise MonitoringError(
        f"baseline must be a run with a dataset that is a table: got {run_uri!r} with "
        f"{names or 'no dataset'}; name the table of the training rows"
    )


def _is_training(tags: Sequence[Any]) -> bool:
    return any(tag.key == "mlflow.data.context" and tag.value == "training" for tag in tags)


def _table_of(source_type: str, source: str) -> tuple[str, int | None] | None:
    """Return table and version of a dataset's source; None for a file or a query."""
    if source_type not in ("delta_table", "spark"):
        return None
    facts = json.loads(source)
    name = facts.get("delta_table_name") or facts.get("table_name")
    if name is None and facts.get("path"):
        name = f"delta.`{facts['path']}`"
    version = facts.get("delta_table_version")
    return None if name is None else (name, None if version is None else int(version))
