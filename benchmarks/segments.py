"""One model a segment: in one pass, against `applyInPandas` by segment and a union of scorings."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from pyspark.sql import functions as F

from benchmarks.common import COLUMNS, ROOT, Figure, fresh, medians, rows_table, session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS, SEGMENTS = 1_000_000, 20


def run() -> list[Figure]:
    """Measure the three ways, and return the figures."""
    from dbx_aml import score_table

    spark = session()
    models = {f"s{number}": _model(number) for number in range(SEGMENTS)}
    table = _table(spark)

    def in_one_pass() -> None:
        score_table(
            segment_column="segment",
            segment_models=models,
            input_table=table,
            output_table=f"delta.`{fresh('out_segments')}`",
            spark=spark,
        )

    one_pass_s, grouped_s, union_s = medians(
        in_one_pass,
        lambda: _write(_by_group(spark.table(table), models), "out_groups"),
        lambda: _write(_union(spark, table, models), "out_union"),
    )
    name = f"{SEGMENTS} segments, 1M rows"
    return [
        Figure(name, one_pass_s, grouped_s, "applyInPandas", "not slower", one_pass_s <= grouped_s),
        Figure(
            name, one_pass_s, union_s, "union of scorings", "5x faster", union_s >= 5 * one_pass_s
        ),
    ]


def _model(number: int) -> str:
    import mlflow.sklearn
    from sklearn.linear_model import LinearRegression

    path = ROOT / f"model_segment_{number}"
    if not path.exists():
        x = pd.DataFrame(np.random.default_rng(number).random((1000, 10)), columns=COLUMNS)
        y = x.to_numpy() @ np.arange(10.0) + number
        mlflow.sklearn.save_model(
            LinearRegression().fit(x, y),
            path,
            serialization_format="cloudpickle",
            signature=infer_signature(x, y),
        )
    return str(path)


def _table(spark: SparkSession) -> str:
    path = ROOT / f"segments_{ROWS}"
    if not (path / "_delta_log").exists():
        segment = F.expr(f"concat('s', pmod(hash(id), {SEGMENTS}))")
        rows = spark.table(rows_table(spark, ROWS, 8)).withColumn("segment", segment)
        rows.write.format("delta").save(str(path))
    return f"delta.`{path}`"


def _by_group(rows: DataFrame, models: dict[str, str]) -> DataFrame:
    def predict(group: pd.DataFrame) -> pd.DataFrame:
        loaded = mlflow.pyfunc.load_model(models[group["segment"].iloc[0]])
        return group.assign(prediction=loaded.predict(group[COLUMNS]))

    schema = ", ".join(f"{f.name} {f.dataType.simpleString()}" for f in rows.schema.fields)
    return rows.groupBy("segment").applyInPandas(predict, f"{schema}, prediction double")


def _union(spark: SparkSession, table: str, models: dict[str, str]) -> DataFrame:
    parts = []
    for segment, uri in models.items():
        predict = mlflow.pyfunc.spark_udf(spark, uri, result_type="double")
        rows = spark.table(table).where(F.col("segment") == segment)
        parts.append(rows.withColumn("prediction", predict(*COLUMNS)))
    return reduce(lambda first, second: first.unionByName(second), parts)


def _write(frame: DataFrame, name: str) -> None:
    frame.write.format("delta").mode("overwrite").save(str(fresh(name)))
