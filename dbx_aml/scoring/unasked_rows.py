"""Rows of a batch without a prediction: deleted rows, and messages that cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from dbx_aml.scoring.model_udf import ModelUdf

# Columns that a batch may have: whether the input has the row no more, and why a message cannot be
# read (null where it can).
IS_DELETED = "_dbx_aml_is_deleted"
UNREADABLE = "_dbx_aml_unreadable"


def rows_to_ask(rows: DataFrame) -> DataFrame:
    """Return the rows for the model, with the same columns."""
    if IS_DELETED in rows.columns:
        rows = rows.where(f"NOT {IS_DELETED}")
    if UNREADABLE in rows.columns:
        rows = rows.where(F.col(UNREADABLE).isNull())
    return rows


def with_result(model_udf: ModelUdf, rows: DataFrame, *, strict: bool) -> DataFrame:
    """Return all rows with the model's result.

    Shape:
        n rows -> n rows. The result of a deleted row is null. The result of a message that cannot
        be read has only the reason.
    """
    results = model_udf.with_result(rows_to_ask(rows), strict=strict)
    if IS_DELETED in rows.columns:
        results = results.unionByName(model_udf.with_empty_result(rows.where(IS_DELETED)))
    if UNREADABLE in rows.columns:
        unreadable = rows.where(F.col(UNREADABLE).isNotNull())
        results = results.unionByName(model_udf.with_reason(unreadable, UNREADABLE))
    return results
