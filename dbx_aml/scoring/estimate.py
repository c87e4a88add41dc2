"""Estimate a job before it runs: rows, the cost of its model, time and core hours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbx_aml._common.json_content import parse_json
from dbx_aml.scoring import plan
from dbx_aml.scoring.bind import BoundRequest
from dbx_aml.scoring.ledger import Ledger
from dbx_aml.scoring.output_rows import needed_columns, output_expressions
from dbx_aml.scoring.partitions import core_count

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# A job of fewer rows says more about the start of Spark than about a row.
_MIN_ROWS = 100_000


def estimate_request(
    bound: BoundRequest, rows: DataFrame, row_count: int | None, *, measures: bool
) -> plan.Estimate:
    """Estimate the job of a request.

    Args:
        bound: Bound request.
        rows: Rows of the input that pass the filter.
        row_count: Number of the rows, at most; None where it is unknown.
        measures: Whether the model is timed on some rows, for at most 5 seconds, and the estimate
            is corrected by the last job of the output table.
    """
    cost = bound.model_udf.measure_cost(needed_columns(bound, rows)) if measures else None
    expressions = output_expressions(bound, 0, None)
    read_columns = needed_columns(bound, rows).columns
    model_udf = bound.model_udf
    bound_columns = len(model_udf.bound_columns) + len(model_udf.challenger_columns)
    return plan.estimate_job(
        rows=row_count,
        values_per_row=len(read_columns) + bound_columns + len(expressions),
        cores=core_count(bound.spark),
        seconds_per_row=cost.seconds_per_row if cost else None,
        memory_bytes=cost.memory_bytes if cost else None,
        correction=_correction(bound) if measures else 1.0,
    )


def _correction(bound: BoundRequest) -> float:
    """Return how much longer than its estimate the newest large job of the output table took."""
    output = bound.resolved.output
    if output is None:
        return 1.0
    for entry in Ledger(bound.spark, bound.request.output_table, output.id).read():
        noted = parse_json(entry.plan or "{}").get("estimate", {})
        if entry.rows_read >= _MIN_ROWS and noted.get("seconds"):
            return float(entry.seconds / noted["seconds"] * noted["correction"])
    return 1.0


def estimate_line(bound: BoundRequest, estimate: plan.Estimate) -> str:
    """Return the plan of a job on one line, for example "plan: 4,000,000 rows, about 9 s"."""
    texts = [f"plan: {bound.resolved.model.uri}"]
    if estimate.rows is not None:
        texts.append(f"{'at most ' if bound.request.row_filter else ''}{estimate.rows:,} rows")
    if estimate.seconds_per_row is not None:
        texts.append(f"{estimate.seconds_per_row * 1e6:,.3g} µs a row in the model")
    if estimate.seconds is not None:
        texts.append(f"about {estimate.seconds:,.0f} s on {estimate.cores} cores")
    return ", ".join(texts)


def describe_estimate(estimate: plan.Estimate, price_per_core_hour: float | None) -> dict[str, Any]:
    """Return an estimate as plain data with names for people; what is unknown is left out."""
    data: dict[str, Any] = {
        "rows_to_read": estimate.rows,
        "cores": estimate.cores,
        "microseconds_per_row": _rounded(estimate.seconds_per_row, 1e6),
        "memory_per_worker_mib": _rounded(estimate.memory_bytes, 2**-20),
        "expected_seconds": _rounded(estimate.seconds, 1),
        "expected_core_hours": _rounded(estimate.core_hours, 1),
    }
    if price_per_core_hour is not None and estimate.core_hours is not None:
        data["expected_cost"] = _rounded(estimate.core_hours, price_per_core_hour)
    return {name: value for name, value in data.items() if value is not None}


def _rounded(value: float | None, factor: float) -> float | None:
    return None if value is None else float(f"{value * factor:.3g}")
