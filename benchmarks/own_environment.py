"""A model in its own environment, against this machine's packages and MLflow's `env_manager`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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

ROWS, FEW_ROWS = 2_000_000, 200_000


def run() -> list[Figure]:
    """Measure both models in each environment, and return the figures."""
    # MLflow starts uv by its name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    spark = session()
    many, few = rows_table(spark, ROWS, 8), rows_table(spark, FEW_ROWS, 8)
    figures = []
    for kind in ("linear", "lightgbm"):
        uri = model(kind)
        figures += _against_local(spark, kind, many)
        own_s, served_s = medians(
            lambda uri=uri: measure_dbx_aml(spark, uri, few, "out_own", environment="model"),
            lambda uri=uri: _with_model_server(spark, uri, few),
        )
        name, is_faster = f"{kind}, {FEW_ROWS:,} rows", served_s >= 5 * own_s
        figures.append(Figure(name, own_s, served_s, "`env_manager='uv'`", "5x faster", is_faster))
    return figures


def _against_local(spark: SparkSession, kind: str, table: str) -> list[Figure]:
    """Measure two jobs in the model's environment, then two with this machine's packages.

    The first job of an environment starts its processes; the next one finds them.
    """

    def own() -> None:
        measure_dbx_aml(spark, model(kind), table, "out_own", environment="model")

    def local() -> None:
        measure_dbx_aml(spark, model(kind), table, "out_local")

    first_own_s, next_own_s, first_local_s, next_local_s = medians(own, own, local, local)
    pairs = {"first": (first_own_s, first_local_s), "next": (next_own_s, next_local_s)}
    return [
        Figure(
            f"{kind}, {ROWS // 1_000_000}M rows, {name} job", own_s, local_s, "local",
            "at most 1.30x", own_s <= 1.3 * local_s,
        )
        for name, (own_s, local_s) in pairs.items()
    ]  # fmt: skip


def _with_model_server(spark: SparkSession, uri: str, table: str) -> None:
    """Score as MLflow's documentation does for a model in its own environment."""
    import mlflow.pyfunc

    predict = mlflow.pyfunc.spark_udf(spark, uri, result_type="double", env_manager="uv")
    frame = spark.table(table).withColumn("prediction", predict(*COLUMNS))
    frame.write.format("delta").mode("overwrite").save(str(fresh("out_served")))
