"""1,000 rows in 64 partitions: what a task costs, and not paying for it 64 times."""

from __future__ import annotations

import uuid

from pyspark.sql import functions as F

from benchmarks.common import COLUMNS, Figure, medians, model, ours, session, snippet


def run() -> list[Figure]:
    """Measure both sides and return the figures."""
    spark = session()
    many = spark.range(0, 1000, numPartitions=64)
    many = many.select("id", *(F.rand(i).alias(name) for i, name in enumerate(COLUMNS)))
    many.createOrReplaceTempView("tiny")
    uri = model("linear")
    us, them = medians(
        lambda: ours(spark, uri, "tiny", "out_ours", batch_id=uuid.uuid4().hex),
        lambda: snippet(spark, uri, "tiny", "out_snippet"),
    )
    return [Figure("1,000 rows in 64 partitions", us, them, "snippet", "4x faster", them >= 4 * us)]
