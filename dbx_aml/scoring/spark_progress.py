"""Report the progress of Spark's tasks, on every kind of session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbx_aml.local.spark import is_connect

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Function that receives a step's name, its tasks done, and all its tasks (0 if unknown).
Progress = Callable[[str, int, int], None]
# Function that receives each step's name.
Report = Callable[[str], None]
_POLL_INTERVAL_S = 0.5


@contextmanager
def watch_progress(spark: SparkSession, progress: Progress) -> Iterator[Report]:
    """Yield a function that names the current step; report Spark's tasks meanwhile."""
    step = ""

    def report(name: str) -> None:
        nonlocal step
        step = name
        progress(name, 0, 0)

    if is_connect(spark):

        def report_stages(stages: Any, inflight_tasks: int, operation_id: Any, done: bool) -> None:
            total = sum(stage.num_tasks for stage in stages or ())
            if total and step:
                progress(step, sum(stage.num_completed_tasks for stage in stages), total)

        if not hasattr(spark, "registerProgressHandler"):
            # Spark 3.5 reports no tasks to a Connect session.
            yield report
            return
        spark.registerProgressHandler(report_stages)
        try:
            yield report
        finally:
            spark.removeProgressHandler(report_stages)
        return

    # Classic Spark has no progress handler, so its status tracker is polled.
    tracker = spark.sparkContext.statusTracker()
    is_over = threading.Event()

    def poll_stages() -> None:
        while not is_over.wait(_POLL_INTERVAL_S):
            infos = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            stages = [info for info in infos if info is not None]
            total = sum(stage.numTasks for stage in stages)
            if total and step:
                progress(step, sum(stage.numCompletedTasks for stage in stages), total)

    thread = threading.Thread(target=poll_stages, name="dbx-aml-progress", daemon=True)
    thread.start()
    try:
        yield report
    finally:
        is_over.set()
        thread.join()
