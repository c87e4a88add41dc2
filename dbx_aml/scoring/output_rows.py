"""The rows of the two tables: predictions with their provenance, and quarantined input rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from dbx_aml._common.text import sql_identifier, sql_literal
from dbx_aml.scoring.challenger import challenger_expression
from dbx_aml.scoring.column_binding import (
    CHALLENGER,
    PREDICTION,
    QUARANTINE,
    SCORING,
    prediction_expression,
)
from dbx_aml.scoring.delta_table import column_types
from dbx_aml.scoring.guard import REASON
from dbx_aml.scoring.guard_several import MODEL_VERSION
from dbx_aml.scoring.model_udf import RESULT

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from dbx_aml.scoring.bind import BoundRequest
    from dbx_aml.scoring.request import BatchFacts

# SQL conditions on a row with the model's result.
IS_SCORED = f"{RESULT}.{REASON} = ''"
IS_QUARANTINED = f"{RESULT}.{REASON} <> ''"
# Start of the columns that scoring adds to rows on their way.
_OWN_PREFIX = "_dbx_aml_"


def needed_columns(bound: BoundRequest, rows: DataFrame) -> DataFrame:
    """Return just the columns that the output table or the model needs."""
    names = dict.fromkeys([*bound.resolved.output_columns, *bound.model_udf.column_names])
    return rows.select(*(F.col(sql_identifier(name)) for name in names))


def output_expressions(
    bound: BoundRequest, batch: int, model_version: str | None
) -> dict[str, str]:
    """Return the output's columns and their SQL, on rows with the model's result.

    Two integers a row: seven texts doubled the cost of writing. The ledger has the rest.
    """
    version = model_version if model_version and model_version.isdigit() else "NULL"
    if bound.resolved.segments is not None:
        version = f"nullif({RESULT}.{MODEL_VERSION}, 0)"
    model, challenger = bound.resolved.model, bound.resolved.challenger
    beside = {}
    if challenger is not None:
        beside[CHALLENGER] = challenger_expression(model, challenger, RESULT)
    return {
        **{name: sql_identifier(name) for name in bound.resolved.output_columns},
        PREDICTION: prediction_expression(model.outputs, RESULT),
        SCORING: f"named_struct('batch', {batch}L, 'model_version', CAST({version} AS INT))",
        **beside,
    }


def scored_rows(bound: BoundRequest, results: DataFrame, facts: BatchFacts) -> DataFrame:
    """Return the rows for the output table.

    Shape: n rows with the model's result -> n minus the quarantined rows; `output_columns`,
        `prediction`, `_scoring`; with a challenger `_challenger`, too.
    """
    return _select_output(bound, results.where(IS_SCORED), facts.batch, facts.model_version)


def output_types(bound: BoundRequest, rows: DataFrame) -> dict[str, str]:
    """Return columns and Spark types of the output rows without running the model."""
    results = bound.model_udf.with_empty_result(needed_columns(bound, rows))
    return column_types(_select_output(bound, results, 0, None))


def _select_output(
    bound: BoundRequest, results: DataFrame, batch: int, model_version: str | None
) -> DataFrame:
    return _select(results, output_expressions(bound, batch, model_version))


def _select(rows: DataFrame, expressions: Mapping[str, str]) -> DataFrame:
    return rows.selectExpr(*aliased(expressions))


def aliased(expressions: Mapping[str, str]) -> list[str]:
    """Return the SQL of columns with their names, for a SELECT."""
    return [f"{expression} AS {sql_identifier(name)}" for name, expression in expressions.items()]


def quarantined_rows(rows: DataFrame, reason: str, facts: BatchFacts) -> DataFrame:
    """Return the rows for the quarantine table.

    Args:
        rows: Rows to quarantine: the input's columns, and at most scoring's own.
        reason: SQL of the reason.
        facts: Batch.

    Shape: n rows -> n rows; every input column, `_quarantine`.
    """
    return _select(rows, quarantine_expressions(rows.columns, reason, facts))


def quarantine_expressions(
    columns: Sequence[str], reason: str, facts: BatchFacts
) -> dict[str, str]:
    """Return the quarantine's columns and their SQL, on rows of the input.

    Args:
        columns: Columns of the rows: the input's, and at most scoring's own.
        reason: SQL of the reason.
        facts: Batch.
    """
    version = "NULL" if facts.input_version_to is None else str(facts.input_version_to)
    micros = int(datetime.now(UTC).timestamp() * 1e6)
    fields = {
        "reason": reason,
        "batch": f"{facts.batch}L",
        "batch_id": sql_literal(facts.batch_id),
        "model_uri": sql_literal(facts.model_uri),
        "input_table": sql_literal(facts.input_table),
        "input_version": f"CAST({version} AS BIGINT)",
        "quarantined_at": f"timestamp_micros({micros})",
    }
    struct = ", ".join(f"'{name}', {expression}" for name, expression in fields.items())
    names = [name for name in columns if not name.startswith(_OWN_PREFIX)]
    return {**{n: sql_identifier(n) for n in names}, QUARANTINE: f"named_struct({struct})"}
