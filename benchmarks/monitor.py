"""`monitor_table` of a scored table of 50 columns, against one Spark aggregate of its columns.

The aggregate has count, mean, min and max of each column: less than monitoring computes, and what
any monitoring must at least do. The baseline is kept from a run before. The second line is a run
after a new batch of 1 % of the rows, the third a run where nothing is new.

`python -m benchmarks.monitor 400000` measures a smaller table and leaves README.md as it is.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.common import ROOT, ROUNDS, Figure, session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 4_000_000
_NAMES = [f"x{number}" for number in range(50)]
_BATCHES = 10
_FIRST_BATCH = 1_750_000_000_000_000
_GOAL, _NEW_GOAL = 1.3, 0.1


def run(rows: int = ROWS) -> list[Figure]:
    """Measure a run on the whole table and a run on a new batch."""
    from dbx_aml import monitor_table

    spark = session()
    table = _write_table(spark, rows)
    baseline = f"delta.`{ROOT / 'monitor_baseline'}`"
    # This run keeps the baseline, and warms up Spark.
    monitor_table(table, baseline, spark=spark)
    times: dict[str, list[float]] = {"aggregate": [], "all": [], "new": [], "unchanged": []}
    for number in range(ROUNDS + 1):
        for name in ("profile_metrics", "drift_metrics"):
            shutil.rmtree(f"{ROOT / 'monitor'}_{name}")
        aggregate_s = _seconds(lambda: _aggregate(spark, table))
        all_s = _seconds(lambda: monitor_table(table, baseline, spark=spark))
        _append(spark, rows // 100, _FIRST_BATCH + _BATCHES + number)
        new_s = _seconds(lambda: monitor_table(table, baseline, spark=spark))
        unchanged_s = _seconds(lambda: monitor_table(table, baseline, spark=spark))
        # The first round warms up the other measurements.
        if number:
            measured = (aggregate_s, all_s, new_s, unchanged_s)
            for name, seconds in zip(times, measured, strict=True):
                times[name].append(seconds)
    aggregate_s, all_s, new_s, unchanged_s = map(statistics.median, times.values())
    title = f"{rows / 1e6:g}M rows of 50 columns"
    return [
        Figure(title, all_s, aggregate_s, "one aggregate", f"at most {_GOAL}x",
               all_s <= _GOAL * aggregate_s),
        Figure(f"1% new of {title}", new_s, aggregate_s, "one aggregate", f"at most {_NEW_GOAL}x",
               new_s <= _NEW_GOAL * aggregate_s),
        Figure(f"nothing new of {title}", unchanged_s, aggregate_s, "one aggregate",
               f"at most {_NEW_GOAL}x", unchanged_s <= _NEW_GOAL * aggregate_s),
    ]  # fmt: skip


def _seconds(measure: Callable[[], Any]) -> float:
    started = time.perf_counter()
    measure()
    return time.perf_counter() - started


def _aggregate(spark: SparkSession, table: str) -> None:
    from pyspark.sql import functions as F

    numbers = [f(name) for name in _NAMES for f in (F.count, F.mean, F.min, F.max)]
    spark.table(table).agg(*numbers).collect()


def _write_table(spark: SparkSession, rows: int) -> str:
    """Write the scored table and its baseline of 50,000 rows, and return the table's name."""
    for name in ("", "_batches", "_baseline", "_profile_metrics", "_drift_metrics"):
        shutil.rmtree(f"{ROOT / 'monitor'}{name}", ignore_errors=True)
    shutil.rmtree(ROOT / "monitor_monitor_baseline", ignore_errors=True)
    _frame(spark, 50_000).write.format("delta").save(str(ROOT / "monitor_baseline"))
    for number in range(_BATCHES):
        _append(spark, rows // _BATCHES, _FIRST_BATCH + number)
    return f"delta.`{ROOT / 'monitor'}`"


def _frame(spark: SparkSession, rows: int) -> Any:
    from pyspark.sql import functions as F

    columns = [F.randn(number).alias(name) for number, name in enumerate(_NAMES)]
    # A file for each core, as a scoring job writes them.
    return spark.range(0, rows, numPartitions=os.cpu_count()).select(*columns)


def _append(spark: SparkSession, rows: int, batch: int) -> None:
    """Append a batch with its row of the ledger, as a scoring job does."""
    from dbx_aml.scoring.delta_table import Table
    from dbx_aml.scoring.ledger import Ledger, LedgerEntry
    from dbx_aml.scoring.request import BatchFacts
    from dbx_aml.scoring.table_identity import identify_table

    output = Table(f"delta.`{ROOT / 'monitor'}`")
    scoring = f"named_struct('batch', {batch}L, 'model_version', '1') AS _scoring"
    frame = _frame(spark, rows).selectExpr("*", scoring)
    frame.write.format("delta").mode("append").save(str(output.path))
    identity = identify_table(spark, output)
    output_id = identity.id if identity else None
    facts = BatchFacts(
        batch=batch, batch_id=str(batch), identity={}, job="", run=batch, model_uri="models:/m/1",
        model_name="m", model_version="1", model_run_id=None, registry_uri=None,
        input_table="rows", input_id=None, input_version_from=None, input_version_to=None,
        row_filter=None, write_mode="append", quarantine_table="", compute=None,
    )  # fmt: skip
    entry = LedgerEntry(
        facts=facts, state="scored", rows_read=rows, rows_scored=rows, rows_quarantined=0,
        output_id=output_id, output_version=output.version(spark), quarantine_version=None,
        seconds=1.0, plan="",
    )  # fmt: skip
    Ledger(spark, output, output_id).write(entry, may_exist=False, replaces=False)


if __name__ == "__main__":
    for figure in run(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS):
        print(figure.line)
