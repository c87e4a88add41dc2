"""The run that mirrors a run: found by a tag of its own, or made, once.

`runs/create` makes a new run each time it is asked, also where its answer was lost. So the
destination is searched for the source's id before, and after: of two that were made at the same
moment the first by its id stays, whoever made it, and the other one is deleted.
"""

from __future__ import annotations

from threading import Lock

from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.errors import RunMirrorError, is_missing
from dbx_aml.tracking.mirror.params_and_tags import tags_for
from dbx_aml.tracking.mirror.server import Side

_DEEPEST = 20


class Targets:
    """Runs of a destination by the run that they mirror.

    Args:
        src: The source.
        dst: The destination.
    """

    def __init__(self, src: Side, dst: Side) -> None:
        self._src = src
        self._dst = dst
        self._lock = Lock()
        self._making: dict[str, Lock] = {}
        self._known: dict[str, str] = {}
        self._marked: set[str] = set()
        self._experiments: dict[str, tuple[str, str]] = {}
        self._id_tag = tag.mirror_id(dst.name)
        # Parents that nobody had marked, and that wait to be mirrored since their child was.
        self.unmarked: list[str] = []

    def find(self, run: Run) -> Run | None:
        """Return the run that mirrors a run; None where there is none."""
        known = run.data.tags.get(self._id_tag) or self._known.get(run.info.run_id)
        found = self._valid(known, run.info.run_id) if known else None
        if found is None:
            others = self._all(run)
            first = min((one.info.run_id for one in others), default=None)
            found = self._dst.run(first) if first else None
        return found

    def of(self, run: Run, *, is_new: bool = False, depth: int = 0) -> Run:
        """Return the run that mirrors a run, made where there is none.

        Args:
            run: Of the source.
            is_new: `find` has just found none.
            depth: Of its children that wait for it.
        """
        run_id = run.info.run_id
        with self._lock:
            making = self._making.setdefault(run_id, Lock())
        # Its children ask for it too.
        with making:
            is_new = is_new and run_id not in self._known
            found = (None if is_new else self.find(run)) or self._made(run, depth)
            self._known[run_id] = found.info.run_id
            # Azure ML's search may be late. Elsewhere a run that is over gets it with the rest.
            is_known = found.info.run_id == run.data.tags.get(self._id_tag)
            if not is_known and (self._dst.is_azureml or not tag.is_over(run)):
                made = RunTag(self._id_tag, found.info.run_id)
                self._src.store.set_tag(run_id, made)
                run.data.tags[self._id_tag] = found.info.run_id
            return found

    def is_mirror(self, target_id: str, run_id: str) -> bool:
        """Tell whether a run of the destination mirrors a run, and is not deleted."""
        return self._valid(target_id, run_id) is not None

    def settle(self, run: Run, target: Run, parent: str | None) -> bool:
        """Tell whether a run's mirror is the only one; delete others that two programs made.

        Args:
            run: Of the source.
            target: Its mirror.
            parent: What was taken for the mirror of its parent.
        """
        found = self._all(run)
        is_listed = target.info.run_id in {one.info.run_id for one in found}
        if not is_listed and not self.is_mirror(target.info.run_id, run.info.run_id):
            # The other program was faster.
            return False
        first = min({target.info.run_id, *(one.info.run_id for one in found)})
        for one in found:
            if one.info.run_id != first:
                self._move_children(one, first)
                self._dst.store.delete_run(one.info.run_id)
        if first != target.info.run_id:
            self._src.store.set_tag(run.info.run_id, RunTag(self._id_tag, first))
            return False
        return parent is None or self.parent_of(run, make=False) == parent

    def _move_children(self, target: Run, parent: str) -> None:
        condition = f"tags.`{tag.PARENT}` = '{target.info.run_id}'"
        for child in list(self._dst.runs([target.info.experiment_id], condition)):
            self._dst.store.set_tag(child.info.run_id, RunTag(tag.PARENT, parent))

    def parent_of(self, run: Run, *, make: bool = True, depth: int = 0) -> str | None:
        """Return the mirror of a run's parent; None where it has none, or it is gone.

        Args:
            run: Of the source.
            make: Make it where there is none; else None is returned then.
            depth: Of its children that wait for it.
        """
        parent_id = run.data.tags.get(tag.PARENT)
        if not parent_id or depth > _DEEPEST:
            return None
        try:
            parent = self._src.run(parent_id)
        except MlflowException as error:
            if not is_missing(error):
                raise
            return None
        if not make or parent.info.lifecycle_stage != "active":
            found = self.find(parent)
            return found.info.run_id if found else None
        if tag.STATE not in parent.data.tags:
            self._mark(parent_id)
        return str(self.of(parent, depth=depth + 1).info.run_id)

    def _mark(self, parent_id: str) -> None:
        """Mark a run that was made before the link was, or its child would hang from a shell."""
        with self._lock:
            # Two children at once would set one tag twice, which MLflow's own server refuses.
            if parent_id in self._marked:
                return
            self._marked.add(parent_id)
        self._src.store.set_tag(parent_id, RunTag(tag.STATE, tag.PENDING))
        self.unmarked.append(parent_id)

    def experiment(self, experiment_id: str) -> tuple[str, str]:
        """Return the destination's experiment for one of the source, made where there is none.

        Args:
            experiment_id: Of the source.

        Returns:
            Its identifier, and the name of the source's.

        Raises:
            RunMirrorError: It is deleted at the destination.
        """
        with self._lock:
            known = self._experiments.get(experiment_id)
            if known is None:
                name = self._src.store.get_experiment(experiment_id).name
                found = self._found(name) or self._made_experiment(name)
                known = self._experiments[experiment_id] = (found, name)
            return known

    def _known_experiment(self, experiment_id: str) -> str | None:
        """Return the destination's experiment for one of the source, None where there is none."""
        with self._lock:
            known = self._experiments.get(experiment_id)
        if known:
            return known[0]
        return self._found(self._src.store.get_experiment(experiment_id).name)

    def _found(self, name: str) -> str | None:
        found = self._dst.store.get_experiment_by_name(self._name_at_destination(name))
        if found is not None and found.lifecycle_stage != "active":
            raise RunMirrorError(
                f"experiment must not be deleted at the destination: got {name!r}; restore it there"
            )
        return str(found.experiment_id) if found else None

    def _made_experiment(self, name: str) -> str:
        accepted = self._name_at_destination(name)
        try:
            made = self._dst.store.create_experiment(accepted, artifact_location=None, tags=[])
        except MlflowException as error:
            # Somebody else was faster.
            found = self._found(name)
            if found is None:
                raise error
            return found
        return str(made)

    def _name_at_destination(self, name: str) -> str:
        # Azure ML's own are bare, Databricks takes only paths; our store maps the other way.
        return name if not self._dst.is_databricks or name.startswith("/") else f"/Shared/{name}"

    def _valid(self, target_id: str, run_id: str) -> Run | None:
        """Return a run of the destination, None where it is no mirror of this run any more."""
        try:
            found = self._dst.run(target_id)
        except MlflowException as error:
            if not is_missing(error):
                raise
            return None
        is_mirror = found.data.tags.get(tag.SOURCE_RUN) == run_id
        return found if is_mirror and found.info.lifecycle_stage == "active" else None

    def _all(self, run: Run) -> list[Run]:
        experiment = self._known_experiment(run.info.experiment_id)
        if experiment is None:
            return []
        condition = f"tags.`{tag.SOURCE_RUN}` = '{run.info.run_id}'"
        return list(self._dst.runs([experiment], condition))

    def _made(self, run: Run, depth: int) -> Run:
        experiment = self.experiment(run.info.experiment_id)
        parent = self.parent_of(run, depth=depth)
        tags = {**self.origin(run, experiment[1]), **tags_for(self._dst, run, parent)}
        made: Run = self._dst.store.create_run(
            experiment_id=experiment[0],
            user_id=run.info.user_id or run.data.tags.get("mlflow.user", ""),
            start_time=run.info.start_time,
            tags=[RunTag(key, text) for key, text in tags.items()],
            run_name=run.info.run_name,
        )
        return made

    def origin(self, run: Run, experiment: str) -> dict[str, str]:
        """Return the tags that tell at the destination where a run is from."""
        found = {
            tag.SOURCE_RUN: run.info.run_id,
            tag.SOURCE_EXPERIMENT: experiment,
            tag.SOURCE_WORKSPACE: self._src.workspace,
            tag.SOURCE_URL: self._src.url(run),
            tag.SOURCE_USER: run.data.tags.get("mlflow.user") or run.info.user_id,
            tag.SOURCE_PARENT: run.data.tags.get(tag.PARENT),
        }
        return {key: str(text) for key, text in found.items() if text}
