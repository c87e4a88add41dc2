"""Logged models and datasets of a run: those that its mirror lacks.

A logged model of MLflow 3 lies outside of its run. It becomes one at the destination, which in
Azure ML is a folder of the run; its metrics are linked to it there. Which models a run was given
(`log_inputs(models=)`) is not mirrored: those may be of runs that never are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.mirror import artifacts as file
from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.server import Side

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


def models_of(side: Side, run: Run) -> list[Any]:
    """Return the logged models that a run made, oldest first."""
    if LoggedModelOutput is None:
        return []
    found, token = [], None
    while True:
        try:
            page = side.store.search_logged_models(
                [run.info.experiment_id],
                filter_string=f"source_run_id = '{run.info.run_id}'",
                page_token=token,
            )
        except MlflowException as error:
            # A server of MLflow 2.
            if str(error.error_code) == "ENDPOINT_NOT_FOUND":
                return []
            raise
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda model: (model.creation_timestamp, model.model_id))


def copy_models(
    src: Side, dst: Side, run: Run, target: Run, *, wrote: Callable[[int], None]
) -> list[str]:
    """Copy the logged models that a run made; return the differences that stay."""
    models = models_of(src, run)
    if not models:
        return []
    known = {model.tags.get(tag.SOURCE_MODEL): model for model in models_of(dst, target)}
    outputs = run.outputs.model_outputs if run.outputs else []
    steps: dict[str, Any] = {one.model_id: one.step for one in outputs}
    has = {one.model_id for one in (target.outputs.model_outputs if target.outputs else [])}
    problems = []
    for model in models:
        copied = known.get(model.model_id) or _made(dst, model, target)
        problems += _copy_files(src, dst, model, copied, wrote)
        _link_metrics(dst, model, copied, target)
        if copied.status != model.status and model.status != LoggedModelStatus.PENDING:
            dst.store.finalize_logged_model(copied.model_id, model.status)
        if model.model_id in steps and copied.model_id not in has:
            output = LoggedModelOutput(copied.model_id, steps[model.model_id])
            dst.store.log_outputs(target.info.run_id, [output])
    return problems


def folders_of(models: list[Any], run: Run) -> tuple[str, ...]:
    """Return where in a run's artifacts its logged models lie, each with a slash at its end."""
    root = f"{run.info.artifact_uri}/"
    return tuple(
        f"{model.artifact_location.removeprefix(root)}/"
        for model in models
        if model.artifact_location.startswith(root)
    )


def copy_datasets(dst: Side, run: Run, target: Run) -> None:
    """Log the datasets to a mirror that it lacks."""
    missing = missing_datasets(run, target)
    if missing:
        dst.store.log_inputs(target.info.run_id, datasets=missing)


def missing_datasets(run: Run, target: Run) -> list[Any]:
    """Return the datasets of a run, with their tags, that its mirror lacks."""
    has = {_identity(one) for one in _datasets(target)}
    return [one for one in _datasets(run) if _identity(one) not in has]


def _datasets(run: Run) -> list[Any]:
    return list(run.inputs.dataset_inputs) if run.inputs else []


def _identity(given: Any) -> tuple[Any, ...]:
    tags = sorted((one.key, one.value) for one in given.tags or [])
    return given.dataset.name, given.dataset.digest, tuple(tags)


def _made(dst: Side, model: Any, target: Run) -> Any:
    tags = {**tag.plain(model.tags), tag.SOURCE_MODEL: model.model_id}
    return dst.store.create_logged_model(
        experiment_id=target.info.experiment_id,
        name=model.name,
        source_run_id=target.info.run_id,
        tags=[LoggedModelTag(key, text) for key, text in tags.items()],
        params=[LoggedModelParameter(key, text) for key, text in (model.params or {}).items()],
        model_type=model.model_type,
    )


def _copy_files(
    src: Side, dst: Side, model: Any, copied: Any, wrote: Callable[[int], None]
) -> list[str]:
    source = src.repository(model.artifact_location)
    destination = dst.repository(copied.artifact_location)
    wanted = file.sizes(source)
    missing = file.missing(wanted, file.sizes(destination))
    if not missing:
        return []
    file.copy(source, destination, missing, wrote=wrote)
    left = file.missing(wanted, file.sizes(destination))
    return [f"model {model.name!r} must have the source's files: missing {sorted(left)[:5]}"][
        : len(left)
    ]


def _link_metrics(dst: Side, model: Any, copied: Any, target: Run) -> None:
    """Let the mirror's points that belong to the model say so; the points are there already."""
    has = {(one.key, one.dataset_name, one.step) for one in copied.metrics or []}
    metrics = [
        Metric(
            key=one.key,
            value=one.value,
            timestamp=one.timestamp,
            step=one.step,
            model_id=copied.model_id,
            dataset_name=one.dataset_name,
            dataset_digest=one.dataset_digest,
            run_id=target.info.run_id,
        )
        for one in model.metrics or []
        # MLflow's own server cannot be told a NaN that it has.
        if (one.key, one.dataset_name, one.step) not in has and one.value == one.value
    ]
    if not metrics:
        return
    link = getattr(dst.store, "link_metrics", None)
    if link:
        link(target.info.run_id, metrics)
    else:
        dst.store.log_batch(target.info.run_id, metrics, [], [])
