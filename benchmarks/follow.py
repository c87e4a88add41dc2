"""A table of which 1% changes: its output follows, against the same by hand, and all rows again."""

from __future__ import annotations

import shutil
import statistics
import time
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 1_000_000
CHANGED = ROWS // 100
WARM_UP = 1
KIND = "lightgbm"


def run() -> list[Figure]:
    """Measure the three ways after each round of changes, and return the figures."""
    spark = session()
    source = rows_table(spark, ROWS, 8).split("`")[1]
    path = ROOT / "followed"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(source, path)
    table, uri = f"delta.`{path}`", model(KIND)
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES (delta.enableChangeDataFeed = true)")
    arguments = {
        "output_table": f"delta.`{fresh('out_follow')}`",
        "write_mode": "follow",
        "key_columns": "id",
    }
    measure_dbx_aml(spark, uri, table, "", **arguments)
    snippet(spark, uri, table, "out_merged")
    taken: dict[str, list[float]] = {"follow": [], "by hand": [], "all again": []}
    for number in range(WARM_UP + ROUNDS):
        version = _version(spark, table)
        _change(spark, table, number)
        ways = {
            "follow": lambda: measure_dbx_aml(spark, uri, table, "", **arguments),
            "by hand": lambda version=version: _merge_changes(spark, uri, table, version + 1),
            "all again": lambda: snippet(spark, uri, table, "out_snippet"),
        }
        for name, way in ways.items():
            start_time = time.perf_counter()
            way()
            if number >= WARM_UP:
                taken[name].append(time.perf_counter() - start_time)
    follow_s, hand_s, again_s = (statistics.median(seconds) for seconds in taken.values())
    shutil.rmtree(path)
    name = f"{KIND}, 1% of 1M rows changed"
    return [
        Figure(name, follow_s, hand_s, "feed and MERGE by hand", "measured", True),
        Figure(name, follow_s, again_s, "score all, overwrite", "faster", follow_s <= again_s),
    ]


def _version(spark: SparkSession, table: str) -> int:
    return int(spark.sql(f"DESCRIBE HISTORY {table} LIMIT 1").first().version)


def _change(spark: SparkSession, table: str, number: int) -> None:
    """Update, delete and insert a third of the changed rows each, in one commit."""
    third = CHANGED // 3
    first = number * CHANGED
    doubles = ", ".join(f"rand() AS {name}" for name in COLUMNS)
    changes = (
        f"SELECT id, {doubles}, id >= {first + third} AND id < {ROWS} AS is_deleted FROM ("
        f"SELECT id FROM range({first}, {first + 2 * third}) UNION ALL "
        f"SELECT id + {ROWS + first} FROM range({third}))"
    )
    names = ", ".join(["id", *COLUMNS])
    values = ", ".join(f"c.{name}" for name in ["id", *COLUMNS])
    updates = ", ".join(f"t.{name} = c.{name}" for name in COLUMNS)
    spark.sql(
        f"MERGE INTO {table} t USING ({changes}) c ON t.id = c.id "
        f"WHEN MATCHED AND c.is_deleted THEN DELETE WHEN MATCHED THEN UPDATE SET {updates} "
        f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})"
    ).collect()


def _merge_changes(spark: SparkSession, uri: str, table: str, version: int) -> None:
    """Do what a user writes: read the feed, score each change, merge it into the output."""
    import mlflow.pyfunc

    predict = mlflow.pyfunc.spark_udf(spark, uri, result_type="double")
    path = table.split("`")[1]
    feed = (
        spark.read.format("delta")
        .option("readChangeFeed", "true")
        .option("startingVersion", str(version))
        .load(path)
        .where("_change_type <> 'update_preimage'")
    )
    scored = feed.withColumn("prediction", predict(*COLUMNS))
    scored.createOrReplaceTempView("benchmark_changes")
    names = [*COLUMNS, "prediction"]
    updates = ", ".join(f"t.{name} = c.{name}" for name in names)
    columns, values = ", ".join(["id", *names]), ", ".join(f"c.{name}" for name in ["id", *names])
    spark.sql(
        f"MERGE INTO delta.`{ROOT / 'out_merged'}` t USING benchmark_changes c ON t.id = c.id "
        f"WHEN MATCHED AND c._change_type = 'delete' THEN DELETE "
        f"WHEN MATCHED THEN UPDATE SET {updates} "
        f"WHEN NOT MATCHED AND c._change_type <> 'delete' THEN INSERT ({columns}) VALUES ({values})"
    ).collect()
