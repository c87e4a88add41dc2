"""Champion and challenger in one pass, against two `spark_udf`s in one select and two runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow.pyfunc

from benchmarks.common import (
    COLUMNS,
    Figure,
    fresh,
    measure_dbx_aml,
    medians,
    model,
    rows_table,
    session,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 2_000_000


def run() -> list[Figure]:
    """Measure one pass with both models, and return the figures."""
    spark = session()
    table = rows_table(spark, ROWS, 8)
    champion, challenger = model("linear"), model("lightgbm")
    one_pass_s, two_functions_s, alone_s, other_s = medians(
        lambda: measure_dbx_aml(spark, champion, table, "out_both", challenger_uri=challenger),
        lambda: _two_functions(spark, [champion, challenger], table),
        lambda: measure_dbx_aml(spark, champion, table, "out_champion"),
        lambda: measure_dbx_aml(spark, challenger, table, "out_challenger"),
    )
    name = "linear and LightGBM, 2M rows"
    runs_s = alone_s + other_s
    return [
        Figure(
            name,
            one_pass_s,
            two_functions_s,
            "two `spark_udf`s",
            "faster",
            one_pass_s < two_functions_s,
        ),
        Figure(name, one_pass_s, runs_s, "two runs", "faster", one_pass_s < runs_s),
    ]


def _two_functions(spark: SparkSession, uris: list[str], table: str) -> None:
    frame = spark.table(table)
    for number, uri in enumerate(uris):
        predict = mlflow.pyfunc.spark_udf(spark, uri, result_type="double")
        frame = frame.withColumn(f"prediction_{number}", predict(*COLUMNS))
    frame.write.format("delta").mode("overwrite").save(str(fresh("out_two_functions")))
