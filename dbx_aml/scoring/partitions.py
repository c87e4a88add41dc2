"""Measure an input and put its rows into the partitions that `plan` decides on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dbx_aml.scoring import plan
from dbx_aml.scoring.bind import BoundRequest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Spark's estimate for data of unknown size is about 2**63, for example for a frame made in Python.
_UNKNOWN_SIZE = 2**62


def partition_rows(bound: BoundRequest, frame: DataFrame) -> tuple[DataFrame, int | None]:
    """Merge small partitions; shuffle only where the model's cost a row is worth it.

    Returns:
        The rows, and how many of them Arrow hands to the model at once; None leaves Spark's
        setting.
    """
    spark = bound.spark
    cores, size_bytes = core_count(spark), bound.resolved.input.size_bytes
    if cores is None:
        return frame, None
    if size_bytes is None or not plan.is_small(size_bytes):
        size_bytes = size_in_bytes(spark, frame)
    if size_bytes is None:
        return frame, None
    arrow_rows = plan.arrow_rows(size_bytes, cores, len(bound.model_udf.bound_columns))
    if plan.may_shuffle(cores, size_bytes) and bound.request.is_local_environment:
        files = len(frame.inputFiles())
        if 0 < files < cores:
            seconds_per_row = bound.model_udf.measure_seconds_per_row(frame)
            partitions = plan.shuffle_partitions(
                files, cores, frame.count(), size_bytes, seconds_per_row
            )
            if partitions is not None:
                return frame.repartition(partitions), arrow_rows
    partitions = plan.merged_partitions(size_bytes, cores)
    return frame.coalesce(partitions), arrow_rows


def size_in_bytes(spark: SparkSession, frame: DataFrame) -> int | None:
    """Return Spark's estimate of a frame's size in bytes, or None if Spark does not know it."""
    text = spark.sql("EXPLAIN COST SELECT * FROM {frame}", frame=frame).collect()[0][0]
    match = re.search(r"sizeInBytes=([\d.]+(?:E[+-]?\d+)?) ([KMGTPE]?)i?B", text)
    if match is None:
        return None
    size_bytes = int(float(match[1]) * 1024 ** " KMGTPE".index(match[2] or " "))
    return size_bytes if size_bytes < _UNKNOWN_SIZE else None


def core_count(spark: SparkSession) -> int | None:
    """Return how many tasks run at once: the partitions that Spark gives a range by default."""
    text = spark.sql("EXPLAIN SELECT * FROM range(10)").collect()[0][0]
    match = re.search(r"splits=(\d+)", text)
    return int(match[1]) if match else None
