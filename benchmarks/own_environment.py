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
        own_s, local_s = medians(
            lambda uri=uri: measure_dbx_aml(spark, uri, many, "out_own", environment="model"),
            lambda uri=uri: measure_dbx_aml(spark, uri, many, "out_local"),
        )
        name, is_near = f"{kind}, {ROWS // 1_000_000}M rows", own_s <= 1.3 * local_s
        figures.append(Figure(name, own_s, local_s, "local", "at most 1.30x", is_near))
        own_s, served_s = medians(
            lambda uri=uri: measure_dbx_aml(spark, uri, few, "out_own", environment="model"),
            lambda uri=uri: _with_model_server(spark, uri, few),
        )
        name, is_faster = f"{kind}, {FEW_ROWS:,} rows", served_s >= 5 * own_s
        figures.append(Figure(name, own_s, served_s, "`env_manager='uv'`", "5x faster", is_faster))
    return figures


def _with_model_server(spark: SparkSession, uri: str, table: str) -> None:
    """Score as MLflow's documentation does for a model in its own environment."""
    import mlflow.pyfunc

    predict = mlflow.pyfunc.spark_udf(spark, uri, result_type="double", env_manager="uv")
    frame = spark.table(table).withColumn("prediction", predict(*COLUMNS))
    frame.write.format("delta").mode("overwrite").save(str(fresh("out_served")))
