"""Logged models, of a run or without one: their copies at the destination, kept up to date.

A logged model of MLflow 3 lies outside its run. Its copy is a logged model of the destination,
which Azure ML keeps in a folder of the run; the metrics of the model are linked to the copy.
Models that a run used as input (`log_inputs(models=)`) are not mirrored: they may belong to runs
that never are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from dbx_aml._common.chunks import split_chunks
from dbx_aml.models import lineage
from dbx_aml.models.mlflow_client import read_pages
from dbx_aml.tracking.azureml.logged_model_values import newest_metrics
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.artifacts import copy_files, list_files
from dbx_aml.tracking.mirror.metric_points import stored_value
from dbx_aml.tracking.mirror.server import MlflowServer

_EXPERIMENTS_PER_SEARCH = 100

try:
    from mlflow.entities import (
        LoggedModelOutput,
        LoggedModelParameter,
        LoggedModelStatus,
        LoggedModelTag,
        Metric,
    )

    from dbx_aml.tracking.azureml.logged_model_document import split_model_id
except ImportError:  # MLflow 2 has no logged models
    LoggedModelOutput = None  # type: ignore[assignment,misc]


def models_by_run(
    server: MlflowServer, experiment_ids: Sequence[str], run_id: str | None = None
) -> dict[str | None, list[Any]]:
    """Return the logged models of experiments by the run that created them, oldest first.

    Args:
        server: Server of the models.
        experiment_ids: Ids of the experiments.
        run_id: Run whose models to return alone; by default all models, those without a run
            under None.
    """
    models: dict[str | None, list[Any]] = {}
    if LoggedModelOutput is None:
        return models
    condition = None if run_id is None else f"source_run_id = '{run_id}'"
    try:
        for ids in split_chunks(experiment_ids, _EXPERIMENTS_PER_SEARCH):
            search = partial(server.store.search_logged_models, ids, condition, None, None, None)
            for model in read_pages(search, "logged-models/search"):
                models.setdefault(model.source_run_id or None, []).append(model)
    except MlflowException as error:
        # A server of MLflow 2 has no such call.
        if str(error.error_code) != "ENDPOINT_NOT_FOUND":
            raise
    for run_models in models.values():
        run_models.sort(key=_creation_order)
    return models


def logged_models_of_run(server: MlflowServer, run: Run) -> list[Any]:
    """Return the logged models that a run created, oldest first."""
    return models_by_run(server, [run.info.experiment_id], run.info.run_id).get(run.info.run_id, [])


def copies_by_source(models: Iterable[Any]) -> dict[str | None, Any]:
    """Return the logged models of a destination by the id of the model at the source.

    Args:
        models: Logged models of the destination; of two copies of one model the first counts.
    """
    copies: dict[str | None, Any] = {}
    for model in models:
        copies.setdefault(model.tags.get(lineage.SOURCE_LOGGED_MODEL_ID), model)
    return copies


def linkable_metrics(model: Any, destination: MlflowServer) -> list[Any]:
    """Return the metrics of a logged model that a destination can link to its copy.

    Azure ML keeps the newest values. MLflow's own server refuses a NaN that its run has already.
    """
    metrics = model.metrics or []
    if destination.is_azureml:
        return newest_metrics(metrics)
    return [metric for metric in metrics if metric.value == metric.value]


def different_model_values(
    model: Any, copied_model: Any, destination: MlflowServer
) -> list[tuple[str, str, str | None, str | None]]:
    """Return the values of a logged model that its copy lacks, has otherwise, or has too many.

    Args:
        model: Logged model of the source.
        copied_model: Its copy.
        destination: Server of the copy.

    Returns:
        For each value its kind, its name, and the value on both sides; None for no value.
    """
    values = tags.model_values(model, linkable_metrics(model, destination))
    copied_values = tags.model_values(copied_model)
    expected_tags = tags.with_names(tags.user_tags(model.tags))
    deleted_names = tags.deleted_names(copied_model.tags, expected_tags)
    return [
        (kind, name, values.get((kind, name)), copied_values.get((kind, name)))
        for kind, name in sorted({*values, *(("model tag", name) for name in deleted_names)})
        if values.get((kind, name)) != copied_values.get((kind, name))
    ]


class LoggedModelMirror:
    """Brings logged models of a destination up to date with those of the source.

    Args:
        source: Server of the models.
        destination: Server of the copies.
        find_run_id: Function from the id of a source run to the id of its mirrored run.
    """

    def __init__(
        self,
        source: MlflowServer,
        destination: MlflowServer,
        find_run_id: Callable[[str], str | None],
    ) -> None:
        self._source = source
        self._destination = destination
        self._find_run_id = find_run_id

    def mirror_models_of_run(
        self,
        models: list[Any],
        source_run: Run,
        mirrored_run: Run,
        *,
        compares_content: bool,
        on_written: Callable[[int], None],
    ) -> list[str]:
        """Copy what the copies of a run's models lack.

        Args:
            models: Logged models of the source run.
            source_run: Run on the source.
            mirrored_run: Run on the destination.
            compares_content: Whether files of one size are compared by content.
            on_written: Function that gets the number of bytes after each call.

        Returns:
            Differences that remain, one text each.
        """
        if not models:
            return []
        copies = copies_by_source(logged_models_of_run(self._destination, mirrored_run))
        steps: dict[str, Any] = {output.model_id: output.step for output in _outputs(source_run)}
        existing_outputs = {output.model_id for output in _outputs(mirrored_run)}
        differences = []
        for model in models:
            copied_model, model_differences = self.mirror_model(
                model,
                copies.get(model.model_id),
                mirrored_run.info.experiment_id,
                mirrored_run.info.run_id,
                compares_content=compares_content,
                on_written=on_written,
            )
            differences += model_differences
            if model.model_id in steps and copied_model.model_id not in existing_outputs:
                output = LoggedModelOutput(copied_model.model_id, steps[model.model_id])
                self._destination.store.log_outputs(mirrored_run.info.run_id, [output])
        return differences

    def mirror_model(
        self,
        model: Any,
        copied_model: Any | None,
        experiment_id: str,
        run_id: str | None,
        *,
        compares_content: bool,
        on_written: Callable[[int], None],
    ) -> tuple[Any, list[str]]:
        """Bring the copy of one model up to date; return the copy and the differences that remain.

        Args:
            model: Logged model of the source.
            copied_model: Its copy, None if there is none yet.
            experiment_id: Experiment of the copy.
            run_id: Run of the copy; None for a model without a run.
            compares_content: Whether files of one size are compared by content.
            on_written: Function that gets the number of bytes after each call.
        """
        store = self._destination.store
        expected_tags = tags.with_names(tags.user_tags(model.tags))
        if copied_model is None:
            source_tag = {lineage.SOURCE_LOGGED_MODEL_ID: model.model_id}
            copied_model = store.create_logged_model(
                experiment_id=experiment_id,
                name=model.name,
                source_run_id=run_id,
                tags=_entities(LoggedModelTag, {**expected_tags, **source_tag}),
                params=_entities(LoggedModelParameter, model.params or {}),
                model_type=model.model_type,
            )
            if run_id is None:
                copied_model = self._keep_first_copy(copied_model, model.model_id)
        copied_id = copied_model.model_id
        source_files = self._source.artifact_repository(model.artifact_location)
        differences = copy_files(
            source_files,
            self._destination.artifact_repository(copied_model.artifact_location),
            list_files(source_files),
            compares_content=compares_content,
            on_written=on_written,
        )
        for name in tags.deleted_names(copied_model.tags, expected_tags):
            store.delete_logged_model_tag(copied_id, name)
        if new_tags := _entities(LoggedModelTag, expected_tags, copied_model.tags):
            store.set_logged_model_tags(copied_id, new_tags)
        params = _entities(LoggedModelParameter, model.params or {}, copied_model.params or {})
        if params:
            store.log_logged_model_params(copied_id, params)
        self._link_metrics(model, copied_model)
        if copied_model.status != model.status and model.status != LoggedModelStatus.PENDING:
            store.finalize_logged_model(copied_id, model.status)
        return copied_model, [f"model {model.name!r}: {text}" for text in differences]

    def _keep_first_copy(self, copied_model: Any, source_model_id: str) -> Any:
        """Return the first copy of a model without a run; delete copies of other processes."""
        experiment_models = models_by_run(self._destination, [copied_model.experiment_id])
        copies = {
            copy.model_id: copy
            for copy in [*experiment_models.get(None, []), copied_model]
            if copy.tags.get(lineage.SOURCE_LOGGED_MODEL_ID) == source_model_id
        }
        first_copy, *later_copies = sorted(copies.values(), key=_creation_order)
        for copy in later_copies:
            if self._destination.is_azureml:
                # The run that carries the copy.
                self._destination.store.delete_run(split_model_id(copy.model_id)[0])
            else:
                self._destination.store.delete_logged_model(copy.model_id)
        return first_copy

    def _link_metrics(self, model: Any, copied_model: Any) -> None:
        """Link the points of mirrored runs that belong to a model to the copy of the model."""
        store = self._destination.store
        linked = {_metric_identity(metric) for metric in copied_model.metrics or []}
        metrics_by_run: dict[str, list[Any]] = {}
        for metric in linkable_metrics(model, self._destination):
            if _metric_identity(metric) in linked:
                continue
            run_id = self._find_run_id(metric.run_id)
            if run_id is None:
                continue
            own_ids = {"model_id": copied_model.model_id, "run_id": run_id}
            linked_metric = Metric(**{**dict(metric), **own_ids})
            metrics_by_run.setdefault(run_id, []).append(linked_metric)
        for run_id, run_metrics in metrics_by_run.items():
            if self._destination.is_azureml:
                store.link_metrics(run_id, run_metrics)
            else:
                store.log_batch(run_id, run_metrics, [], [])


def model_folders(models: list[Any], run: Run) -> tuple[str, ...]:
    """Return the folders of logged models among a run's artifacts, each with a slash at its end."""
    root = f"{run.info.artifact_uri}/"
    return tuple(
        f"{model.artifact_location.removeprefix(root)}/"
        for model in models
        if model.artifact_location.startswith(root)
    )


def _creation_order(model: Any) -> tuple[int, str]:
    return model.creation_timestamp, model.model_id


def _outputs(run: Run) -> list[Any]:
    return list(run.outputs.model_outputs) if run.outputs else []


def _entities(
    entity: Any, values: Mapping[str, str], existing: Mapping[str, str] | None = None
) -> list[Any]:
    """Return tags or params of a logged model, without those that it has already."""
    existing = existing or {}
    return [entity(key, value) for key, value in values.items() if existing.get(key) != value]


def _metric_identity(metric: Any) -> tuple[Any, ...]:
    value = repr(stored_value(metric.value))
    return metric.key, value, metric.timestamp, metric.step, metric.dataset_name
