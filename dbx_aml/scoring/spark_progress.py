"""Tell how far Spark is, on every kind of session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbx_aml.local.spark import is_connect

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Called with what is being done, tasks done, and tasks in all (0: unknown).
Progress = Callable[[str, int, int], None]
_EVERY_S = 0.5


@contextmanager
def watch(spark: SparkSession, progress: Progress) -> Iterator[Callable[[str], None]]:
    """Yield a function that names the current step; report Spark's tasks meanwhile."""
    step = ""

    def report(name: str) -> None:
        nonlocal step
        step = name
        progress(name, 0, 0)

    if hasattr(spark, "registerProgressHandler") and is_connect(spark):

        def handle(stages: Any, inflight_tasks: int, operation_id: Any, done: bool) -> None:
            total = sum(stage.num_tasks for stage in stages or ())
            if total and step:
                progress(step, sum(stage.num_completed_tasks for stage in stages), total)

        spark.registerProgressHandler(handle)
        try:
            yield report
        finally:
            spark.removeProgressHandler(handle)
        return

    # Classic Spark has no handler to register; its status tracker is asked now and then.
    # Connect has no sparkContext: this is the one place that uses it, on classic only.
    tracker = spark.sparkContext.statusTracker()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(_EVERY_S):
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            known = [stage for stage in stages if stage is not None]
            total = sum(stage.numTasks for stage in known)
            if total and step:
                progress(step, sum(stage.numCompletedTasks for stage in known), total)

    thread = threading.Thread(target=ask, name="dbx-aml-progress", daemon=True)
    thread.start()
    try:
        yield report
    finally:
        over.set()
        thread.join()
