"""Score only what is new in a Delta table: its stream, a micro-batch at a time, once each."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException

from dbx_aml.errors import ScoringError
from dbx_aml.scoring.batch import publish
from dbx_aml.scoring.scorer import Batch, Recipe, Report, Scorer
from dbx_aml.scoring.table import SPARK_ERRORS, Table, one_line

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

_APP = "dbx_aml"
# Scorers by recipe, in the process where the stream calls back: this one, or with Spark
# Connect a worker beside the server, which gets the recipe and makes its own.
_scorers: dict[Recipe, Scorer] = {}


def run(
    spark: SparkSession, scorer: Scorer, checkpoint_location: str, report: Report
) -> str | None:
    """Score what the checkpoint has not seen, and return the stream's id in the commits.

    Raises:
        ScoringError: A micro-batch failed, the input is not append-only, another job uses the
            checkpoint, or the checkpoint belongs to another output table.
    """
    recipe = scorer.recipe
    output = Table(recipe.output_table)
    if last_offset(spark, checkpoint_location) is not None and not output.exists(spark):
        raise ScoringError(
            "checkpoint_location must belong to the output table: got "
            f"{checkpoint_location!r}, whose rows went to a table that is not "
            f"{recipe.output_table!r}; pass another checkpoint_location to score all rows again"
        )
    reader = spark.readStream
    table = Table(recipe.input_table)
    rows = reader.format("delta").load(table.path) if table.path else reader.table(table.name)
    if recipe.row_filter:
        rows = rows.where(recipe.row_filter)
    _scorers[recipe] = scorer
    try:
        report("reading what is new")
        query = (
            rows.writeStream.foreachBatch(partial(_score, recipe, checkpoint_location))
            .option("checkpointLocation", checkpoint_location)
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
        return _app_id(query.id)
    except SPARK_ERRORS as err:
        raise _stream_error(err, recipe, checkpoint_location) from err
    finally:
        del _scorers[recipe]


def _score(recipe: Recipe, checkpoint_location: str, rows: DataFrame, number: int) -> None:
    spark = rows.sparkSession
    scorer = _scorers.get(recipe)
    if scorer is None:
        scorer = _scorers[recipe] = Scorer(spark, recipe)
    query_id = json.loads(_lines(spark, f"{checkpoint_location}/metadata")[-1])["id"]
    batch = Batch(
        id=f"{query_id}/{number}",
        app_id=_app_id(query_id),
        app_version=number,
        input_version=_version(_lines(spark, f"{checkpoint_location}/offsets/{number}")[-1]),
    )
    publish(scorer, lambda _: rows, batch)


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
        return _version(_lines(spark, f"{checkpoint_location}/offsets/{files[0][0]}")[-1])
    except AnalysisException:
        return None


def _version(offset: str) -> int:
    """Return the last table version a Delta stream's offset covers.

    Source: Delta's `DeltaSourceOffset`: a negative index stands before a version's first file.
    """
    data: dict[str, Any] = json.loads(offset)
    version = int(data["reservoirVersion"])
    return version - 1 if int(data["index"]) < 0 else version


def _stream_error(err: Exception, recipe: Recipe, checkpoint_location: str) -> ScoringError:
    text = str(err)
    ours = text.rpartition("dbx_aml.errors.ScoringError: ")
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
