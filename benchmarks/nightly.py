"""A table that grew by 1%: score only the new rows against scoring all rows again."""

from __future__ import annotations

import shutil
import statistics
import time

from benchmarks.common import (
    COLUMNS,
    ROOT,
    ROUNDS,
    Figure,
    fresh,
    measure_dbx_aml,
    model,
    rows_table,
    session,
    snippet,
)

NEW = 40_000
# Nights until Java has compiled what a stream needs.
WARM_UP = 2


def _grow(spark, path):
    from pyspark.sql import functions as F

    frame = spark.range(0, NEW, numPartitions=1)
    frame = frame.select("id", *(F.rand(i).alias(name) for i, name in enumerate(COLUMNS)))
    frame.write.format("delta").mode("append").save(str(path))


def _nights(spark, kind, rows, files):
    """Return the median seconds of a night's new rows, on a copy of the table already scored."""
    source = rows_table(spark, rows, files).split("`")[1]
    path = ROOT / f"growing_{rows}"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(source, path)
    table, uri, out = f"delta.`{path}`", model(kind), f"delta.`{fresh('out_nightly')}`"
    arguments = {"output_table": out, "write_mode": "incremental"}
    measure_dbx_aml(spark, uri, table, "", **arguments)
    taken = []
    for _ in range(WARM_UP + ROUNDS):
        _grow(spark, path)
        started = time.perf_counter()
        measure_dbx_aml(spark, uri, table, "", **arguments)
        taken.append(time.perf_counter() - started)
    shutil.rmtree(path)
    return statistics.median(taken[WARM_UP:])


def run() -> list[Figure]:
    """Measure scoring and the snippet, and return the figures."""
    spark = session()
    figures = []
    table = rows_table(spark, 4_000_000, 8)
    for kind, factor in (("lightgbm", 9), ("linear", 7)):
        night = _nights(spark, kind, 4_000_000, 8)
        taken = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            snippet(spark, model(kind), table, "out_snippet")
            taken.append(time.perf_counter() - started)
        all_again = statistics.median(taken)
        figures.append(
            Figure(
                f"{kind}, 1% new of 4M",
                night,
                all_again,
                "score all, overwrite",
                f"{factor}x faster",
                all_again >= factor * night,
            )
        )
    larger = _nights(spark, "linear", 16_000_000, 32)
    figures.append(
        Figure(
            "linear, the same new rows on 16M",
            larger,
            night,
            "on 4M",
            "does not grow",
            larger <= 1.25 * night,
        )
    )
    return figures
