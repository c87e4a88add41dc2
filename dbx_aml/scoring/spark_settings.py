"""Spark settings for the length of a block, and the old ones after it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException

from dbx_aml._common.log import get_logger
from dbx_aml.local.spark import is_connect
from dbx_aml.scoring.plan import DEFAULT_ARROW_ROWS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = get_logger(__name__)

_ARROW_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
_exclusive_lock = threading.Lock()
_arrow_lock = threading.Lock()
_restore_arrow_rows: list[Callable[[], None]] = []
_arrow_jobs = 0


@contextmanager
def exclusive_settings(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[SparkSession]:
    """Yield a session with these settings, which reach no other query of the user's session.

    It has the user's own settings, too, for example the login of a storage account. A session of
    Spark Connect has no copy: there they are set for the block, one at a time.
    """
    if not is_connect(spark):
        classic: Any = spark
        java_session = classic._jsparkSession.cloneSession()
        session: SparkSession = type(classic)(classic.sparkContext, java_session)
        session.catalog.setCurrentCatalog(spark.catalog.currentCatalog())
        session.catalog.setCurrentDatabase(spark.catalog.currentDatabase())
        _change_settings(session, settings)
        yield session
        return
    with _exclusive_lock:
        restore = _change_settings(spark, settings)
        try:
            yield spark
        finally:
            restore()


@contextmanager
def larger_arrow_batches(spark: SparkSession, rows: int | None) -> Iterator[None]:
    """Let Arrow hand over so many rows at once in the block, unless the user chose a number.

    Jobs that run at the same time share the first one's number; the last one restores the old one.

    Args:
        spark: Session that runs the query.
        rows: Rows at once; None, or Spark's default or fewer, changes nothing.
    """
    global _arrow_jobs
    with _arrow_lock:
        _arrow_jobs += 1
        is_first = not _restore_arrow_rows
        if rows is not None and rows > DEFAULT_ARROW_ROWS and is_first:
            is_default = spark.conf.get(_ARROW_ROWS, None) in (None, str(DEFAULT_ARROW_ROWS))
            if is_default:
                _restore_arrow_rows.append(_change_settings(spark, {_ARROW_ROWS: str(rows)}))
    try:
        yield
    finally:
        with _arrow_lock:
            _arrow_jobs -= 1
            if not _arrow_jobs and _restore_arrow_rows:
                _restore_arrow_rows.pop()()


def can_set(spark: SparkSession, key: str) -> bool:
    """Return whether this compute allows a setting."""
    try:
        old_value = spark.conf.get(key, None)
        spark.conf.set(key, old_value or "")
        if old_value is None:
            spark.conf.unset(key)
    except AnalysisException:
        return False
    return True


def _change_settings(spark: SparkSession, settings: Mapping[str, str]) -> Callable[[], None]:
    """Change settings and return the function that restores the old ones."""
    old_values: dict[str, str | None] = {}
    try:
        for key, value in settings.items():
            old_value = spark.conf.get(key, None)
            spark.conf.set(key, value)
            old_values[key] = old_value
    except AnalysisException:
        # Serverless compute does not allow these settings; scoring works without them.
        log.info("set nothing for key=%s: this compute does not allow it", key)

    def restore() -> None:
        for key, old_value in old_values.items():
            if old_value is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old_value)

    return restore
