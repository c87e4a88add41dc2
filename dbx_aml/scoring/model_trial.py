"""Check that the model scores at least one row: failing on all would only write a quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from dbx_aml._common.errors import NoScorableRowError
from dbx_aml.scoring.bind import BoundRequest
from dbx_aml.scoring.guard import REASON
from dbx_aml.scoring.model_udf import RESULT
from dbx_aml.scoring.spark_errors import name_process_end

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_TRIED_ROWS = 64


@name_process_end()
def try_model(bound: BoundRequest, rows: DataFrame) -> None:
    """Run the model on a few rows, and on all rows if it fails on each of the few.

    Raises:
        NoScorableRowError: The model fails on every row.
    """
    model_rows = bound.model_udf.readable_columns(rows)
    first_rows = model_rows.limit(_TRIED_ROWS).collect()
    if not first_rows:
        return
    sample = bound.spark.createDataFrame(first_rows, model_rows.schema)
    results = bound.model_udf.with_result(sample).select(f"{RESULT}.{REASON}").collect()
    if all(reason for (reason,) in results):
        require_scorable_row(bound, rows, results[0][0])


@name_process_end()
def require_scorable_row(bound: BoundRequest, rows: DataFrame, first_reason: str) -> None:
    """Search all rows for one that the model scores.

    Raises:
        NoScorableRowError: The model fails on every row.
    """
    results = bound.model_udf.with_result(bound.model_udf.model_columns(rows))
    if not results.where(F.col(f"{RESULT}.{REASON}") == "").head(1):
        raise NoScorableRowError(
            f"model must score at least one row: got an error on every row, {first_reason}; "
            "correct the model or the rows, or pass max_quarantined_rows '100%' to quarantine "
            "all rows"
        )
