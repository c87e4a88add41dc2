"""The mirrored experiment of each source experiment: found by its id, whatever its name.

A tag of the experiment at the destination says for which experiment of the source it stands, by
the address of the source and the id. A Databricks workspace may have another address today. An
experiment that was mirrored before this tag was written is found by its name.
"""

from __future__ import annotations

from threading import RLock

from mlflow.entities import Experiment, ExperimentTag, ViewType
from mlflow.exceptions import MlflowException

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import RunMirrorError
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import one_line
from dbx_aml.models import lineage
from dbx_aml.tracking.mirror.server import MlflowServer

log = get_logger(__name__)


class MirroredExperiments:
    """Experiments of a destination by the id of their source experiment.

    Args:
        source: Server of the source experiments.
        destination: Server of the mirrored experiments.
    """

    def __init__(self, source: MlflowServer, destination: MlflowServer) -> None:
        self._source = source
        self._destination = destination
        self._lock = RLock()
        # Names at the destination after a refused change of the name.
        self._kept_names: set[str] = set()
        # By the tag of the source experiment; None before the first search.
        self._by_source: dict[str, Experiment] | None = None

    def destination_name(self, experiment_id: str) -> str:
        """Return the name that the mirrored experiment must have."""
        # Databricks accepts only paths, and names of Azure ML have none. In the other direction
        # the store of Azure ML turns a path into a name.
        name = self._source.experiment_name(experiment_id)
        if not self._destination.is_databricks or name.startswith("/"):
            return name
        return f"/Shared/{name}"

    def find_active(self, experiment_id: str) -> Experiment | None:
        """Return the mirrored experiment by its tag, without a call for this experiment alone."""
        with self._lock:
            experiment = self._find_by_tag(experiment_id)
        is_active = experiment is not None and experiment.lifecycle_stage == "active"
        return experiment if is_active else None

    def find(self, experiment_id: str) -> Experiment | None:
        """Return the mirrored experiment; None if the destination has none.

        Raises:
            RunMirrorError: The mirrored experiment is deleted.
        """
        with self._lock:
            experiment = self._find_by_tag(experiment_id)
            if experiment is None:
                experiment = self._destination.find_experiment(self.destination_name(experiment_id))
                tag = (experiment.tags if experiment else {}).get(lineage.SOURCE_EXPERIMENT_ID)
                if tag not in (None, self._source_tag(experiment_id)):
                    # It stands for another experiment, which had this name before.
                    return None
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise RunMirrorError(
                "experiment must not be deleted at the destination: got "
                f"{experiment.name!r}; restore it there"
            )
        return experiment

    def find_or_create(self, experiment_id: str) -> Experiment:
        """Return the mirrored experiment under the source's name; create a missing one."""
        with self._lock:
            experiment = self.find(experiment_id) or self._create(experiment_id)
            tag = self._source_tag(experiment_id)
            if lineage.SOURCE_EXPERIMENT_ID not in experiment.tags:
                self._destination.store.set_experiment_tag(
                    experiment.experiment_id, ExperimentTag(lineage.SOURCE_EXPERIMENT_ID, tag)
                )
                experiment._add_tag(ExperimentTag(lineage.SOURCE_EXPERIMENT_ID, tag))
                self._mirrored()[tag] = experiment
            self._rename(experiment, experiment_id)
            return experiment

    def update_name(self, experiment_id: str) -> None:
        """Give the mirrored experiment, if there is one, the name of its source experiment."""
        if self.find_active(experiment_id):
            self.find_or_create(experiment_id)

    def _rename(self, experiment: Experiment, experiment_id: str) -> None:
        name = self.destination_name(experiment_id)
        if experiment.name == name or experiment.name in self._kept_names:
            return
        try:
            self._destination.store.rename_experiment(experiment.experiment_id, name)
        except MlflowException as error:
            self._kept_names.add(experiment.name)
            log.warning(
                "experiment %r keeps its name at the destination, although it is %r now: %s",
                experiment.name,
                name,
                one_line(error, 300),
            )
        else:
            experiment._set_name(name)

    def _create(self, experiment_id: str) -> Experiment:
        store, name = self._destination.store, self.destination_name(experiment_id)
        tag = self._source_tag(experiment_id)
        other_tag = self._source_tag_of(name)
        if other_tag not in (None, tag) and other_tag.startswith(self._source_tag("")):
            # That experiment was renamed at the source, and this one has its old name.
            self.find_or_create(other_tag.removeprefix(self._source_tag("")))
            other_tag = self._source_tag_of(name)
        if other_tag not in (None, tag):
            name = f"{name}-{experiment_id}"
        own_tags = {**creation_tags(), lineage.SOURCE_EXPERIMENT_ID: tag}
        tags = [ExperimentTag(key, text) for key, text in own_tags.items()]
        try:
            created_id = store.create_experiment(name, artifact_location=None, tags=tags)
        except MlflowException as error:
            # Another process may have created it since the search.
            self._by_source = None
            existing = self.find(experiment_id)
            if existing is None:
                raise error
            return existing
        experiment: Experiment = store.get_experiment(created_id)
        self._mirrored()[tag] = experiment
        return experiment

    def _source_tag_of(self, name: str) -> str | None:
        """Return for which source experiment the destination's experiment of a name stands."""
        experiment = self._destination.find_experiment(name)
        return experiment.tags.get(lineage.SOURCE_EXPERIMENT_ID) if experiment else None

    def _find_by_tag(self, experiment_id: str) -> Experiment | None:
        experiment = self._mirrored().get(self._source_tag(experiment_id))
        if experiment is not None or not self._source.is_databricks:
            return experiment
        # Clusters may call the address of their region, people call the workspace itself. An
        # experiment of the same id and path is the same.
        name, end = self.destination_name(experiment_id), f" {experiment_id}"
        return next(
            (
                item
                for tag, item in self._mirrored().items()
                if tag.endswith(end) and item.name == name
            ),
            None,
        )

    def _mirrored(self) -> dict[str, Experiment]:
        if self._by_source is None:
            self._by_source = {
                experiment.tags[lineage.SOURCE_EXPERIMENT_ID]: experiment
                for experiment in self._destination.search_experiments(view_type=ViewType.ALL)
                if lineage.SOURCE_EXPERIMENT_ID in experiment.tags
            }
        return self._by_source

    def _source_tag(self, experiment_id: str) -> str:
        return f"{self._source.display_name} {experiment_id}"
