"""One run, whole: what the destination lacks is written, both are compared, then it is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from mlflow.entities import Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.mirror import artifacts as file
from dbx_aml.tracking.mirror import logged_models as model
from dbx_aml.tracking.mirror import metrics as point
from dbx_aml.tracking.mirror import params_and_tags as fields
from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.errors import RunMirrorError, is_denied, is_lasting
from dbx_aml.tracking.mirror.lease import Lease, Leases
from dbx_aml.tracking.mirror.mirrored_runs import Targets
from dbx_aml.tracking.mirror.server import Side

log = logging.getLogger(__name__)
_LONGEST_REASON = 400
# A source that changes while it is read is read again.
_ROUNDS = 3
_NOT_OURS = frozenset({"mlflow.user"})


@dataclass(kw_only=True)
class Outcome:
    """What became of one run.

    Args:
        run_id: Of the source.
        name: Of the run.
        experiment_id: Of the source.
        state: "done", "same" (it was, and still is), "running" (up to date, not over), "held"
            (another process is at it), "deleted" (at the source), "pending" (it could not be
            finished for now) or "failed".
        reason: Why it is in this state, where that is not plain.
        target_id: The run at the destination.
        points: Of metrics that were written.
        bytes: Of artifacts that were written.
    """

    run_id: str
    name: str
    experiment_id: str
    state: str = tag.PENDING
    reason: str = ""
    target_id: str | None = None
    points: int = 0
    bytes: int = 0
    error: Exception | None = field(default=None, repr=False)

    @classmethod
    def of(cls, run: Run) -> Outcome:
        """Return the outcome of a run with which nothing was done yet."""
        return cls(
            run_id=run.info.run_id,
            name=run.info.run_name or "",
            experiment_id=run.info.experiment_id,
        )


class Copier:
    """Copies runs of a source to a destination.

    Args:
        src: The source.
        dst: The destination.
        lanes: For several metrics of a run at once; see `point.copy`.
        nonce: Of its leases, where others have to know it.
    """

    def __init__(
        self, src: Side, dst: Side, *, lanes: Executor | None = None, nonce: str | None = None
    ) -> None:
        self.src = src
        self.dst = dst
        self.leases = Leases(src, nonce)
        self.targets = Targets(src, dst)
        self._lanes = lanes

    def mirror(
        self,
        run: Run,
        *,
        wrote_points: Callable[[int], None] | None = None,
        wrote_bytes: Callable[[int], None] | None = None,
    ) -> Outcome:
        """Bring one run up to date at the destination, and say in its tags how that went.

        Args:
            run: Of the source, as some search has found it.
            wrote_points: Called with numbers of points as they are written.
            wrote_bytes: Called with numbers of bytes as they are written.

        Returns:
            The outcome, with the error that kept the run from being done, if one did.
        """
        outcome = Outcome.of(run)

        def points(count: int) -> None:
            outcome.points += count
            if wrote_points:
                wrote_points(count)

        def size(count: int) -> None:
            outcome.bytes += count
            if wrote_bytes:
                wrote_bytes(count)

        if run.info.lifecycle_stage != "active":
            self._note_deletion(run, outcome)
            return outcome
        try:
            before = Lease.parse(run.data.tags.get(tag.LEASE))
            taken, is_new = self.take(run)
            if taken is None:
                outcome.state = "held"
                outcome.reason = f"{before.holder if before else 'another process'} is at it"
                return outcome
            self._mirror(taken, outcome, points, size, is_new=is_new)
        except Exception as error:  # noqa: BLE001 - one run that fails stops no other
            self._give_up(run, outcome, error)
        return outcome

    def take(self, run: Run) -> tuple[Run | None, bool]:
        """Return a run as it is now that it is ours to mirror; None where another is at work.

        Returns:
            The run, and whether it has no mirror yet.
        """
        if not self.leases.claim(run.info.run_id):
            return None, False
        is_new = self.targets.find(run) is None
        return self.leases.confirm(run.info.run_id), is_new

    def _mirror(
        self,
        run: Run,
        outcome: Outcome,
        points: Callable[[int], None],
        size: Callable[[int], None],
        *,
        is_new: bool,
    ) -> None:
        for _ in range(_ROUNDS):
            parent = self.targets.parent_of(run)
            target = self.targets.of(run, is_new=is_new)
            is_new = False
            outcome.target_id = target.info.run_id
            told = tag.digest(run)
            wanted = fields.tags_for(self.dst, run, parent)
            if tag.SOURCE_STAGE in target.data.tags:
                # It was deleted, and restored.
                wanted[tag.SOURCE_STAGE] = run.info.lifecycle_stage
            is_over = tag.is_over(run)
            try:
                problems = self.data(run, target, wanted, points)
                if is_over or self.leases.is_abandoned(run.info.run_id):
                    problems += self.files(run, target, size)
                problems += self._finished(run, target, wanted)
            except MlflowException:
                if self.targets.is_mirror(target.info.run_id, run.info.run_id):
                    raise
                # Two programs made one each, and the other one's stays.
                run = self.src.run(run.info.run_id)
                continue
            now = self.src.run(run.info.run_id)
            if not self.leases.is_ours(now):
                outcome.state, outcome.reason = "held", "another process has taken it over"
                return
            if tag.digest(now) == told and self.targets.settle(now, target, parent):
                if problems:
                    raise RunMirrorError("; ".join(problems))
                outcome.state = tag.DONE if is_over else "running"
                self._close(now, outcome, told)
                return
            run = self.src.run(run.info.run_id)
        outcome.reason = "the run changes while it is read"
        self._close(run, outcome, "")

    def data(
        self, run: Run, target: Run, tags: dict[str, str], wrote: Callable[[int], None]
    ) -> list[str]:
        """Copy params, tags, datasets and metrics; return the differences that stay."""
        fields.copy(self.dst, run, target, tags)
        model.copy_datasets(self.dst, run, target)
        return point.copy(self.src, self.dst, run, target, lanes=self._lanes, wrote=wrote)

    def files(self, run: Run, target: Run, wrote: Callable[[int], None]) -> list[str]:
        """Copy artifacts and logged models; return the differences that stay."""
        models = model.models_of(self.src, run)
        inside = model.folders_of(models, run)
        source = self.src.repository(run.info.artifact_uri)
        wanted = {
            path: size for path, size in file.sizes(source).items() if not path.startswith(inside)
        }
        problems = []
        if wanted:
            destination = self.dst.repository(target.info.artifact_uri)
            missing = file.missing(wanted, file.sizes(destination))
            if missing:
                file.copy(source, destination, missing, wrote=wrote)
                left = sorted(file.missing(wanted, file.sizes(destination)))
                if left:
                    problems.append(f"artifacts must be at the destination: missing {left[:5]}")
        return problems + model.copy_models(self.src, self.dst, run, target, wrote=wrote)

    def _finished(self, run: Run, target: Run, wanted: dict[str, str]) -> list[str]:
        """Copy name, status and end; return which params and tags differ nevertheless."""
        info, has = run.info, target.info
        if (info.status, info.end_time, info.run_name) != (has.status, has.end_time, has.run_name):
            self.dst.store.update_run_info(
                has.run_id, RunStatus.from_string(info.status), info.end_time, info.run_name
            )
        now = self.dst.run(has.run_id)
        tags = [one.key for one in fields.missing_tags(wanted, now) if one.key not in _NOT_OURS]
        params = [one.key for one in fields.missing_params(run, now)]
        datasets = [one.dataset.name for one in model.missing_datasets(run, now)]
        return [
            f"{what} must be at the destination: missing {sorted(keys)[:5]}"
            for what, keys in (("tags", tags), ("params", params), ("datasets", datasets))
            if keys
        ] + ([] if now.info.status == info.status else [f"status must be {info.status}"])

    def _close(self, run: Run, outcome: Outcome, told: str) -> None:
        tags = [
            RunTag(tag.STATE, tag.DONE if outcome.state == tag.DONE else tag.PENDING),
            RunTag(tag.mirror_id(self.dst.name), str(outcome.target_id)),
            RunTag(tag.DIGEST, told),
            self.leases.let_go(run.info.run_id),
        ]
        if run.data.tags.get(tag.ERROR):
            tags.append(RunTag(tag.ERROR, "none"))
        self.src.store.log_batch(run.info.run_id, [], [], tags)

    def _give_up(self, run: Run, outcome: Outcome, error: Exception) -> None:
        """Say why a run is not done, as far as the source takes it."""
        outcome.error = error
        outcome.state = tag.FAILED if is_lasting(error) else tag.PENDING
        outcome.reason = " ".join((str(error) or type(error).__name__).split())[:_LONGEST_REASON]
        log.debug("failed to mirror run=%s", run.info.run_id, exc_info=error)
        lease = self.leases.let_go(run.info.run_id)
        try:
            if not self.leases.is_ours(self.src.run(run.info.run_id)):
                outcome.state, outcome.error = "held", None
                return
            # One that was taken over keeps the mark of that until it is through.
            tags = [] if self.leases.is_abandoned(run.info.run_id) else [lease]
            if not is_denied(error):
                tags += [RunTag(tag.STATE, outcome.state), RunTag(tag.ERROR, outcome.reason)]
            self.src.store.log_batch(run.info.run_id, [], [], tags)
        except MlflowException as second:
            # Still pending then, and its lease ends by itself.
            log.debug("failed to say so run=%s: %s", run.info.run_id, second)

    def _note_deletion(self, run: Run, outcome: Outcome) -> None:
        """Say at the destination that the source is deleted; what was mirrored stays."""
        outcome.state = "deleted"
        outcome.reason = "it was deleted at the source; nothing is deleted at the destination"
        try:
            target = self.targets.find(run)
            if target is None:
                outcome.reason = "it was deleted at the source before it was mirrored"
                return
            outcome.target_id = target.info.run_id
            if target.data.tags.get(tag.SOURCE_STAGE) != "deleted":
                stage = RunTag(tag.SOURCE_STAGE, "deleted")
                self.dst.store.set_tag(target.info.run_id, stage)
        except (MlflowException, RunMirrorError) as error:
            outcome.error, outcome.reason = error, str(error)
