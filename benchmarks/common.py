"""Session, tables, models and measurements that the benchmarks share."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(os.environ.get("DBX_AML_BENCH_ROOT", ".dbx_aml/bench")).absolute()
COLUMNS = [f"x{i}" for i in range(10)]
ROUNDS = 3
# Rows that Arrow hands to a Python function at once, by default.
BATCH = 10_000


@dataclass(frozen=True)
class Figure:
    """A line of the results: the name, both measurements in seconds, and the goal."""

    name: str
    ours_s: float
    theirs_s: float
    theirs: str
    goal: str
    met: bool
    note: str = ""

    @property
    def line(self) -> str:
        """The figure as a row of the results' table."""
        ratio = self.theirs_s / self.ours_s
        ratio_text = f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x of it"
        met = "yes" if self.met else "no"
        return (
            f"| {self.name} | {self.ours_s:.2f} | {self.theirs_s:.2f} | {self.theirs} "
            f"| {ratio_text} | {self.goal} | {met} | {self.note} |"
        )


def session() -> SparkSession:
    """Return the session of all benchmarks: every core, Delta, tables under one folder."""
    from dbx_aml.local.spark import local_spark

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return local_spark(ROOT, master=f"local[{os.cpu_count()}]")


def medians(*measurements: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
    """Return the median seconds of each measurement; they take turns, after a round to warm up."""
    times: list[list[float]] = [[] for _ in measurements]
    for number in range(rounds + 1):
        for measure, seconds in zip(measurements, times, strict=True):
            start_time = time.perf_counter()
            measure()
            if number:
                seconds.append(time.perf_counter() - start_time)
    return [statistics.median(seconds) for seconds in times]


def rows_table(spark: SparkSession, rows: int, files: int, *, name: str = "rows") -> str:
    """Return a Delta table of `rows` x (id, ten doubles) in `files` files, made once."""
    path = ROOT / f"{name}_{rows}_{files}"
    if not (path / "_delta_log").exists():
        from pyspark.sql import functions as F

        columns = [F.rand(i).alias(name) for i, name in enumerate(COLUMNS)]
        frame = spark.range(0, rows, numPartitions=files).select("id", *columns)
        frame.write.format("delta").mode("overwrite").save(str(path))
    return f"delta.`{path}`"


def model(kind: str) -> str:
    """Return the folder of a model of ten doubles: linear, lightgbm or forest; made once."""
    import mlflow
    from mlflow.models import infer_signature

    path = ROOT / f"model_{kind}"
    if path.exists():
        return str(path)
    generator = np.random.default_rng(0)
    x = pd.DataFrame(generator.random((20_000, 10)), columns=COLUMNS)
    y = x.to_numpy() @ np.arange(10.0) + generator.random(len(x))
    keep: dict[str, Any] = {"signature": infer_signature(x, y)}
    if kind == "lightgbm":
        import lightgbm

        fitted = lightgbm.LGBMRegressor(n_estimators=100, verbose=-1).fit(x, y)
        mlflow.lightgbm.save_model(fitted, path, **keep)
    else:
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.linear_model import LinearRegression

        fitted = {
            "linear": LinearRegression(),
            "forest": RandomForestRegressor(100, max_depth=10, n_jobs=-1, random_state=0),
        }[kind].fit(x, y)
        # cloudpickle knowingly: the file is ours, and MLflow's default refuses a forest.
        mlflow.sklearn.save_model(fitted, path, serialization_format="cloudpickle", **keep)
    return str(path)


def fresh(name: str) -> Path:
    """Return a folder for an output that does not exist."""
    path = ROOT / name
    for suffix in ("", "_quarantine", "_checkpoint", "_batches"):
        shutil.rmtree(f"{path}{suffix}", ignore_errors=True)
    return path


def measure_dbx_aml(
    spark: SparkSession, model_uri: str, table: str, name: str, **arguments: Any
) -> None:
    """Score with `score_table` into a fresh table of this name, or into the `output_table`."""
    from dbx_aml import score_table

    output = f"delta.`{fresh(name)}`" if name else arguments.pop("output_table")
    score_table(
        model_uri=model_uri, input_table=table, output_table=output, spark=spark, **arguments
    )


def snippet(spark: SparkSession, model_uri: str, table: str, name: str) -> None:
    """Score as the documentation does: `spark_udf` on the columns, then write."""
    import mlflow.pyfunc

    predict = mlflow.pyfunc.spark_udf(spark, model_uri, result_type="double")
    frame = spark.table(table).withColumn("prediction", predict(*COLUMNS))
    frame.write.format("delta").mode("overwrite").save(str(fresh(name)))


def pass_through(spark: SparkSession, table: str, name: str) -> None:
    """Do what any scoring must: read, hand each row to Python and back, write."""
    from pyspark.sql import functions as F

    @F.pandas_udf("double")
    def first(batches: Iterator[pd.DataFrame]) -> Iterator[pd.Series]:
        for batch in batches:
            yield batch.iloc[:, 0]

    frame = spark.table(table).withColumn("prediction", first(F.struct(*COLUMNS)))
    frame.write.format("delta").mode("overwrite").save(str(fresh(name)))


def _predict(arguments: tuple[str, int]) -> float:
    os.environ["OMP_NUM_THREADS"] = "1"
    path, rows = arguments
    import mlflow.pyfunc

    loaded = mlflow.pyfunc.load_model(path, suppress_warnings=True)
    if hasattr(loaded._model_impl, "sklearn_model"):
        loaded._model_impl.sklearn_model.n_jobs = None
    batch = pd.DataFrame(np.random.default_rng(1).random((BATCH, 10)), columns=COLUMNS)
    loaded.predict(batch)
    started = time.perf_counter()
    for _ in range(rows // BATCH):
        loaded.predict(batch)
    return time.perf_counter() - started


def predict_only(model_uri: str, rows: int) -> float:
    """Return the seconds that predicting takes in one process a core, nothing else counted."""
    cores = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return max(pool.map(_predict, [(model_uri, rows // cores)] * cores))
