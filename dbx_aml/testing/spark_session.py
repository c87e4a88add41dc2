"""The session of the fixture `spark`, and a schema for each test."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml._common.environment import set_variables
from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.text import sql_identifier
from dbx_aml.local.spark import (
    SHORT_JOB_JAVA_OPTIONS,
    current_spark,
    is_connect,
    local_spark,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CONF = {
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "2g",
    "spark.driver.extraJavaOptions": SHORT_JOB_JAVA_OPTIONS,
    # Their queries are small: compiling code for each costs a fifth of all.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


def start_spark(
    folder: Path, *, connect: bool, kafka: bool, conf: Sequence[str]
) -> tuple[SparkSession, Callable[[], None]]:
    """Return a session for tests, and the function that stops it.

    Python shows a timestamp in the time zone of its process. So this process and Spark's Python
    workers use UTC until the session stops.

    Args:
        folder: Folder for tables and logs.
        connect: Whether the session is a Spark Connect session.
        kafka: Whether the session reads and writes Kafka topics.
        conf: Further Spark settings, for example ["spark.driver.memory=4g"].

    Raises:
        ArgumentError: A setting has no "=".
        LocalSparkError: Java, pyspark or the jars are missing, or another session is active.
    """
    if running_version():
        return current_spark(), lambda: None
    settings = dict(_CONF)
    for line in conf:
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise ArgumentError(f"dbx_aml_spark_conf must have lines NAME=VALUE: got {line!r}")
        settings[name] = value
    old_time_zone = {"TZ": os.environ.get("TZ")}
    _set_time_zone({"TZ": "UTC"})
    try:
        session = local_spark(
            folder, master="local[2]", connect=connect, kafka=kafka, conf=settings
        )
    except BaseException:
        _set_time_zone(old_time_zone)
        raise

    def stop() -> None:
        session.stop()
        _set_time_zone(old_time_zone)

    return session, stop


def is_stopped(spark: Any) -> bool:
    """Return whether a session has been stopped."""
    if is_connect(spark):
        return bool(spark.is_stopped)
    return spark.sparkContext._jsc is None


def _set_time_zone(variables: dict[str, str | None]) -> None:
    set_variables(variables)
    time.tzset()


@contextmanager
def new_database(spark: SparkSession) -> Iterator[str]:
    """Yield the name of a new schema, the current schema in the block; then drop it."""
    old_database = spark.catalog.currentDatabase()
    name = f"test_{token_hex(6)}"
    spark.sql(f"CREATE SCHEMA {name}")
    spark.sql(f"USE {name}")
    try:
        yield name
    finally:
        spark.sql(f"USE {sql_identifier(old_database)}")
        spark.sql(f"DROP SCHEMA {name} CASCADE")
