"""Which source runs have changed since they were mirrored, by searches alone.

The digest of a source run as it was mirrored is a tag of the mirrored run. So a run that was
mirrored to one destination counts as new at another one, and a change counts, whoever made it. A
search tells nothing about artifacts, nor about points that are not the last of their metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any

from mlflow.entities import Run

from dbx_aml.models import lineage
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.experiments import MirroredExperiments
from dbx_aml.tracking.mirror.logged_models import copies_by_source, models_by_run
from dbx_aml.tracking.mirror.server import MlflowServer


class RunStates:
    """States of the runs of some experiments at one destination.

    Args:
        source: Server of the source runs.
        destination: Server of the mirrored runs.
        experiment_ids: Ids of the experiments at the source.

    Attributes:
        experiments: Mirrored experiments.
    """

    def __init__(
        self, source: MlflowServer, destination: MlflowServer, experiment_ids: Sequence[str]
    ) -> None:
        self.experiment_ids = list(experiment_ids)
        self.experiments = MirroredExperiments(source, destination)
        self._source = source
        self._destination = destination
        self._lock = Lock()
        self._copies: dict[str, dict[str | None, Any]] = {}

    @cached_property
    def models(self) -> dict[str | None, list[Any]]:
        """Logged models of the source by the id of their run; None for models without a run."""
        return models_by_run(self._source, self.experiment_ids)

    @cached_property
    def _mirrored(self) -> dict[str, tuple[str, str]]:
        """Ids and digests of the mirrored runs by the ids of their source runs."""
        mirrored = [
            self.experiments.find_active(experiment_id) for experiment_id in self.experiment_ids
        ]
        mirrored_ids = [experiment.experiment_id for experiment in mirrored if experiment]
        return {
            run.data.tags[lineage.SOURCE_RUN_ID]: (
                run.info.run_id,
                run.data.tags.get(lineage.SOURCE_DIGEST, ""),
            )
            for run in self._destination.stored_runs(mirrored_ids)
            if lineage.SOURCE_RUN_ID in run.data.tags
        }

    def mirrored_run_id(self, source_run: Run) -> str | None:
        """Return the id of the mirrored run, or None."""
        with self._lock:
            return self._mirrored.get(source_run.info.run_id, (None, ""))[0]

    def copies_without_run(
        self, experiment_id: str, *, is_read_again: bool = False
    ) -> dict[str | None, Any]:
        """Return the copies of models without a run in an experiment of the destination.

        Args:
            experiment_id: Id of the experiment at the destination.
            is_read_again: Whether copies count that were made since the last call.
        """
        if is_read_again or experiment_id not in self._copies:
            models = models_by_run(self._destination, [experiment_id]).get(None, [])
            self._copies[experiment_id] = copies_by_source(models)
        return self._copies[experiment_id]

    def is_unchanged(self, source_run: Run) -> bool:
        """Tell whether a source run is as it was when it was mirrored, as a search shows it."""
        with self._lock:
            models = self.models.get(source_run.info.run_id, [])
            digest = self._mirrored.get(source_run.info.run_id, ("", ""))[1]
            return digest == tags.run_digest(source_run, models)
