"""Score only what is new in a Delta table: its stream, a micro-batch at a time, once each."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException

from dbx_aml._common.errors import ScoringError
from dbx_aml.local.spark import is_connect
from dbx_aml.scoring.batch import Counts, publish
from dbx_aml.scoring.delta_table import SPARK_ERRORS, Commit, Table, one_line
from dbx_aml.scoring.model_udf import Report, Scorer
from dbx_aml.scoring.resolved_request import Batch, Recipe

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

_APP = "dbx_aml"
# Scorers by recipe and what became of their batches, in the process where the stream calls back:
# this one, or with Spark Connect a worker beside the server, which makes its own scorer.
_scorers: dict[Recipe, tuple[Scorer, list[Counts]]] = {}


def run(
    spark: SparkSession, scorer: Scorer, checkpoint_location: str, report: Report
) -> list[Counts]:
    """Score what the checkpoint has not seen, and return what became of each micro-batch.

    Raises:
        ScoringError: A micro-batch failed, the input is not append-only, another job uses the
            checkpoint, or the checkpoint belongs to another output table.
    """
    recipe = scorer.recipe
    output = Table(recipe.output_table)
    if not output.exists(spark) and last_offset(spark, checkpoint_location) is not None:
        raise ScoringError(
            "checkpoint_location must belong to the output table: got "
            f"{checkpoint_location!r}, whose rows went to a table that is not "
            f"{recipe.output_table!r}; pass another checkpoint_location to score all rows again"
        )
    remote = is_connect(spark)
    quarantine = Table(recipe.quarantine_table)
    before = {t: _newest(spark, t) for t in (output, quarantine)} if remote else {}
    counts: list[Counts] = []
    _scorers[recipe] = scorer, counts
    try:
        report("reading what is new")
        reader, table = spark.readStream, Table(recipe.input_table)
        rows = reader.format("delta").load(table.path) if table.path else reader.table(table.name)
        if recipe.row_filter:
            rows = rows.where(recipe.row_filter)
        query = (
            rows.writeStream.foreachBatch(partial(_score, recipe, checkpoint_location))
            .option("checkpointLocation", checkpoint_location)
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
    except SPARK_ERRORS as err:
        raise _stream_error(err, recipe, checkpoint_location) from err
    finally:
        del _scorers[recipe]
    if remote:
        return _made(spark, before, _app_id(query.id))
    return [done for done in counts if done.written]


def _made(spark: SparkSession, before: dict[Table, int], app_id: str) -> list[Counts]:
    """Return what became of the batches of a stream that ran elsewhere, read from the tables."""
    output, quarantine = before
    found: dict[Table, dict[str, Commit]] = {}
    new: set[str] = set()
    for table, version in before.items():
        commits = table.commits(spark, limit=None) if _newest(spark, table) >= 0 else []
        mine = [commit for commit in commits if commit.batch.get("app_id") == app_id]
        found[table] = {str(commit.batch["batch_id"]): commit for commit in mine}
        # An attempt that died may have made one of a batch's two commits: both count.
        new |= {str(commit.batch["batch_id"]) for commit in mine if commit.version > version}
    made = []
    for batch_id in sorted(new, key=lambda text: int(text.rpartition("/")[2])):
        good, bad = found[output].get(batch_id), found[quarantine].get(batch_id)
        either = good or bad
        made.append(
            Counts(
                scored=good.rows if good else 0,
                quarantined=bad.rows if bad else 0,
                output_version=good.version if good else None,
                written=True,
                commit=either.batch if either else {},
            )
        )
    return made


def _newest(spark: SparkSession, table: Table) -> int:
    version = table.version(spark) if table.exists(spark) else None
    return -1 if version is None else version


def _score(recipe: Recipe, checkpoint_location: str, rows: DataFrame, number: int) -> None:
    spark = rows.sparkSession
    if recipe not in _scorers:
        _scorers[recipe] = Scorer(spark, recipe), []
    scorer, counts = _scorers[recipe]
    # One query for both files: the stream's identity, and how far this micro-batch goes.
    lines = _lines(spark, f"{checkpoint_location}/{{metadata,offsets/{number}}}")
    parts = [json.loads(line) for line in lines if line.startswith("{")]
    query_id = next(part["id"] for part in parts if "id" in part)
    offset = next(part for part in parts if "reservoirVersion" in part)
    batch = Batch(
        id=f"{query_id}/{number}",
        app_id=_app_id(query_id),
        app_version=number,
        input_version=_version(offset),
    )
    counts.append(publish(scorer, lambda _: rows, batch))


def _app_id(query_id: str) -> str:
    return f"{_APP}/{query_id}"


def _lines(spark: SparkSession, file: str) -> list[str]:
    return [line for (line,) in spark.sql(f"SELECT value FROM text.`{file}`").collect()]


def last_offset(spark: SparkSession, checkpoint_location: str) -> int | None:
    """Return the table version up to which a checkpoint's micro-batches are done, or None."""
    try:
        files = spark.sql(
            "SELECT max(CAST(element_at(split(_metadata.file_path, '/'), -1) AS INT)) "
            f"FROM text.`{checkpoint_location}/commits`"
        ).collect()
        if files[0][0] is None:
            return None
        last = _lines(spark, f"{checkpoint_location}/offsets/{files[0][0]}")[-1]
        return _version(json.loads(last))
    except AnalysisException:
        return None


def _version(offset: dict[str, Any]) -> int:
    """Return the last table version a Delta stream's offset covers.

    Source: Delta's `DeltaSourceOffset`: a negative index stands before a version's first file.
    """
    version = int(offset["reservoirVersion"])
    return version - 1 if int(offset["index"]) < 0 else version


def _stream_error(err: Exception, recipe: Recipe, checkpoint_location: str) -> ScoringError:
    text = str(err)
    ours = text.rpartition("dbx_aml._common.errors.ScoringError: ")
    if ours[1]:
        return ScoringError(ours[2].splitlines()[0])
    cause = one_line(err)
    if "CONCURRENT" in text or "Concurrent" in cause:
        return ScoringError(
            f"checkpoint_location must be used by one job at a time: got "
            f"{checkpoint_location!r}, which another job is using; wait for it to end"
        )
    if "DELTA_SOURCE_TABLE_IGNORE_CHANGES" in text or "DELTA_SOURCE_IGNORE_DELETE" in text:
        return ScoringError(
            f"input table must only be appended to for write_mode 'incremental': got "
            f"{recipe.input_table!r}, where rows were changed or deleted; use write_mode "
            "'merge', or a new checkpoint_location and output_table"
        )
    return ScoringError(f"stream must run to its end: got {recipe.input_table!r}; {cause}")
