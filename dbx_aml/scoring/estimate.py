"""Estimate a job before it runs: rows, the cost of its model, time and core hours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
        row_count: Number of the rows, at most; None makes no estimate.
        measures: Whether the model is timed on some rows, for at most 5 seconds.
    """
    if row_count is None:
        return plan.Estimate()
    cost = bound.model_udf.measure_cost(needed_columns(bound, rows)) if measures else None
    expressions = output_expressions(bound, 0, None)
    read_columns = needed_columns(bound, rows).columns
    estimate = plan.estimate_job(
        rows=row_count,
        values_per_row=len(read_columns) + len(bound.model_udf.all_columns) + len(expressions),
        cores=core_count(bound.spark),
        seconds_per_row=cost.seconds_per_row if cost else None,
        memory_bytes=cost.memory_bytes if cost else None,
        last_run=_last_run(bound),
    )
    return replace(estimate, challenger_factor=cost.challenger_factor if cost else None)


def _last_run(bound: BoundRequest) -> tuple[int, float] | None:
    """Return rows and seconds of the newest batch of the same models that was large enough."""
    resolved = bound.resolved
    if resolved.output is None:
        return None
    challenger = resolved.challenger.content if resolved.challenger is not None else None
    for entry in Ledger(bound.spark, bound.request.output_table, resolved.output.id).read():
        identity = entry.facts.identity
        contents = (
            identity.get("model_content"),
            (identity.get("challenger") or {}).get("model_content"),
        )
        if contents == (resolved.model.content, challenger) and entry.rows_read >= _MIN_ROWS:
            return entry.rows_read, entry.seconds
    return None


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
    """Return an estimate as plain data with names for people, without unknown values."""
    data: dict[str, Any] = {
        "rows_to_read": estimate.rows,
        "cores": estimate.cores,
        "microseconds_per_row": _rounded(estimate.seconds_per_row, 1e6),
        "challenger_times_model": _rounded(estimate.challenger_factor, 1),
        "memory_per_worker_mib": _rounded(estimate.memory_bytes, 2**-20),
        "expected_seconds": _rounded(estimate.seconds, 1),
        "expected_core_hours": _rounded(estimate.core_hours, 1),
    }
    if price_per_core_hour is not None and estimate.core_hours is not None:
        data["expected_cost"] = _rounded(estimate.core_hours, price_per_core_hour)
    return {name: value for name, value in data.items() if value is not None}


def _rounded(value: float | None, factor: float) -> float | None:
    return None if value is None else float(f"{value * factor:.3g}")
