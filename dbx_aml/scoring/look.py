"""What to look at after scoring: some scored rows, and why others were set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbx_aml.scoring.table import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from dbx_aml.scoring.result import ScoringResult


def some_rows(result: ScoringResult, spark: SparkSession, rows: int = 5) -> DataFrame:
    """Return a few rows that this version of the model scored, with where they came from.

    Args:
        result: As `score_table` returns it.
        spark: The session that scored.
        rows: How many at most, for example 5.

    Shape:
        At most `rows` x (prediction, model_version string, batch_id string, scored_at
        timestamp); no rows where nothing was ever scored.
    """
    table = Table(result.output_table)
    if not table.exists(spark):
        return spark.createDataFrame([], "prediction double")
    from pyspark.sql import functions as F

    scored = table.read(spark).where(F.col("_scoring.model_uri") == result.model_uri)
    source = [f"_scoring.{name}" for name in ("model_version", "batch_id", "scored_at")]
    return scored.select("prediction", *source).limit(rows)


def reasons(result: ScoringResult, spark: SparkSession) -> DataFrame:
    """Return why rows of this input were set aside, counted by batch and reason.

    Args:
        result: As `score_table` returns it.
        spark: The session that scored.

    Shape:
        One row a batch and reason: (batch_id string, reason string, rows bigint), most rows
        first; no rows where none was set aside.
    """
    from pyspark.sql import functions as F

    table = Table(result.quarantine_table)
    if not table.exists(spark):
        return spark.createDataFrame([], "batch_id string, reason string, rows bigint")
    grouped = table.read(spark).groupBy("_quarantine.batch_id", "_quarantine.reason")
    return grouped.agg(F.count(F.lit(1)).alias("rows")).orderBy(F.desc("rows"), "batch_id")
