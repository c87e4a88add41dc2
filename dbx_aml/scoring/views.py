"""Tables to look at after scoring: a sample, predictions by day, reasons, agreement, a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbx_aml._common.errors import ScoringError
from dbx_aml._common.json_content import parse_json
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.ledger import batches
from dbx_aml.scoring.replay import replay_batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame, SparkSession

    from dbx_aml.scoring.result import ScoringResult


def sample_of_output(result: ScoringResult, spark: SparkSession, rows: int = 5) -> DataFrame:
    """Return a few rows that the job scored, with their provenance.

    Shape:
        At most `rows` x (prediction, model_version int, batch bigint) of the newest batch of the
        result; no rows where the output table does not exist.
    """
    table = Table(result.output_table)
    if not table.exists(spark):
        return spark.createDataFrame([], "prediction double")
    from pyspark.sql import functions as F

    scored = table.read(spark)
    if result.batch is not None:
        scored = scored.where(F.col("_scoring.batch") == result.batch)
    return scored.select("prediction", "_scoring.model_version", "_scoring.batch").limit(rows)


def predictions_by_day(result: ScoringResult, spark: SparkSession) -> DataFrame:
    """Return mean and percentiles of the predictions in the output table by day.

    The day is taken from the table's first date or timestamp, or else from the time of scoring.

    Shape:
        One row a day, in order: (day date, rows bigint, mean double, p10 double, p90 double); the
        last three are null where predictions are no numbers. No rows where the table does not
        exist.
    """
    table = Table(result.output_table)
    if not table.exists(spark):
        return spark.createDataFrame(
            [], "day date, rows bigint, mean double, p10 double, p90 double"
        )
    from pyspark.sql import functions as F
    from pyspark.sql.types import NumericType

    scored = table.read(spark)
    dated = [name for name, kind in scored.dtypes if kind in ("date", "timestamp", "timestamp_ntz")]
    # The number of a batch is its time in microseconds.
    day = F.to_date(F.col(f"`{dated[0]}`") if dated else F.expr("timestamp_micros(_scoring.batch)"))
    is_number = isinstance(scored.schema["prediction"].dataType, NumericType)
    number = (F.col("prediction") if is_number else F.lit(None)).cast("double")
    return (
        scored.groupBy(day.alias("day"))
        .agg(
            F.count(F.lit(1)).alias("rows"),
            F.avg(number).alias("mean"),
            F.percentile_approx(number, 0.1).alias("p10"),
            F.percentile_approx(number, 0.9).alias("p90"),
        )
        .orderBy("day")
    )


def quarantine_reasons(result: ScoringResult, spark: SparkSession) -> DataFrame:
    """Return the reasons in the quarantine table, with the number of rows by batch.

    Shape:
        One row a batch and reason: (batch_id string, reason string, rows bigint), most rows
        first; no rows where the table does not exist.
    """
    from pyspark.sql import functions as F

    table = Table(result.quarantine_table)
    if not table.exists(spark):
        return spark.createDataFrame([], "batch_id string, reason string, rows bigint")
    grouped = table.read(spark).groupBy("_quarantine.batch_id", "_quarantine.reason")
    return grouped.agg(F.count(F.lit(1)).alias("rows")).orderBy(F.desc("rows"), "batch_id")


def plan_of_dry_run(result: ScoringResult, spark: SparkSession) -> DataFrame:
    """Return the plan of a dry run.

    Shape:
        One row a fact: (name string, value string).
    """
    return _named_values(spark, result.plan or {})


def agreement_with_challenger(result: ScoringResult, spark: SparkSession) -> DataFrame:
    """Return how far the model and its challenger agreed in the newest batch of a result.

    Shape:
        One row a number, see `measure_agreement`: (name string, value string); no rows without a
        challenger.
    """
    agreement = None
    if result.batch is not None:
        rows = batches(result.output_table, spark).where(f"batch = {result.batch}")
        agreement = rows.collect()[0].asDict().get("challenger")
    return _named_values(spark, parse_json(agreement or "{}"))


def replay_of_batch(
    result: ScoringResult, spark: SparkSession, servers: Mapping[str, str], *, replays: bool
) -> DataFrame:
    """Return the comparison of the newest batch of a result with a second scoring of its rows.

    Args:
        result: Result of `score_table`.
        spark: Session.
        servers: `tracking_uri` and `registry_uri`; an empty text is MLflow's current one.
        replays: Whether to score the rows again.

    Shape:
        One row a fact of `ReplayResult`: (name string, value string); no rows where nothing was
        scored or is scored again, and one with the reason where the batch cannot be scored again,
        for example a view.
    """
    if result.batch is None or not replays:
        return _named_values(spark, {})
    try:
        replayed = replay_batch(
            output_table=result.output_table,
            batch=result.batch,
            tracking_uri=servers.get("tracking_uri"),
            registry_uri=servers.get("registry_uri"),
            spark=spark,
        )
    except ScoringError as err:
        return _named_values(spark, {"not_replayed": err})
    return _named_values(spark, replayed.to_dict())


def _named_values(spark: SparkSession, values: Mapping[str, object]) -> DataFrame:
    rows = [(name, str(value)) for name, value in values.items()]
    return spark.createDataFrame(rows, "name string, value string")
