"""Searches for the runs to mirror: marked runs, all runs, runs by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from dbx_aml._common.errors import MirrorError
from dbx_aml._common.text import first_line
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.server import MlflowServer


def find_experiment_ids(source: MlflowServer, names: Sequence[str]) -> list[str]:
    """Return the ids of experiments by their names or paths, each once; without names, of all.

    Raises:
        MirrorError: The source has no experiment of that name.
    """
    if not names:
        return [experiment.experiment_id for experiment in source.search_experiments()]
    experiment_ids: dict[str, None] = {}
    for name in names:
        experiment = source.find_experiment(name)
        if experiment is None:
            raise MirrorError(
                f"experiment must exist in {source.display_name}: got {name!r}; give its path as "
                "the experiment's page shows it"
            )
        experiment_ids[str(experiment.experiment_id)] = None
    return list(experiment_ids)


def find_runs(
    source: MlflowServer,
    experiment_ids: Sequence[str],
    *,
    since: int | None = None,
    include_unmarked: bool = False,
) -> Iterator[Run]:
    """Yield the marked runs of experiments and their children, also runs that are done or deleted.

    Args:
        source: Server of the runs.
        experiment_ids: Ids on the source.
        since: Earliest start time of a run, ms since 1970.
        include_unmarked: Whether to yield every run.
    """
    filter_string = "" if since is None else f"attributes.start_time >= {since}"
    found_ids: set[str | None] = set()
    # The oldest run comes first, so a parent comes before its children.
    for run in source.search_runs(experiment_ids, filter_string, view_type=ViewType.ALL):
        is_marked = tags.STATUS in run.data.tags
        if include_unmarked or is_marked or run.data.tags.get(tags.PARENT_RUN_ID) in found_ids:
            found_ids.add(run.info.run_id)
            yield run


def get_runs(source: MlflowServer, run_ids: Sequence[str]) -> list[Run]:
    """Return runs by their ids, each once.

    Raises:
        MirrorError: The source has no run with that id.
    """
    runs = []
    for run_id in dict.fromkeys(run_ids):
        try:
            runs.append(source.get_run(run_id))
        except MlflowException as err:
            raise MirrorError(
                f"run must exist in {source.display_name}: got {run_id!r}; {first_line(err)}"
            ) from err
    return runs
