"""Mirroring a run of this process while it runs: only new data is read and written."""

from __future__ import annotations

import time

from mlflow.entities import Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from dbx_aml._common.errors import is_not_found, is_retryable
from dbx_aml._common.log import get_logger
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.metric_points import MetricPoint
from dbx_aml.tracking.mirror.metrics import PointWriter, point_pages, read_existing_points
from dbx_aml.tracking.mirror.mirror_run import RunMirror
from dbx_aml.tracking.mirror.run_data import expected_tags, write_data

log = get_logger(__name__)
# After a request of this process.
_INTERVAL_S = 4.0
# Without a request: other processes may log to the run, and their requests are not observed.
_IDLE_INTERVAL_S = 30.0
# The last page of a metric is read again each time, so a page is small.
_POINTS_PER_PAGE = 1000


class ActiveRun:
    """Brings one source run up to date at the destination again and again.

    Args:
        run_mirror: Mirror with the servers and leases to use.
        run_id: Id of the source run.

    Attributes:
        experiment_id: Id of the run's experiment, None before the first update.
        process_token: Text of the process that created the run, None before the first update.
        is_finished: Whether the run has ended and is mirrored.
        is_untracked: Whether the run is not to be mirrored, or lies on another server.
    """

    def __init__(self, run_mirror: RunMirror, run_id: str) -> None:
        self._run_mirror = run_mirror
        self._run_id = run_id
        self._mirrored_run: Run | None = None
        # By metric, the token of its last page and the number of points of that page written.
        self._cursors: dict[str, tuple[str | None, int]] = {}
        self._last_points: dict[str, MetricPoint] = {}
        self._has_new_requests = True
        self._updated_at = float("-inf")
        self.experiment_id: str | None = None
        self.process_token: str | None = None
        self.is_finished = False
        self.is_untracked = False

    def notify(self) -> None:
        """Note that this process has sent a request, so the run may have new data."""
        self._has_new_requests = True

    @property
    def needs_update(self) -> bool:
        """Whether the run should be updated now."""
        elapsed_s = time.monotonic() - self._updated_at
        return elapsed_s >= (_INTERVAL_S if self._has_new_requests else _IDLE_INTERVAL_S)

    def update(self, *, is_active: bool) -> None:
        """Mirror the run's new data; for a run that has ended, mirror the whole run.

        Args:
            is_active: Whether MLflow lists the run as active in this process.
        """
        self._has_new_requests = False
        try:
            source_run = self._run_mirror.source.get_run(self._run_id)
        except MlflowException as error:
            if not is_not_found(error):
                raise
            # MLflow now tracks to another server than the link's.
            self.is_untracked = True
            self.process_token = ""
            return
        self.experiment_id = source_run.info.experiment_id
        self.process_token = source_run.data.tags.get(tags.PROCESS_TOKEN, "")
        if tags.STATUS not in source_run.data.tags:
            # The run is older than the connection.
            self.is_untracked = True
        elif source_run.info.lifecycle_stage != "active" or tags.is_terminated(source_run):
            self._mirror_ended_run(source_run, is_active=is_active)
        elif self._lock(source_run):
            try:
                self._mirror_new_data(source_run)
            except Exception:
                # A call may have written before it failed, so the next update reads both runs.
                self._mirrored_run = None
                self._cursors.clear()
                self._last_points.clear()
                raise
        self._updated_at = time.monotonic()

    def _mirror_ended_run(self, source_run: Run, *, is_active: bool) -> None:
        self._mirrored_run = None
        result = self._run_mirror.mirror(source_run)
        if result.error is not None and is_retryable(result.error):
            raise result.error
        if result.status == "failed":
            log.warning("run is not mirrored run=%s: %s", self._run_id, result.reason)
        # A program can set a final status on a run and go on logging to it.
        self.is_finished = not is_active

    def _lock(self, source_run: Run) -> bool:
        if source_run.data.tags.get(tags.STATUS) != tags.PENDING:
            # The run was done, and a program resumed it.
            pending = RunTag(tags.STATUS, tags.PENDING)
            self._run_mirror.source.store.set_tag(self._run_id, pending)
        if self._run_mirror.leases.has_lease(source_run):
            return True
        return self._run_mirror.lock(source_run)[0] is not None

    def _mirror_new_data(self, source_run: Run) -> None:
        destination, mirrored_runs = self._run_mirror.destination, self._run_mirror.mirrored_runs
        mirrored_run = self._mirrored_run or mirrored_runs.find_or_create(source_run)
        mirrored_id = mirrored_run.info.run_id
        parent_id = mirrored_runs.find_or_create_parent_id(source_run)
        run_tags = expected_tags(destination, source_run, parent_id)
        is_changed = write_data(destination, source_run, mirrored_run, run_tags)
        is_renamed = source_run.info.run_name != mirrored_run.info.run_name
        if is_renamed:
            status = RunStatus.from_string(source_run.info.status)
            destination.store.update_run_info(mirrored_id, status, None, source_run.info.run_name)
        writer = PointWriter(destination, mirrored_id, lambda _: None)
        for metric in source_run.data._metric_objs:
            last_point = (metric.value, metric.timestamp, metric.step)
            if self._last_points.get(metric.key) != last_point:
                self._add_new_points(metric.key, mirrored_run, writer)
                self._last_points[metric.key] = last_point
        writer.flush()
        if is_changed or is_renamed:
            mirrored_run = destination.get_run(mirrored_id)
        self._mirrored_run = mirrored_run

    def _add_new_points(self, key: str, mirrored_run: Run, writer: PointWriter) -> None:
        existing = None
        if key not in self._cursors:
            existing = read_existing_points(self._run_mirror.destination, mirrored_run, key)
        token, written = self._cursors.get(key, (None, 0))
        for page, next_token in point_pages(
            self._run_mirror.source, self._run_id, key, token=token, page_size=_POINTS_PER_PAGE
        ):
            for point in page[written:]:
                if existing is None or point not in existing:
                    writer.add(key, point)
            written = len(page)
            if next_token:
                token, written = next_token, 0
        self._cursors[key] = (token, written)
