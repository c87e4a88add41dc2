"""Params and tags of a run: what the destination lacks of them."""

from __future__ import annotations

from itertools import zip_longest

from mlflow.entities import Param, Run, RunTag

from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.errors import RunMirrorError
from dbx_aml.tracking.mirror.server import Side

_A_CALL = 100


def tags_for(dst: Side, run: Run, parent: str | None) -> dict[str, str]:
    """Return the tags that a run's mirror has to have.

    Args:
        dst: The destination.
        run: Of the source.
        parent: The mirror of the run's parent, None where there is none.
    """
    left_out = {tag.PARENT, tag.ROOT} | (tag.OF_DATABRICKS if dst.is_databricks else set())
    found = {key: text for key, text in tag.plain(run.data.tags).items() if key not in left_out}
    return {**found, tag.PARENT: parent} if parent else found


def missing_tags(wanted: dict[str, str], target: Run) -> list[RunTag]:
    """Return the tags that a run has not, or not with this value."""
    has = target.data.tags
    return [RunTag(key, text) for key, text in wanted.items() if has.get(key) != text]


def missing_params(run: Run, target: Run) -> list[Param]:
    """Return the params that the mirror has not.

    Raises:
        RunMirrorError: It has another value for one: MLflow never changes a param.
    """
    has = target.data.params
    other = [key for key, text in run.data.params.items() if has.get(key, text) != text]
    if other:
        raise RunMirrorError(
            f"params must be the source's: got other values for {sorted(other)[:5]} at the "
            "destination, and MLflow never changes a param; delete that run there"
        )
    return [Param(key, text) for key, text in run.data.params.items() if key not in has]


def copy(dst: Side, run: Run, target: Run, tags: dict[str, str]) -> None:
    """Write the params and tags that a mirror lacks, in as few calls as a server takes them.

    Args:
        dst: The destination.
        run: Of the source.
        target: Its mirror.
        tags: That it has to have.

    Raises:
        RunMirrorError: It has another value for a param.
    """
    parts = [
        [items[first : first + _A_CALL] for first in range(0, len(items), _A_CALL)]
        for items in (missing_params(run, target), missing_tags(tags, target))
    ]
    for some_params, some_tags in zip_longest(*parts, fillvalue=()):
        dst.store.log_batch(target.info.run_id, [], list(some_params), list(some_tags))
