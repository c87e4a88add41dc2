"""Params, tags and datasets of a run: the data that its mirrored run lacks, and writing it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from mlflow.entities import Param, Run, RunTag

from dbx_aml._common.chunks import split_chunks
from dbx_aml._common.errors import RunMirrorError
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.server import MlflowServer

_ENTRIES_PER_CALL = 100


@dataclass(frozen=True, kw_only=True)
class MissingData:
    """Data of a source run that its mirrored run lacks.

    Args:
        params: Params that the mirrored run lacks.
        tags: Tags that the mirrored run lacks, or has with another value.
        deleted_tags: Names of tags that came from the source run, which has them no more.
        datasets: MLflow's dataset inputs that the mirrored run lacks.
    """

    params: list[Param]
    tags: list[RunTag]
    deleted_tags: list[str]
    datasets: list[Any]

    def __bool__(self) -> bool:
        return bool(self.params or self.tags or self.deleted_tags or self.datasets)


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


def compare_data(source_run: Run, mirrored_run: Run, run_tags: dict[str, str]) -> MissingData:
    """Return the params, tags and datasets that the mirrored run lacks.

    Args:
        source_run: Run on the source.
        mirrored_run: Run on the destination.
        run_tags: Tags that the mirrored run must have.

    Raises:
        RunMirrorError: The mirrored run has another value for a param, and MLflow never changes
            a param.
    """
    source_params, params = source_run.data.params, mirrored_run.data.params
    changed = [key for key, value in source_params.items() if params.get(key, value) != value]
    if changed:
        raise RunMirrorError(
            f"params must be the source's: got other values for {sorted(changed)[:5]} at the "
            "destination, and MLflow never changes a param; delete that run there"
        )
    existing_tags = mirrored_run.data.tags
    return MissingData(
        params=[Param(key, value) for key, value in source_params.items() if key not in params],
        tags=[RunTag(k, value) for k, value in run_tags.items() if existing_tags.get(k) != value],
        deleted_tags=tags.deleted_names(existing_tags, run_tags),
        datasets=missing_datasets(source_run, mirrored_run),
    )


def write_data(destination: MlflowServer, run_id: str, missing: MissingData) -> None:
    """Write params, tags and datasets, in as few calls as the server accepts.

    Args:
        destination: Server of the mirrored run.
        run_id: Id of the mirrored run.
        missing: Data to write.
    """
    # The list of the names is written last: a tag that it does not name is never deleted.
    for name in missing.deleted_tags:
        destination.store.delete_tag(run_id, name)
    param_lists = split_chunks(missing.params, _ENTRIES_PER_CALL)
    tag_lists = split_chunks(missing.tags, _ENTRIES_PER_CALL)
    for params, run_tags in zip_longest(param_lists, tag_lists, fillvalue=()):
        destination.store.log_batch(run_id, [], list(params), list(run_tags))
    if missing.datasets:
        destination.store.log_inputs(run_id, datasets=missing.datasets)


def missing_datasets(source_run: Run, mirrored_run: Run) -> list[Any]:
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
