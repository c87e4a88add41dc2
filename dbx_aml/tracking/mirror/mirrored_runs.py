"""The mirrored run of each source run: found by a tag, or created once.

`runs/create` creates a new run at each call, also if the answer to an earlier call was lost. So
the destination is searched for the source run's id before and after the creation. Of two runs
that two processes created at the same moment, the run with the lower id stays.
"""

from __future__ import annotations

from threading import Lock

from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import is_not_found
from dbx_aml.models import lineage
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.experiments import MirroredExperiments
from dbx_aml.tracking.mirror.run_data import expected_tags
from dbx_aml.tracking.mirror.server import MlflowServer

_MAX_DEPTH = 20


class MirroredRuns:
    """Runs of a destination by their source run.

    Args:
        source: Server of the source runs.
        destination: Server of the mirrored runs.
        experiments: Experiments that the caller has read already.

    Attributes:
        newly_marked_ids: Runs without the tag `dbx_aml.mirror` that were marked because a child
            or a logged model was mirrored, and that are still to be mirrored themselves.
    """

    def __init__(
        self,
        source: MlflowServer,
        destination: MlflowServer,
        experiments: MirroredExperiments | None = None,
    ) -> None:
        self._source = source
        self._destination = destination
        self._run_id_tag = tags.DestinationTags(destination.name).run_id
        self._lock = Lock()
        self._creation_locks: dict[str, Lock] = {}
        # By source run id.
        self._mirrored_run_ids: dict[str, str] = {}
        self._marked_ids: set[str] = set()
        self.experiments = experiments or MirroredExperiments(source, destination)
        self.newly_marked_ids: list[str] = []

    def find(self, source_run: Run) -> Run | None:
        """Return the mirrored run of a source run, or None."""
        run_id = source_run.info.run_id
        cached_id = source_run.data.tags.get(self._run_id_tag) or self._mirrored_run_ids.get(run_id)
        mirrored_run = self._get_mirror(cached_id, run_id) if cached_id else None
        if mirrored_run is None:
            copies = self._search_copies(source_run)
            first_id = min((copy.info.run_id for copy in copies), default=None)
            mirrored_run = self._destination.get_run(first_id) if first_id else None
        return mirrored_run

    def find_or_create(self, source_run: Run, *, is_new: bool = False, depth: int = 0) -> Run:
        """Return the mirrored run of a source run; create it if the destination lacks it.

        Args:
            source_run: Run on the source.
            is_new: Whether `find` has just returned None for the run.
            depth: Number of child runs that wait for this parent.
        """
        run_id = source_run.info.run_id
        with self._lock:
            creation_lock = self._creation_locks.setdefault(run_id, Lock())
        # Its children may look for it at the same time.
        with creation_lock:
            mirrored_run = None
            if not is_new or run_id in self._mirrored_run_ids:
                mirrored_run = self.find(source_run)
            mirrored_run = mirrored_run or self._create(source_run, depth)
            mirrored_id = mirrored_run.info.run_id
            self._mirrored_run_ids[run_id] = mirrored_id
            # Azure ML's search may miss a new run, so the source keeps the id at once. Elsewhere
            # a run that has ended gets the tag together with its other tags.
            is_tagged = mirrored_id == source_run.data.tags.get(self._run_id_tag)
            if not is_tagged and (
                self._destination.is_azureml or not tags.is_terminated(source_run)
            ):
                self._source.store.set_tag(run_id, RunTag(self._run_id_tag, mirrored_id))
                source_run.data.tags[self._run_id_tag] = mirrored_id
            return mirrored_run

    def is_mirror(self, mirrored_id: str, source_run_id: str) -> bool:
        """Tell whether a run of the destination mirrors a source run and is not deleted."""
        return self._get_mirror(mirrored_id, source_run_id) is not None

    def delete_duplicates(self, source_run: Run, mirrored_run: Run, parent_id: str | None) -> bool:
        """Delete further mirrored runs that two processes created for one source run.

        Args:
            source_run: Run on the source.
            mirrored_run: Run on the destination that this process wrote to.
            parent_id: Parent on the destination that this process set.

        Returns:
            Whether the mirrored run and its parent stay, and no other run was deleted. Else the
            caller has to bring the run that stays up to date.
        """
        mirrored_id = mirrored_run.info.run_id
        copies = self._search_copies(source_run)
        is_listed = mirrored_id in {copy.info.run_id for copy in copies}
        if not is_listed and not self.is_mirror(mirrored_id, source_run.info.run_id):
            # Another process deleted it first.
            return False
        kept_id = min({mirrored_id, *(copy.info.run_id for copy in copies)})
        for copy in copies:
            if copy.info.run_id != kept_id:
                self._move_children(copy, kept_id)
                self._destination.store.delete_run(copy.info.run_id)
        if len(copies) > 1 or kept_id != mirrored_id:
            self._source.store.set_tag(source_run.info.run_id, RunTag(self._run_id_tag, kept_id))
            return False
        return parent_id is None or self.find_parent_id(source_run) == parent_id

    def _move_children(self, mirrored_run: Run, parent_id: str) -> None:
        children = self._destination.search_runs(
            [mirrored_run.info.experiment_id],
            f"tags.`{tags.PARENT_RUN_ID}` = '{mirrored_run.info.run_id}'",
        )
        for child in list(children):
            self._destination.store.set_tag(
                child.info.run_id, RunTag(tags.PARENT_RUN_ID, parent_id)
            )

    def find_parent_id(self, source_run: Run) -> str | None:
        """Return the id of the parent's mirrored run, or None."""
        parent_id = source_run.data.tags.get(tags.PARENT_RUN_ID)
        parent = _get_run_or_none(self._source, parent_id) if parent_id else None
        mirrored_parent = self.find(parent) if parent else None
        return mirrored_parent.info.run_id if mirrored_parent else None

    def find_or_create_parent_id(self, source_run: Run, *, depth: int = 0) -> str | None:
        """Return the id of the parent's mirrored run; create it if the destination lacks it.

        Args:
            source_run: Run on the source.
            depth: Number of child runs that wait for this run.

        Returns:
            None for a run without a parent, and for a deleted parent that was never mirrored.
        """
        parent_id = source_run.data.tags.get(tags.PARENT_RUN_ID)
        if not parent_id or depth > _MAX_DEPTH:
            return None
        return self.find_or_create_id(parent_id, depth=depth + 1)

    def find_or_create_id(self, source_run_id: str, *, depth: int = 0) -> str | None:
        """Return the id of the mirrored run of a run that another run or a logged model names.

        Args:
            source_run_id: Id of the run on the source.
            depth: Number of child runs that wait for this run.

        Returns:
            None for a run that the source lacks, and for a deleted run that was never mirrored.
        """
        source_run = _get_run_or_none(self._source, source_run_id)
        if source_run is None:
            return None
        if source_run.info.lifecycle_stage != "active":
            mirrored_run = self.find(source_run)
            return mirrored_run.info.run_id if mirrored_run else None
        if tags.STATUS not in source_run.data.tags:
            self._mark(source_run_id)
        return str(self.find_or_create(source_run, depth=depth).info.run_id)

    def _mark(self, run_id: str) -> None:
        """Mark a run that is older than the link; unmarked, its mirrored run stays empty."""
        with self._lock:
            # MLflow's own server refuses two requests that set one tag at the same moment.
            if run_id in self._marked_ids:
                return
            self._marked_ids.add(run_id)
        self._source.store.set_tag(run_id, RunTag(tags.STATUS, tags.PENDING))
        self.newly_marked_ids.append(run_id)

    def _get_mirror(self, mirrored_id: str, source_run_id: str) -> Run | None:
        """Return a run of the destination; None unless it is active and mirrors the source run."""
        run = _get_run_or_none(self._destination, mirrored_id)
        if run is None or run.info.lifecycle_stage != "active":
            return None
        return run if run.data.tags.get(lineage.SOURCE_RUN_ID) == source_run_id else None

    def _search_copies(self, source_run: Run) -> list[Run]:
        experiment = self.experiments.find(source_run.info.experiment_id)
        if experiment is None:
            return []
        filter_string = f"tags.`{lineage.SOURCE_RUN_ID}` = '{source_run.info.run_id}'"
        return list(self._destination.search_runs([experiment.experiment_id], filter_string))

    def _create(self, source_run: Run, depth: int) -> Run:
        experiment = self.experiments.find_or_create(source_run.info.experiment_id)
        parent_id = self.find_or_create_parent_id(source_run, depth=depth)
        run_tags = {
            **creation_tags(),
            **self._source_tags(source_run),
            # From the start, so that a full run of Azure ML has room for it.
            lineage.SOURCE_DIGEST: "none",
            **expected_tags(self._destination, source_run, parent_id),
        }
        run: Run = self._destination.store.create_run(
            experiment_id=experiment.experiment_id,
            user_id=source_run.info.user_id or source_run.data.tags.get("mlflow.user", ""),
            start_time=source_run.info.start_time,
            tags=[RunTag(key, value) for key, value in run_tags.items()],
            run_name=source_run.info.run_name,
        )
        return run

    def _source_tags(self, source_run: Run) -> dict[str, str]:
        """Return the tags that tell at the destination from where a run was mirrored."""
        user = source_run.data.tags.get("mlflow.user") or source_run.info.user_id
        values = {
            lineage.SOURCE_RUN_ID: source_run.info.run_id,
            lineage.SOURCE_EXPERIMENT: self._source.experiment_name(source_run.info.experiment_id),
            lineage.SOURCE_WORKSPACE: self._source.display_name,
            lineage.SOURCE_URL: self._source.run_url(source_run),
            lineage.SOURCE_USER: user,
            lineage.SOURCE_PARENT_RUN_ID: source_run.data.tags.get(tags.PARENT_RUN_ID),
        }
        return {key: str(value) for key, value in values.items() if value}


def _get_run_or_none(server: MlflowServer, run_id: str) -> Run | None:
    try:
        return server.get_run(run_id)
    except MlflowException as error:
        if not is_not_found(error):
            raise
        return None
