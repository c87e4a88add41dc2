"""Logged models of a run: models that its mirrored run lacks, and copying them.

A logged model of MLflow 3 lies outside its run. Its copy is a logged model of the destination,
which Azure ML keeps in a folder of the run; the metrics of the model are linked to the copy.
Models that a run used as input (`log_inputs(models=)`) are not mirrored: they may belong to runs
that never are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from dbx_aml.models import lineage
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.artifacts import copy_missing_files, list_files
from dbx_aml.tracking.mirror.server import MlflowServer, read_pages

try:
    from mlflow.entities import (
        LoggedModelOutput,
        LoggedModelParameter,
        LoggedModelStatus,
        LoggedModelTag,
        Metric,
    )
except ImportError:  # MLflow 2 has no logged models
    LoggedModelOutput = None  # type: ignore[assignment,misc]


def logged_models_of_run(server: MlflowServer, run: Run) -> list[Any]:
    """Return the logged models that a run created, oldest first."""
    if LoggedModelOutput is None:
        return []
    try:
        models = list(
            read_pages(
                lambda token: server.store.search_logged_models(
                    [run.info.experiment_id],
                    filter_string=f"source_run_id = '{run.info.run_id}'",
                    page_token=token,
                ),
                "logged-models/search",
            )
        )
    except MlflowException as error:
        # A server of MLflow 2 has no such call.
        if str(error.error_code) == "ENDPOINT_NOT_FOUND":
            return []
        raise
    return sorted(models, key=lambda model: (model.creation_timestamp, model.model_id))


def copy_logged_models(
    source: MlflowServer,
    destination: MlflowServer,
    models: list[Any],
    source_run: Run,
    mirrored_run: Run,
    *,
    on_written: Callable[[int], None],
) -> list[str]:
    """Copy the logged models of a run that its mirrored run lacks.

    Args:
        source: Server of the source run.
        destination: Server of the mirrored run.
        models: Logged models of the source run.
        source_run: Run on the source.
        mirrored_run: Run on the destination.
        on_written: Function that gets the number of bytes after each call.

    Returns:
        Differences that remain, one text a model.
    """
    if not models:
        return []
    copies = {
        copied_model.tags.get(lineage.SOURCE_LOGGED_MODEL_ID): copied_model
        for copied_model in logged_models_of_run(destination, mirrored_run)
    }
    steps: dict[str, Any] = {output.model_id: output.step for output in _outputs(source_run)}
    existing_outputs = {output.model_id for output in _outputs(mirrored_run)}
    differences = []
    for model in models:
        copied_model = copies.get(model.model_id) or _create_copy(destination, model, mirrored_run)
        source_files = source.artifact_repository(model.artifact_location)
        missing = copy_missing_files(
            source_files,
            destination.artifact_repository(copied_model.artifact_location),
            list_files(source_files),
            on_written=on_written,
        )
        if missing:
            differences.append(
                f"model {model.name!r} must have the source's files: missing {missing[:5]}"
            )
        _link_metrics(destination, model, copied_model, mirrored_run)
        if copied_model.status != model.status and model.status != LoggedModelStatus.PENDING:
            destination.store.finalize_logged_model(copied_model.model_id, model.status)
        if model.model_id in steps and copied_model.model_id not in existing_outputs:
            output = LoggedModelOutput(copied_model.model_id, steps[model.model_id])
            destination.store.log_outputs(mirrored_run.info.run_id, [output])
    return differences


def model_folders(models: list[Any], run: Run) -> tuple[str, ...]:
    """Return the folders of logged models among a run's artifacts, each with a slash at its end."""
    root = f"{run.info.artifact_uri}/"
    return tuple(
        f"{model.artifact_location.removeprefix(root)}/"
        for model in models
        if model.artifact_location.startswith(root)
    )


def _outputs(run: Run) -> list[Any]:
    return list(run.outputs.model_outputs) if run.outputs else []


def _create_copy(destination: MlflowServer, model: Any, mirrored_run: Run) -> Any:
    model_tags = {**tags.user_tags(model.tags), lineage.SOURCE_LOGGED_MODEL_ID: model.model_id}
    return destination.store.create_logged_model(
        experiment_id=mirrored_run.info.experiment_id,
        name=model.name,
        source_run_id=mirrored_run.info.run_id,
        tags=[LoggedModelTag(key, value) for key, value in model_tags.items()],
        params=[LoggedModelParameter(key, value) for key, value in (model.params or {}).items()],
        model_type=model.model_type,
    )


def _link_metrics(
    destination: MlflowServer, model: Any, copied_model: Any, mirrored_run: Run
) -> None:
    """Link the mirrored run's points that belong to a model to the copy of the model."""
    linked = {
        (metric.key, metric.dataset_name, metric.step) for metric in copied_model.metrics or []
    }
    metrics = [
        Metric(
            key=metric.key,
            value=metric.value,
            timestamp=metric.timestamp,
            step=metric.step,
            model_id=copied_model.model_id,
            dataset_name=metric.dataset_name,
            dataset_digest=metric.dataset_digest,
            run_id=mirrored_run.info.run_id,
        )
        for metric in model.metrics or []
        # MLflow's own server refuses a NaN that it already has.
        if (metric.key, metric.dataset_name, metric.step) not in linked
        and metric.value == metric.value
    ]
    if not metrics:
        return
    link_metrics = getattr(destination.store, "link_metrics", None)
    if link_metrics:
        link_metrics(mirrored_run.info.run_id, metrics)
    else:
        destination.store.log_batch(mirrored_run.info.run_id, metrics, [], [])
