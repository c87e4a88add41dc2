"""Score the rows of a test through temporary tables."""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from dbx_aml.scoring.result import ScoringResult
from dbx_aml.scoring.score_table import score_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class ScoredRows(NamedTuple):
    """Tables and counts of `score_rows`.

    Args:
        output: Rows that the model scored, with `prediction`.
        quarantine: Rows that the model could not score, with the reason in `_quarantine`; without
            such rows an empty frame with the input's columns.
        result: Result of `score_table`.
    """

    output: DataFrame
    quarantine: DataFrame
    result: ScoringResult


def score_rows(spark: SparkSession, model_uri: str, rows: Any, **arguments: Any) -> ScoredRows:
    """Score rows with `score_table`, from a new table to a new table of the current schema.

    Args:
        spark: Session of the tables.
        model_uri: Model, for example "models:/delay/1".
        rows: Data frame of Spark or pandas.
        arguments: Further arguments of `score_table`, for example `max_quarantined_rows="100%"`.

    Shape:
        n rows -> n rows, each either in the output or in the quarantine.

    Raises:
        ScoringError: `score_table` refuses the rows, the model or an argument.
    """
    frame = rows if hasattr(rows, "sparkSession") else spark.createDataFrame(rows)
    input_table = f"score_{token_hex(6)}"
    # Names of columns may have blanks, as in scikit-learn's data sets.
    frame.write.option("delta.columnMapping.mode", "name").saveAsTable(input_table)
    tables = {"input_table": input_table, "output_table": f"{input_table}_scored", **arguments}
    result = score_table(model_uri=model_uri, spark=spark, **tables)
    has_quarantine = spark.catalog.tableExists(result.quarantine_table)
    return ScoredRows(
        output=spark.table(result.output_table),
        quarantine=(
            spark.table(result.quarantine_table)
            if has_quarantine
            else spark.table(input_table).limit(0)
        ),
        result=result,
    )
