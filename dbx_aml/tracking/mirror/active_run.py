"""One run of this process, followed while it goes on: only what is new is read and written."""

from __future__ import annotations

import logging
import time

from mlflow.entities import Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.mirror import logged_models as model
from dbx_aml.tracking.mirror import metrics as point
from dbx_aml.tracking.mirror import params_and_tags as field
from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.errors import is_lasting, is_missing
from dbx_aml.tracking.mirror.mirror_run import Copier

log = logging.getLogger(__name__)
_EVERY_S = 4.0
# Other processes may log to the run, of which this one hears nothing.
_AT_LEAST_EVERY_S = 30.0
# The last page is read again each time: a small one.
_PAGE = 1000


class Follower:
    """Brings one run up to date again and again.

    Args:
        copier: Whose leases and targets are used.
        run_id: Of the source.
    """

    def __init__(self, copier: Copier, run_id: str) -> None:
        self._copier = copier
        self._run_id = run_id
        self._target: Run | None = None
        # By metric, the token of its last page, and how many points of that are written.
        self._cursors: dict[str, tuple[str | None, int]] = {}
        self._last: dict[str, tuple[float, int, int]] = {}
        self._stirred = True
        self._when = float("-inf")
        self.experiment_id: str | None = None
        self.is_over = False
        self.is_foreign = False

    def stir(self) -> None:
        """Hear that there may be something new."""
        self._stirred = True

    @property
    def is_due(self) -> bool:
        """Whether it is time to look."""
        passed = time.monotonic() - self._when
        return passed >= (_EVERY_S if self._stirred else _AT_LEAST_EVERY_S)

    def follow(self, *, is_active: bool) -> None:
        """Bring the run up to date; whole once it has ended.

        Args:
            is_active: It is still in this process's hands.
        """
        self._stirred = False
        try:
            run = self._copier.src.run(self._run_id)
        except MlflowException as error:
            if not is_missing(error):
                raise
            # MLflow tracks to another server meanwhile.
            self.is_foreign = True
            return
        self.experiment_id = run.info.experiment_id
        if tag.STATE not in run.data.tags:
            # It was created when nobody wanted it mirrored.
            self.is_foreign = True
        elif run.info.lifecycle_stage != "active" or tag.is_over(run):
            self._finish(run, is_active=is_active)
        elif self._is_taken(run):
            try:
                self._add(run)
            except Exception:
                # What was written is not known: the next time both sides are read.
                self._target = None
                self._cursors.clear()
                self._last.clear()
                raise
        self._when = time.monotonic()

    def _finish(self, run: Run, *, is_active: bool) -> None:
        self._target = None
        outcome = self._copier.mirror(run)
        if outcome.error is not None and not is_lasting(outcome.error):
            raise outcome.error
        if outcome.state == tag.FAILED:
            log.warning("run is not mirrored run=%s: %s", self._run_id, outcome.reason)
        # A run that says it has ended may still be this process's: it is looked at again.
        self.is_over = not is_active

    def _is_taken(self, run: Run) -> bool:
        if run.data.tags.get(tag.STATE) != tag.PENDING:
            # It was resumed.
            self._copier.src.store.set_tag(self._run_id, RunTag(tag.STATE, tag.PENDING))
        leases = self._copier.leases
        return leases.is_ours(run) or self._copier.take(run)[0] is not None

    def _add(self, run: Run) -> None:
        dst = self._copier.dst
        target = self._target or self._copier.targets.of(run)
        wanted = field.tags_for(dst, run, self._copier.targets.parent_of(run))
        is_new = bool(field.missing_params(run, target) or field.missing_tags(wanted, target))
        if is_new:
            field.copy(dst, run, target, wanted)
        if model.missing_datasets(run, target):
            model.copy_datasets(dst, run, target)
            is_new = True
        if run.info.run_name != target.info.run_name:
            running = RunStatus.from_string(run.info.status)
            dst.store.update_run_info(target.info.run_id, running, None, run.info.run_name)
            is_new = True
        writer = point.Writer(dst, target.info.run_id, lambda _: None)
        for metric in run.data._metric_objs:
            newest = (metric.value, metric.timestamp, metric.step)
            if self._last.get(metric.key) != newest:
                self._add_points(metric.key, target, writer)
                self._last[metric.key] = newest
        writer.flush()
        self._target = dst.run(target.info.run_id) if is_new else target

    def _add_points(self, key: str, target: Run, writer: point.Writer) -> None:
        src, dst = self._copier.src, self._copier.dst
        has = None
        if key not in self._cursors and key in target.data.metrics:
            has = point.read(dst, target.info.run_id, key)
        token, written = self._cursors.get(key, (None, 0))
        for page, following in point.pages(src, self._run_id, key, token=token, size=_PAGE):
            for one in page[written:]:
                if has is None or one not in has:
                    writer.add(key, one)
            written = len(page)
            if following:
                token, written = following, 0
        self._cursors[key] = (token, written)
