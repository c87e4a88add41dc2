"""Rows that the model fails on: one in 10,000 and one in 100, against the same rows without.

A NaN tells which row fails: rows with NaN leave the batch first, and the others need one more call.
A finite value that the model refuses tells nothing, so the batch is halved until the row is alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow.pyfunc
import pandas as pd
import psutil

from benchmarks.common import (
    COLUMNS,
    ROOT,
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

ROWS, FEW_ROWS, FEWEST_ROWS = 4_000_000, 400_000, 100_000


def run() -> list[Figure]:
    """Measure each share of failing rows, and return the figures."""
    spark = session()
    linear, refusing = model("linear"), _refusing_model()
    figures = []
    for uri, value, name in ((linear, math.nan, "NaN"), (refusing, -1.0, "refused")):
        figures.append(_against_none(spark, uri, ROWS, 10_000, value, name, "at most 1.25x"))
        figures.append(_against_none(spark, uri, FEW_ROWS, 100, value, name, "measured"))
    table = _table(spark, FEWEST_ROWS, 10_000, -1.0)
    dbx_aml_s, by_hand_s = medians(
        lambda: measure_dbx_aml(spark, refusing, table, "out_failing"),
        lambda: _row_by_row(spark, refusing, table),
    )
    name = f"1 in 10,000 of {FEWEST_ROWS:,} rows refused"
    is_faster = dbx_aml_s < by_hand_s
    figures.append(Figure(name, dbx_aml_s, by_hand_s, "row by row", "faster", is_faster))
    return figures


def _against_none(
    spark: SparkSession, uri: str, rows: int, one_in: int, value: float, name: str, goal: str
) -> Figure:
    peaks: dict[str, list[int]] = {"failing": [], "none": []}

    def score(kind: str, table: str) -> None:
        # All rows are judged to be few enough: the limit is not what is measured.
        def scored() -> None:
            measure_dbx_aml(spark, uri, table, f"out_{kind}", max_quarantined_rows="100%")

        peaks[kind].append(_worker_peak_mib(scored))

    failing, none = _table(spark, rows, one_in, value), rows_table(spark, rows, 8)
    failing_s, none_s = medians(lambda: score("failing", failing), lambda: score("none", none))
    note = f"a worker takes at most {max(peaks['failing'])} MiB, {max(peaks['none'])} without"
    met = goal == "measured" or failing_s <= 1.25 * none_s
    name = f"1 in {one_in:,} of {rows:,} rows {name}"
    return Figure(name, failing_s, none_s, "no failing row", goal, met, note)


def _table(spark: SparkSession, rows: int, one_in: int, value: float) -> str:
    """Return the rows of the benchmarks with this value in one of so many, at even distances."""
    from pyspark.sql import functions as F

    path = ROOT / f"failing_{rows}_{one_in}_{value}"
    if not (path / "_delta_log").exists():
        fails = F.col("id") % one_in == one_in // 2
        frame = spark.table(rows_table(spark, rows, 8))
        frame = frame.withColumn("x0", F.when(fails, F.lit(value)).otherwise(F.col("x0")))
        frame.write.format("delta").save(str(path))
    return f"delta.`{path}`"


def _refusing_model() -> str:
    from mlflow.models import infer_signature

    # A class of this function travels by value: the workers need not find this module.
    class RefusesNegative(mlflow.pyfunc.PythonModel):
        """The sum of the columns; an error for rows with a negative value."""

        def predict(self, context: object, model_input: pd.DataFrame) -> pd.Series:
            if (model_input < 0).any(axis=None):
                raise ValueError("a value is negative")
            return model_input.sum(axis=1)

    path = ROOT / "model_refusing"
    if not path.exists():
        rows = pd.DataFrame([[0.5] * len(COLUMNS)], columns=COLUMNS)
        signature = infer_signature(rows, rows.sum(axis=1))
        mlflow.pyfunc.save_model(path, python_model=RefusesNegative(), signature=signature)
    return str(path)


def _row_by_row(spark: SparkSession, uri: str, table: str) -> None:
    """Score as one does by hand: where a batch fails, ask for each of its rows."""
    from pyspark.sql import functions as F

    @F.pandas_udf("prediction double, reason string")
    def predict(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        loaded = mlflow.pyfunc.load_model(uri)

        def one(row: pd.DataFrame) -> tuple[float | None, str | None]:
            try:
                return float(loaded.predict(row).iloc[0]), None
            except Exception as err:  # noqa: BLE001 - whatever the model raises
                return None, str(err)

        for batch in batches:
            try:
                frame = pd.DataFrame({"prediction": loaded.predict(batch), "reason": None})
            except Exception:  # noqa: BLE001 - whatever the model raises
                rows = [one(batch.iloc[[position]]) for position in range(len(batch))]
                frame = pd.DataFrame(rows, columns=["prediction", "reason"])
            yield frame

    frame = spark.table(table).withColumn("result", predict(F.struct(*COLUMNS)))
    frame.write.format("delta").mode("overwrite").save(str(fresh("out_row_by_row")))


def _worker_peak_mib(measured: Callable[[], None]) -> int:
    """Return the largest resident memory that a Python worker of Spark has had meanwhile, in MiB.

    Source:
        proc(5): writing 5 to `/proc/<pid>/clear_refs` resets VmHWM, the peak.
    """
    for worker in _workers():
        (worker / "clear_refs").write_text("5", encoding="ascii")
    measured()
    return max(_peak_kib(worker) for worker in _workers()) >> 10


def _workers() -> list[Path]:
    children = psutil.Process().children(recursive=True)
    return [Path(f"/proc/{child.pid}") for child in children if child.name().startswith("python")]


def _peak_kib(process: Path) -> int:
    try:
        lines = (process / "status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
