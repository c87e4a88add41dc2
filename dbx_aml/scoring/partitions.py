"""Measure an input and put its rows into the partitions that `plan` decides on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring import plan
from dbx_aml.scoring.bind import BoundRequest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Spark's estimate for data of unknown size is 2**63 times the share of the columns that are read,
# for example for a frame made in Python and for the rows of a stream.
_UNKNOWN_SIZE = 2**50


@dataclass(frozen=True, kw_only=True)
class Partitioning:
    """How the rows of a job are split.

    Args:
        partitions: Most partitions; None leaves them as Spark splits the input.
        is_shuffle: Whether the rows are shuffled.
        arrow_rows: Rows that Arrow hands to the model at once; None leaves Spark's setting.
        reason: Why, in words.
    """

    partitions: int | None = None
    is_shuffle: bool = False
    arrow_rows: int | None = None
    reason: str = "Spark does not tell the size of the input"


def partition_rows(bound: BoundRequest, frame: DataFrame) -> tuple[DataFrame, int | None]:
    """Merge small partitions; shuffle only where the model's cost a row is worth it.

    Returns:
        The rows, and how many of them Arrow hands to the model at once; None leaves Spark's
        setting.
    """
    chosen = choose_partitions(bound, frame)
    segments = bound.resolved.segments
    if segments is not None and not segments.fits_in_memory:
        # Each task then loads the models of few segments, one after the other.
        column = F.col(sql_identifier(segments.column))
        by_segment = frame.repartition(column)
        if chosen.partitions is not None:
            by_segment = frame.repartition(chosen.partitions, column)
        return by_segment.sortWithinPartitions(column), chosen.arrow_rows
    if chosen.partitions is not None and chosen.is_shuffle:
        frame = frame.repartition(chosen.partitions)
    elif chosen.partitions is not None:
        frame = frame.coalesce(chosen.partitions)
    return frame, chosen.arrow_rows


def choose_partitions(bound: BoundRequest, frame: DataFrame) -> Partitioning:
    """Return how rows are to be split."""
    spark, segments = bound.spark, bound.resolved.segments
    cores, size_bytes = core_count(spark), bound.resolved.input.size_bytes
    if segments is not None and not segments.fits_in_memory:
        return Partitioning(
            partitions=None if cores is None else 4 * cores,
            is_shuffle=True,
            reason=f"by segment: the {len(segments.models):,} models have "
            f"{segments.size_bytes / 2**20:,.0f} MiB of files, more than a worker keeps in memory",
        )
    if cores is None:
        return Partitioning(reason="Spark does not tell the number of cores")
    if size_bytes is None or not plan.is_small(size_bytes):
        # The rows of a stream belong to the session of the stream.
        size_bytes = size_in_bytes(frame.sparkSession, frame)
    if size_bytes is None:
        return Partitioning()
    arrow_rows = plan.arrow_rows(
        size_bytes,
        cores,
        len(bound.model_udf.bound_columns),
        has_segments=segments is not None,
    )
    if plan.may_shuffle(cores, size_bytes):
        files = len(frame.inputFiles())
        if 0 < files < cores:
            estimate = bound.estimate
            seconds_per_row = estimate.seconds_per_row if estimate is not None else None
            if seconds_per_row is None:
                seconds_per_row = bound.model_udf.measure_cost(frame).seconds_per_row
            partitions = plan.shuffle_partitions(
                files, cores, frame.count(), size_bytes, seconds_per_row
            )
            if partitions is not None:
                return Partitioning(
                    partitions=partitions,
                    is_shuffle=True,
                    arrow_rows=arrow_rows,
                    reason=f"{files} files would leave some of {cores} cores idle: a shuffle is "
                    "faster for this model",
                )
    return Partitioning(
        partitions=plan.merged_partitions(size_bytes, cores),
        arrow_rows=arrow_rows,
        reason=f"about {size_bytes / 2**20:,.1f} MiB, at least 8 MiB a task, on {cores} cores",
    )


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
