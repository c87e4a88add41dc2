"""1,000 rows: what a job costs whatever is in it, and a task, and not paying for it 64 times."""

from __future__ import annotations

import uuid

from pyspark.sql import functions as F

from benchmarks.common import (
    COLUMNS,
    Figure,
    fresh,
    measure_dbx_aml,
    medians,
    model,
    rows_table,
    session,
    snippet,
)

# Most seconds that scoring may take beyond the snippet.
FIXED_COST_S = 0.4
# Java compiles what a job needs only after some jobs.
WARM_UP = 3


def run() -> list[Figure]:
    """Measure scoring and the snippet, and return the figures."""
    spark = session()
    uri = model("linear")
    table = rows_table(spark, 1000, 1)
    there = f"delta.`{fresh('out_there')}`"

    def score_into_new() -> None:
        measure_dbx_aml(spark, uri, table, "out_ours")

    def score_into_existing() -> None:
        measure_dbx_aml(spark, uri, table, "", output_table=there, batch_id=uuid.uuid4().hex)

    def score_plainly() -> None:
        snippet(spark, uri, table, "out_snippet")

    for _ in range(WARM_UP):
        score_into_new()
        score_into_existing()
    new_s, existing_s, snippet_s = medians(score_into_new, score_into_existing, score_plainly)
    figures = [
        Figure(
            f"1,000 rows, {name}",
            dbx_aml_s,
            snippet_s,
            "snippet",
            f"at most {FIXED_COST_S} s more",
            dbx_aml_s <= snippet_s + FIXED_COST_S,
            f"{dbx_aml_s - snippet_s:.2f} s more",
        )
        for name, dbx_aml_s in (("new output", new_s), ("output with batches", existing_s))
    ]
    many = spark.range(0, 1000, numPartitions=64)
    many = many.select("id", *(F.rand(i).alias(name) for i, name in enumerate(COLUMNS)))
    many.createOrReplaceTempView("tiny")
    dbx_aml_s, snippet_s = medians(
        lambda: measure_dbx_aml(spark, uri, "tiny", "out_ours", batch_id=uuid.uuid4().hex),
        lambda: snippet(spark, uri, "tiny", "out_snippet"),
    )
    return [
        *figures,
        Figure(
            "1,000 rows in 64 partitions",
            dbx_aml_s,
            snippet_s,
            "snippet",
            "4x faster",
            snippet_s >= 4 * dbx_aml_s,
        ),
    ]
