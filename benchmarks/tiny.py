"""1,000 rows in 64 partitions: what a task costs, and not paying for it 64 times."""

from __future__ import annotations

import uuid

from pyspark.sql import functions as F

from benchmarks.common import COLUMNS, Figure, measure_dbx_aml, medians, model, session, snippet


def run() -> list[Figure]:
    """Measure scoring and the snippet, and return the figures."""
    spark = session()
    many = spark.range(0, 1000, numPartitions=64)
    many = many.select("id", *(F.rand(i).alias(name) for i, name in enumerate(COLUMNS)))
    many.createOrReplaceTempView("tiny")
    uri = model("linear")
    dbx_aml_s, snippet_s = medians(
        lambda: measure_dbx_aml(spark, uri, "tiny", "out_ours", batch_id=uuid.uuid4().hex),
        lambda: snippet(spark, uri, "tiny", "out_snippet"),
    )
    return [
        Figure(
            "1,000 rows in 64 partitions",
            dbx_aml_s,
            snippet_s,
            "snippet",
            "4x faster",
            snippet_s >= 4 * dbx_aml_s,
        )
    ]
