"""The expected seconds of a dry run, against the seconds that the run then takes."""

from __future__ import annotations

import time

from benchmarks.common import Figure, fresh, model, rows_table, session

ROWS = 2_000_000


def run() -> list[Figure]:
    """Estimate and run three models, and return the figures."""
    from dbx_aml import score_table

    spark = session()
    table = rows_table(spark, ROWS, 8)
    figures = []
    for kind in ("linear", "lightgbm", "forest"):
        arguments = {"model_uri": model(kind), "input_table": table, "spark": spark}
        score_table(**arguments, output_table=f"delta.`{fresh('out_warm')}`")
        output = f"delta.`{fresh('out_estimate')}`"
        planned = score_table(**arguments, output_table=output, dry_run=True)
        expected_s = (planned.plan or {})["expected_seconds"]
        start_time = time.perf_counter()
        score_table(**arguments, output_table=output)
        took_s = time.perf_counter() - start_time
        is_near = 1 / 1.5 <= expected_s / took_s <= 1.5
        figures.append(
            Figure(
                f"{kind}, 2M rows, expected", expected_s, took_s, "the run", "within 1.5x", is_near
            )
        )
    return figures
