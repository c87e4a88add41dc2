"""Which runs are pending: the answer to a search for their tag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from dbx_aml._common.errors import MirrorError
from dbx_aml._common.text import first_line
from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.server import Side


def experiment_ids(src: Side, names: Sequence[str]) -> list[str]:
    """Return the identifiers of experiments by their names or paths; of all without any.

    Raises:
        MirrorError: There is no such experiment.
    """
    if not names:
        return [one.experiment_id for one in src.experiments()]
    found = []
    for name in names:
        experiment = src.store.get_experiment_by_name(name)
        if experiment is None:
            raise MirrorError(
                f"experiment must exist in {src.workspace}: got {name!r}; give its path as the "
                "experiment's page shows it"
            )
        found.append(str(experiment.experiment_id))
    return found


def pending(src: Side, experiments: Sequence[str], *, since: int | None = None) -> Iterator[Run]:
    """Yield the runs that wait to be mirrored, deleted ones too.

    A run that was done and runs again was resumed by a program that did not say so. Each search is
    over before its first run is given: servers count pages by what is pending at that moment.

    Args:
        src: The source.
        experiments: Identifiers.
        since: Only runs that were started at or after this time, ms since 1970.
    """
    state = f"tags.`{tag.STATE}`"
    waiting = _since(f"{state} = '{tag.PENDING}'", since)
    yield from list(src.runs(experiments, waiting, view=ViewType.ALL))
    resumed = f"{state} = '{tag.DONE}' and attributes.status = 'RUNNING'"
    yield from list(src.runs(experiments, _since(resumed, since)))


def every(src: Side, experiments: Sequence[str], *, since: int | None = None) -> Iterator[Run]:
    """Yield all runs of experiments, deleted ones too; see `pending`."""
    yield from src.runs(experiments, _since("", since), view=ViewType.ALL)


def is_same(run: Run) -> bool:
    """Tell whether a run is done, and as it was then, as far as a search tells."""
    tags = run.data.tags
    return bool(tags.get(tag.STATE) == tag.DONE and tags.get(tag.DIGEST) == tag.digest(run))


def by_id(src: Side, run_ids: Sequence[str]) -> list[Run]:
    """Return runs by their identifiers.

    Raises:
        MirrorError: There is no such run.
    """
    found = []
    for run_id in run_ids:
        try:
            found.append(src.run(run_id))
        except MlflowException as err:
            raise MirrorError(
                f"run must exist in {src.workspace}: got {run_id!r}; {first_line(err)}"
            ) from err
    return found


def _since(condition: str, since: int | None) -> str:
    if since is None:
        return condition
    started = f"attributes.start_time >= {since}"
    return f"{condition} and {started}" if condition else started
