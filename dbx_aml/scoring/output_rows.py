"""The rows of the two tables: predictions with their provenance, and quarantined input rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring.column_binding import (
    PREDICTION,
    QUARANTINE,
    SCORING,
    prediction_expression,
)
from dbx_aml.scoring.delta_table import column_types
from dbx_aml.scoring.guard import QUARANTINED, REASON
from dbx_aml.scoring.model_udf import RESULT
from dbx_aml.scoring.request import Batch

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Observation

    from dbx_aml.scoring.bind import BoundRequest


def needed_columns(bound: BoundRequest, rows: DataFrame) -> DataFrame:
    """Return just the columns that the output table or the model needs."""
    model_columns = (column.column for column in bound.model_udf.bound_columns)
    names = dict.fromkeys([*bound.resolved.output_columns, *model_columns])
    return rows.select(*(F.col(sql_identifier(name)) for name in names))


def scored_rows(
    bound: BoundRequest, rows: DataFrame, batch: Batch, *, strict: bool
) -> tuple[DataFrame, Observation]:
    """Return the rows for the output table, and the observed count of quarantined rows.

    Shape: n rows -> n minus the quarantined rows; `output_columns`, `prediction`, `_scoring`.
    """
    frame, observation = bound.model_udf.with_result(needed_columns(bound, rows), strict=strict)
    return _output_columns(bound, frame, batch), observation


def output_types(bound: BoundRequest, rows: DataFrame) -> dict[str, str]:
    """Return columns and Spark types of the output rows without running the model."""
    no_batch = Batch(batch_id="", app_id="", app_version=0, input_version=None)
    frame = bound.model_udf.with_empty_result(needed_columns(bound, rows))
    return column_types(_output_columns(bound, frame, no_batch))


def quarantined_rows(bound: BoundRequest, rows: DataFrame, batch: Batch) -> DataFrame:
    """Return the rows for the quarantine table.

    Shape: n rows -> the quarantined rows; every input column, `_quarantine`.
    """
    quarantine = F.struct(
        F.col(f"{RESULT}.{REASON}").alias("reason"),
        F.lit(batch.batch_id).alias("batch_id"),
        F.lit(bound.resolved.model.uri).alias("model_uri"),
        F.lit(batch.input_version).cast("bigint").alias("input_version"),
        _current_time().alias("quarantined_at"),
    )
    columns = [F.col(sql_identifier(name)) for name in rows.columns]
    frame = bound.model_udf.with_reason(rows).where(F.col(f"{RESULT}.{QUARANTINED}"))
    return frame.select(*columns, quarantine.alias(QUARANTINE))


def _output_columns(bound: BoundRequest, frame: DataFrame, batch: Batch) -> DataFrame:
    model = bound.resolved.model
    # The batch first: it is the one field of these that Delta keeps statistics of.
    scoring = F.struct(
        F.lit(batch.batch_id).alias("batch_id"),
        F.lit(model.uri).alias("model_uri"),
        F.lit(model.name).cast("string").alias("model_name"),
        F.lit(model.version).cast("string").alias("model_version"),
        F.lit(model.run_id).cast("string").alias("model_run_id"),
        F.lit(batch.input_version).cast("bigint").alias("input_version"),
        _current_time().alias("scored_at"),
    )
    return frame.where(~F.col(f"{RESULT}.{QUARANTINED}")).select(
        *(F.col(sql_identifier(name)) for name in bound.resolved.output_columns),
        F.expr(prediction_expression(model.outputs, RESULT)).alias(PREDICTION),
        scoring.alias(SCORING),
    )


def _current_time() -> Column:
    return F.timestamp_micros(F.lit(int(datetime.now(UTC).timestamp() * 1e6)))
