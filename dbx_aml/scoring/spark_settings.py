"""Spark settings that count for a while, and the old ones after it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException

from dbx_aml.scoring.plan import SMALLEST_BATCH

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

_ARROW_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
_one_at_a_time = threading.Lock()
_counting = threading.Lock()
_in_larger_batches: list[Callable[[], None]] = []
_jobs = 0


@contextmanager
def alone_with(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Have these settings inside the block; they count for the whole session, so one at a time."""
    with _one_at_a_time:
        undo = _change(spark, settings)
        try:
            yield
        finally:
            undo()


@contextmanager
def larger_batches(spark: SparkSession, rows: int | None) -> Iterator[None]:
    """Let Arrow hand over so many rows at once, unless the user has chosen a number.

    Jobs that run at once share the first one's number; the last one puts the old one back.

    Args:
        spark: The session that runs the query.
        rows: None, or as many as by default, changes nothing.
    """
    global _jobs
    with _counting:
        _jobs += 1
        wanted = rows is not None and rows > SMALLEST_BATCH and not _in_larger_batches
        if wanted and spark.conf.get(_ARROW_ROWS, None) in (None, str(SMALLEST_BATCH)):
            _in_larger_batches.append(_change(spark, {_ARROW_ROWS: str(rows)}))
    try:
        yield
    finally:
        with _counting:
            _jobs -= 1
            if not _jobs and _in_larger_batches:
                _in_larger_batches.pop()()


def _change(spark: SparkSession, settings: Mapping[str, str]) -> Callable[[], None]:
    """Change settings and return what puts the old ones back."""
    before: dict[str, str | None] = {}
    try:
        for key, value in settings.items():
            old = spark.conf.get(key, None)
            spark.conf.set(key, value)
            before[key] = old
    except AnalysisException:
        # Serverless compute lets nobody set these; what they are for works without them.
        log.info("set nothing for key=%s: this compute does not allow it", key)

    def undo() -> None:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)

    return undo
