"""Attributes, params, tags and datasets of a run: what differs in its mirrored run, and writing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from mlflow.entities import Param, Run, RunTag

from dbx_aml._common.chunks import split_chunks
from dbx_aml._common.errors import RunMirrorError
from dbx_aml.models import lineage
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.server import MlflowServer

_ENTRIES_PER_CALL = 100
# Tag that a destination sets to the caller.
_USER = "mlflow.user"


def expected_tags(
    destination: MlflowServer, source_run: Run, parent_id: str | None
) -> dict[str, str]:
    """Return the tags of the user that a mirrored run must have, and the list of their names.

    Args:
        destination: Server of the mirrored run.
        source_run: Run on the source.
        parent_id: Id of the parent on the destination, or None.
    """
    skipped = {tags.PARENT_RUN_ID, tags.ROOT_RUN_ID}
    if destination.is_databricks:
        skipped |= tags.SET_BY_DATABRICKS
    user_tags = tags.user_tags(source_run.data.tags)
    expected = {key: value for key, value in user_tags.items() if key not in skipped}
    if parent_id:
        expected[tags.PARENT_RUN_ID] = parent_id
    return tags.with_names(expected)


def different_values(
    source_run: Run, mirrored_run: Run, run_tags: dict[str, str]
) -> list[tuple[str, str, Any, Any]]:
    """Return the values of a run that its mirrored run lacks, has otherwise, or has too many.

    Metrics and artifacts are compared while they are read.

    Args:
        source_run: Run on the source.
        mirrored_run: Run on the destination.
        run_tags: Tags that the mirrored run must have, see `expected_tags`.

    Returns:
        For each value its kind, its name, and the value on both sides; None for no value.
    """
    differences = [
        (kind, name, value, mirrored_value)
        for kind, name, value, mirrored_value in _values(source_run, mirrored_run, run_tags)
        # The list of the names shows a difference of a tag, and is none itself.
        if value != mirrored_value
        and not (kind == "tag" and (name == _USER or name.startswith(lineage.SOURCE_TAGS)))
    ]
    datasets = [entry.dataset for entry in _missing_datasets(source_run, mirrored_run)]
    return [*differences, *(("dataset", item.name, item.digest, None) for item in datasets)]


def write_data(
    destination: MlflowServer, source_run: Run, mirrored_run: Run, run_tags: dict[str, str]
) -> bool:
    """Write params, tags and datasets that differ, in as few calls as the server accepts.

    Args:
        destination: Server of the mirrored run.
        source_run: Run on the source.
        mirrored_run: Run on the destination.
        run_tags: Tags that the mirrored run must have, see `expected_tags`.

    Returns:
        Whether anything was written.

    Raises:
        RunMirrorError: The mirrored run has another param, or another value for a param. MLflow
            changes and deletes no param.
    """
    params: list[Param] = []
    new_tags: list[RunTag] = []
    deleted_tags: list[str] = []
    changed_params: list[str] = []
    for kind, name, value, mirrored_value in _values(source_run, mirrored_run, run_tags):
        if value == mirrored_value:
            continue
        if kind == "tag" and value is None:
            deleted_tags.append(name)
        elif kind == "tag":
            new_tags.append(RunTag(name, value))
        elif kind == "param" and mirrored_value is None:
            params.append(Param(name, value))
        elif kind == "param":
            changed_params.append(name)
    if changed_params:
        raise RunMirrorError(
            f"params must be the source's: got other values for {changed_params[:5]} at the "
            "destination, and MLflow never changes a param; delete that run there"
        )
    run_id = mirrored_run.info.run_id
    for name in deleted_tags:
        destination.store.delete_tag(run_id, name)
    # The list of the names is written last: a tag that it does not name is never deleted.
    param_lists = split_chunks(params, _ENTRIES_PER_CALL)
    tag_lists = split_chunks(new_tags, _ENTRIES_PER_CALL)
    for param_list, tag_list in zip_longest(param_lists, tag_lists, fillvalue=()):
        destination.store.log_batch(run_id, [], list(param_list), list(tag_list))
    datasets = _missing_datasets(source_run, mirrored_run)
    if datasets:
        destination.store.log_inputs(run_id, datasets=datasets)
    return bool(params or new_tags or deleted_tags or datasets)


def _values(
    source_run: Run, mirrored_run: Run, run_tags: dict[str, str]
) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield kind, name and the value on both sides, equal values too."""
    names = ["status", "start_time", "run_name"]
    if tags.is_terminated(source_run):
        # A run that goes on after its end may keep the old end at the destination.
        names.append("end_time")
    for name in names:
        yield "run", name, getattr(source_run.info, name), getattr(mirrored_run.info, name)
    source_params, params = source_run.data.params, mirrored_run.data.params
    for key in sorted({*source_params, *params}):
        yield "param", key, source_params.get(key), params.get(key)
    existing_tags = mirrored_run.data.tags
    for key in [*run_tags, *tags.deleted_names(existing_tags, run_tags)]:
        yield "tag", key, run_tags.get(key), existing_tags.get(key)


def _missing_datasets(source_run: Run, mirrored_run: Run) -> list[Any]:
    """Return the datasets of the source run, with their tags, that the mirrored run lacks."""
    existing = {_dataset_identity(dataset) for dataset in _dataset_inputs(mirrored_run)}
    return [
        dataset
        for dataset in _dataset_inputs(source_run)
        if _dataset_identity(dataset) not in existing
    ]


def _dataset_inputs(run: Run) -> list[Any]:
    return list(run.inputs.dataset_inputs) if run.inputs else []


def _dataset_identity(dataset_input: Any) -> tuple[Any, ...]:
    dataset_tags = sorted((tag.key, tag.value) for tag in dataset_input.tags or [])
    return dataset_input.dataset.name, dataset_input.dataset.digest, tuple(dataset_tags)
