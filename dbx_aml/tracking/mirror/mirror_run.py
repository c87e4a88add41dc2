"""Mirroring a run: read the source, find or create the copy, compare, write, verify, record.

Metrics and files are too large to compare first. They are compared while they are read from the
source. A run that has changed by the end of its mirroring is read again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from mlflow.entities import Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from dbx_aml._common.errors import RunMirrorError, is_permission_denied, is_retryable
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import one_line
from dbx_aml.models import lineage
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.artifacts import copy_files, list_files
from dbx_aml.tracking.mirror.experiments import MirroredExperiments
from dbx_aml.tracking.mirror.lease import Lease, Leases
from dbx_aml.tracking.mirror.logged_models import (
    LoggedModelMirror,
    logged_models_of_run,
    model_folders,
)
from dbx_aml.tracking.mirror.metrics import copy_metrics
from dbx_aml.tracking.mirror.mirrored_runs import MirroredRuns
from dbx_aml.tracking.mirror.run_data import different_values, expected_tags, write_data
from dbx_aml.tracking.mirror.server import MlflowServer, repeat_refused_write

log = get_logger(__name__)
_MAX_REASON_CHARS = 400
# A source run that changes while it is mirrored is read again.
_MAX_ROUNDS = 3

MirrorStatus = Literal["done", "unchanged", "running", "locked", "deleted", "pending", "failed"]
# Function that gets the name of a counter of `MirrorResult` and the amount that was written.
OnWritten = Callable[[str, int], None]


@dataclass(kw_only=True)
class MirrorResult:
    """Result of mirroring one run.

    Args:
        run_id: Id of the source run, or of a logged model without a run.
        name: Name of the run.
        experiment_id: Id of the source run's experiment.
        status: "done"; "unchanged" (done before, and searches show no change since; artifacts
            were not compared); "running" (up to date, the run has not ended); "locked" (another
            process mirrors it); "deleted" (at the source); "pending" (an outage, a later try may
            succeed); "failed" (a later try fails too).
        reason: Reason for the status, empty for "done" and "unchanged".
        destination_run_id: Id of the mirrored run, None before it was created.
        metric_points: Number of points of metrics that were written.
        artifact_bytes: Bytes of artifacts that were written.
        error: Error that kept the run from being done.
    """

    run_id: str
    name: str
    experiment_id: str
    status: MirrorStatus = "pending"
    reason: str = ""
    destination_run_id: str | None = None
    metric_points: int = 0
    artifact_bytes: int = 0
    error: Exception | None = field(default=None, repr=False)

    @classmethod
    def from_run(cls, source_run: Run) -> MirrorResult:
        """Return the result of a run before anything was mirrored."""
        return cls(
            run_id=source_run.info.run_id,
            name=source_run.info.run_name or "",
            experiment_id=source_run.info.experiment_id,
        )


class RunMirror:
    """Mirrors runs of a source to a destination.

    Args:
        source: Server of the source runs.
        destination: Server of the mirrored runs.
        metric_pool: Threads for several metrics of a run at once, see `copy_metrics`.
        nonce: Random text of the leases, for a caller that sets leases itself.
        experiments: Experiments that the caller has read already.
        compares_content: Whether files that are there already are compared by content.
    """

    def __init__(
        self,
        source: MlflowServer,
        destination: MlflowServer,
        *,
        metric_pool: Executor | None = None,
        nonce: str | None = None,
        experiments: MirroredExperiments | None = None,
        compares_content: bool = False,
    ) -> None:
        self.source = source
        self.destination = destination
        self.leases = Leases(source, nonce)
        self.mirrored_runs = MirroredRuns(source, destination, experiments)
        self._tags = tags.DestinationTags(destination.name)
        self._metric_pool = metric_pool
        self.compares_content = compares_content
        self.logged_models = LoggedModelMirror(
            source, destination, self.mirrored_runs.find_or_create_id
        )

    def mirror(self, source_run: Run, on_written: OnWritten = lambda _, __: None) -> MirrorResult:
        """Bring the mirrored run of one source run up to date, and record the result in tags.

        Args:
            source_run: Run on the source, as a search returned it.
            on_written: Function that gets "metric_points" or "artifact_bytes" and the amount,
                after each call that writes.

        Returns:
            The result; an error of this run is in it and not raised.
        """
        result = MirrorResult.from_run(source_run)

        def count(counter: str, amount: int) -> None:
            setattr(result, counter, getattr(result, counter) + amount)
            on_written(counter, amount)

        if source_run.info.lifecycle_stage != "active":
            self._record_deletion(source_run, result)
            return result
        try:
            repeat_refused_write(lambda: self._lock_and_mirror(source_run, result, count))
        except Exception as error:  # noqa: BLE001 - one run that fails stops no other run
            self._record_failure(source_run, result, error)
        return result

    def _lock_and_mirror(self, source_run: Run, result: MirrorResult, count: OnWritten) -> None:
        previous_lease = Lease.parse(source_run.data.tags.get(tags.LEASE))
        run, is_new = self.lock(source_run)
        if run is None:
            holder = previous_lease.holder if previous_lease else "another process"
            result.status, result.reason = "locked", f"{holder} mirrors it"
            return
        for _ in range(_MAX_ROUNDS):
            if self._mirror_locked(run, result, count, is_new=is_new):
                return
            run, is_new = self.source.get_run(run.info.run_id), False
        result.reason = "the run changes while it is read"
        self._set_status(run, result)

    def lock(self, source_run: Run) -> tuple[Run | None, bool]:
        """Acquire the lease of a run.

        Returns:
            The source run as it is now, None if another process holds it; and whether the
            destination has no run for it yet.
        """
        if not self.leases.acquire(source_run.info.run_id):
            return None, False
        is_new = self.mirrored_runs.find(source_run) is None
        return self.leases.confirm(source_run.info.run_id), is_new

    def _mirror_locked(
        self, source_run: Run, result: MirrorResult, count: OnWritten, *, is_new: bool
    ) -> bool:
        """Mirror a run as it was read; tell whether this is all, else it is mirrored once more.

        Raises:
            RunMirrorError: The mirrored run differs although the source run did not change.
        """
        run_id = source_run.info.run_id
        # Azure ML never changes an artifact, so the files of a running run are not copied.
        copies_files = tags.is_terminated(source_run) or self.leases.is_abandoned(run_id)
        models = logged_models_of_run(self.source, source_run) if copies_files else []
        digest = tags.run_digest(source_run, models)
        parent_id = self.mirrored_runs.find_or_create_parent_id(source_run)
        run = self.mirrored_runs.find_or_create(source_run, is_new=is_new)
        result.destination_run_id = run.info.run_id
        run_tags = expected_tags(self.destination, source_run, parent_id)
        if lineage.SOURCE_LIFECYCLE_STAGE in run.data.tags:
            # The source run was deleted and then restored.
            run_tags[lineage.SOURCE_LIFECYCLE_STAGE] = source_run.info.lifecycle_stage
        try:
            write_data(self.destination, source_run, run, run_tags)
            differences = copy_metrics(
                self.source,
                self.destination,
                source_run,
                run,
                metric_pool=self._metric_pool,
                on_written=partial(count, "metric_points"),
            )
            if copies_files:
                differences += self._copy_files(source_run, run, models, count)
            self._write_run_info(source_run, run)
            written_run = self.destination.get_run(run.info.run_id)
            differences += [
                f"{kind} {name!r} must be the source's: it is not after the write"
                for kind, name, *_ in different_values(source_run, written_run, run_tags)
            ]
            latest_run = self.source.get_run(run_id)
        except MlflowException:
            if self.mirrored_runs.is_mirror(run.info.run_id, run_id):
                raise
            # Another process created a mirrored run too, and deleted ours.
            return False
        if not self.leases.has_lease(latest_run):
            result.status, result.reason = "locked", "another process has taken it over"
            # That process may have finished before this one created its mirrored run.
            return self.mirrored_runs.delete_duplicates(latest_run, run, parent_id)
        if tags.run_digest(latest_run, models) != digest:
            return False
        if not self.mirrored_runs.delete_duplicates(latest_run, run, parent_id):
            return False
        if differences:
            raise RunMirrorError("; ".join(differences))
        result.status = "done" if tags.is_terminated(source_run) else "running"
        self.destination.store.set_tag(run.info.run_id, RunTag(lineage.SOURCE_DIGEST, digest))
        self._set_status(latest_run, result)
        return True

    def _copy_files(
        self, source_run: Run, run: Run, models: list[Any], count: OnWritten
    ) -> list[str]:
        """Copy the artifacts and the logged models of a run; return the differences left."""
        # A run that was resumed may have written its files once more.
        is_resumed = (
            run.data.tags.get(lineage.SOURCE_DIGEST, "none") != "none"
            and source_run.info.end_time != run.info.end_time
        )
        options: dict[str, Any] = {
            "on_written": partial(count, "artifact_bytes"),
            "compares_content": self.compares_content or is_resumed,
        }
        source_files = self.source.artifact_repository(source_run.info.artifact_uri)
        differences = copy_files(
            source_files,
            self.destination.artifact_repository(run.info.artifact_uri),
            list_files(source_files, model_folders(models, source_run)),
            **options,
        )
        return differences + self.logged_models.mirror_models_of_run(
            models, source_run, run, **options
        )

    def _write_run_info(self, source_run: Run, run: Run) -> None:
        """Write name, status and end time, if they differ."""
        info, old_info = source_run.info, run.info
        if (info.status, info.end_time, info.run_name) != (
            old_info.status,
            old_info.end_time,
            old_info.run_name,
        ):
            self.destination.store.update_run_info(
                old_info.run_id, RunStatus.from_string(info.status), info.end_time, info.run_name
            )

    def _set_status(self, source_run: Run, result: MirrorResult) -> None:
        status = tags.DONE if result.status == "done" else tags.PENDING
        run_tags = [
            RunTag(tags.STATUS, status),
            RunTag(self._tags.run_id, str(result.destination_run_id)),
            self.leases.release(source_run.info.run_id),
        ]
        if source_run.data.tags.get(self._tags.error):
            run_tags.append(RunTag(self._tags.error, "none"))
        self.source.store.log_batch(source_run.info.run_id, [], [], run_tags)

    def _record_failure(self, source_run: Run, result: MirrorResult, error: Exception) -> None:
        """Set the reason in the source run's tags, unless another process holds the run."""
        run_id = source_run.info.run_id
        result.error = error
        result.status = "failed" if not is_retryable(error) else "pending"
        result.reason = one_line(error, _MAX_REASON_CHARS)
        log.debug("failed to mirror run=%s", run_id, exc_info=error)
        released_lease = self.leases.release(run_id)
        try:
            if not self.leases.has_lease(self.source.get_run(run_id)):
                result.status, result.error = "locked", None
                return
            # The old lease tag tells the next try that the run's process no longer runs.
            run_tags = [] if self.leases.is_abandoned(run_id) else [released_lease]
            if not is_permission_denied(error):
                run_tags += [
                    RunTag(tags.STATUS, result.status),
                    RunTag(self._tags.error, result.reason),
                ]
            self.source.store.log_batch(run_id, [], [], run_tags)
        except MlflowException as tag_error:
            # The run stays pending, and its lease expires.
            log.debug("failed to record a failure run=%s: %s", run_id, tag_error)

    def _record_deletion(self, source_run: Run, result: MirrorResult) -> None:
        """Set a tag on the mirrored run of a deleted source run; the mirrored run stays."""
        result.status = "deleted"
        result.reason = "it was deleted at the source; nothing is deleted at the destination"
        try:
            run = self.mirrored_runs.find(source_run)
            if run is None:
                result.reason = "it was deleted at the source before it was mirrored"
                return
            result.destination_run_id = run.info.run_id
            models = logged_models_of_run(self.source, source_run)
            run_tags = [
                RunTag(lineage.SOURCE_LIFECYCLE_STAGE, "deleted"),
                RunTag(lineage.SOURCE_DIGEST, tags.run_digest(source_run, models)),
            ]
            self.destination.store.log_batch(run.info.run_id, [], [], run_tags)
        except (MlflowException, RunMirrorError) as error:
            result.error, result.reason = error, one_line(error)
