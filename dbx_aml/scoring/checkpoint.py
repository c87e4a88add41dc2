"""The checkpoint of a stream: its id, and the version of the input table that it has reached.

Source: Spark's `StreamMetadata`, `OffsetSeqLog` and `CommitLog`; Delta's `DeltaSourceOffset`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException

from dbx_aml._common.text import sql_identifier

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def query_id(spark: SparkSession, checkpoint: str) -> str | None:
    """Return the id of a checkpoint's stream; None for a checkpoint that does not exist yet."""
    try:
        lines = _read_lines(spark, f"{_glob_pattern(checkpoint)}/metadata")
    except AnalysisException:
        return None
    return next((str(json.loads(line)["id"]) for line in lines if line.startswith("{")), None)


def read_offset(spark: SparkSession, checkpoint: str, number: int) -> dict[str, Any]:
    """Return the position in the input at the end of a micro-batch, as the source writes it."""
    lines = _read_lines(spark, f"{_glob_pattern(checkpoint)}/offsets/{number}")
    # The last line is of the source; lines before it are of Spark.
    offset: dict[str, Any] = json.loads(lines[-1])
    return offset


def stream_folders(spark: SparkSession, checkpoint: str) -> set[str]:
    """Return the names of the folders in a checkpoint's folder that have a stream's checkpoint."""
    folder = _glob_pattern(checkpoint)
    try:
        files = spark.sql(
            "SELECT element_at(split(_metadata.file_path, '/'), -2) "
            f"FROM text.{sql_identifier(f'{folder}/*/metadata')}"
        ).collect()
    except AnalysisException:
        return set()
    return {name for (name,) in files}


def _glob_pattern(folder: str) -> str:
    """Return the pattern that stands for a folder of this name alone.

    Spark reads each path as a pattern of Hadoop's file systems, also "ck [1]" or "ck*".
    """
    return re.sub(r"([\\*?\[\]{},])", r"\\\1", folder)


def _read_lines(spark: SparkSession, pattern: str) -> list[str]:
    files = sql_identifier(pattern)
    return [line for (line,) in spark.sql(f"SELECT value FROM text.{files}").collect()]


def last_offset(spark: SparkSession, checkpoint_location: str) -> dict[str, Any] | None:
    """Return the position that a checkpoint's micro-batches have scored, or None."""
    folder = _glob_pattern(checkpoint_location)
    try:
        files = spark.sql(
            "SELECT max(CAST(element_at(split(_metadata.file_path, '/'), -1) AS INT)) "
            f"FROM text.{sql_identifier(f'{folder}/commits')}"
        ).collect()
        if files[0][0] is None:
            return None
        return read_offset(spark, checkpoint_location, files[0][0])
    except AnalysisException:
        return None


def version_of_offset(offset: dict[str, Any]) -> int:
    """Return the last table version that a Delta stream's offset covers.

    Source: Delta's `DeltaSourceOffset`: a negative index stands before a version's first file.
    """
    version = int(offset["reservoirVersion"])
    return version - 1 if int(offset["index"]) < 0 else version
