"""Searches for the runs to mirror: pending runs, all runs, runs by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from dbx_aml._common.errors import MirrorError
from dbx_aml._common.text import first_line
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.server import MlflowServer


def find_experiment_ids(source: MlflowServer, names: Sequence[str]) -> list[str]:
    """Return the ids of experiments by their names or paths; without names, of all experiments.

    Raises:
        MirrorError: The source has no experiment of that name.
    """
    if not names:
        return [experiment.experiment_id for experiment in source.search_experiments()]
    experiment_ids = []
    for name in names:
        experiment = source.store.get_experiment_by_name(name)
        if experiment is None:
            raise MirrorError(
                f"experiment must exist in {source.display_name}: got {name!r}; give its path as "
                "the experiment's page shows it"
            )
        experiment_ids.append(str(experiment.experiment_id))
    return experiment_ids


def pending_runs(
    source: MlflowServer, experiment_ids: Sequence[str], *, since: int | None = None
) -> Iterator[Run]:
    """Yield the pending runs of experiments, also deleted runs.

    A run that is done and has the status RUNNING was resumed by a program that does not set the
    tag; it counts as pending. Each search reads all its pages before the first run is yielded:
    mirroring changes the tag, and with it the pages that follow.

    Args:
        source: Server of the runs.
        experiment_ids: Ids on the source.
        since: Earliest start time of a run, ms since 1970.
    """
    pending = f"tags.`{tags.STATUS}` = '{tags.PENDING}'"
    yield from list(
        source.search_runs(experiment_ids, _add_since(pending, since), view_type=ViewType.ALL)
    )
    resumed = f"tags.`{tags.STATUS}` = '{tags.DONE}' and attributes.status = 'RUNNING'"
    yield from list(source.search_runs(experiment_ids, _add_since(resumed, since)))


def all_runs(
    source: MlflowServer, experiment_ids: Sequence[str], *, since: int | None = None
) -> Iterator[Run]:
    """Yield all runs of experiments, also deleted runs; arguments as for `pending_runs`."""
    yield from source.search_runs(experiment_ids, _add_since("", since), view_type=ViewType.ALL)


def is_up_to_date(source_run: Run, destination: MlflowServer) -> bool:
    """Tell whether a run is done and has not changed since, as far as a search can tell."""
    run_tags = source_run.data.tags
    digest = run_tags.get(tags.DestinationTags(destination.name).digest)
    return bool(run_tags.get(tags.STATUS) == tags.DONE and digest == tags.run_digest(source_run))


def get_runs(source: MlflowServer, run_ids: Sequence[str]) -> list[Run]:
    """Return runs by their ids.

    Raises:
        MirrorError: The source has no run with that id.
    """
    runs = []
    for run_id in run_ids:
        try:
            runs.append(source.get_run(run_id))
        except MlflowException as err:
            raise MirrorError(
                f"run must exist in {source.display_name}: got {run_id!r}; {first_line(err)}"
            ) from err
    return runs


def _add_since(filter_string: str, since: int | None) -> str:
    if since is None:
        return filter_string
    started = f"attributes.start_time >= {since}"
    return f"{filter_string} and {started}" if filter_string else started
