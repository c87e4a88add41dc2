"""Score the new rows of a Delta table as a stream: each micro-batch is written once."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException

from dbx_aml._common.errors import ScoringError
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import sql_identifier
from dbx_aml.local.spark import is_connect
from dbx_aml.scoring.batch import WrittenBatch, write_batch
from dbx_aml.scoring.bind import BoundRequest, bind_pinned_uri
from dbx_aml.scoring.delta_table import Commit, Table
from dbx_aml.scoring.request import Batch, ResolvedRequest, ScoringRequest
from dbx_aml.scoring.spark_errors import SPARK_ERRORS
from dbx_aml.scoring.stream_errors import stream_error

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = get_logger(__name__)

# The bound request of each running stream, and the batches that it has written. Spark calls back in
# this process; with Spark Connect in a worker beside the server, which binds the model again.
_streams: dict[ResolvedRequest, tuple[BoundRequest, list[WrittenBatch]]] = {}


def score_new_rows(bound: BoundRequest) -> list[WrittenBatch]:
    """Score the rows that the checkpoint has not seen; return the micro-batches that wrote rows.

    Raises:
        ScoringError: A micro-batch failed, the input is not append-only, another job uses the
            checkpoint, or the checkpoint belongs to another output table.
    """
    spark, request, resolved = bound.spark, bound.request, bound.resolved
    output = request.output_table
    if not output.exists(spark) and last_offset(spark, request.checkpoint) is not None:
        raise ScoringError(
            "checkpoint_location must belong to the output table: got "
            f"{request.checkpoint!r}, whose rows went to a table that is not "
            f"{output.name!r}; pass another checkpoint_location to score all rows again"
        )
    old_versions = {}
    if is_connect(spark):
        tables = (output, request.quarantine_table)
        old_versions = {table: _newest_version(spark, table) for table in tables}
    written: list[WrittenBatch] = []
    _streams[resolved] = bound, written
    try:
        bound.report("reading new rows")
        query = (
            _read_stream(spark, request)
            .writeStream.foreachBatch(partial(_score_micro_batch, resolved))
            .option("checkpointLocation", request.checkpoint)
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
    except SPARK_ERRORS as err:
        raise stream_error(err, request) from err
    finally:
        del _streams[resolved]
    if is_connect(spark):
        return _written_batches(spark, request, old_versions, _app_id(query.id))
    return [batch for batch in written if batch.is_new]


def _read_stream(spark: SparkSession, request: ScoringRequest) -> DataFrame:
    reader, table = spark.readStream, request.input_table
    rows = reader.format("delta").load(table.path) if table.path else reader.table(table.name)
    return rows.where(request.row_filter) if request.row_filter else rows


def _score_micro_batch(resolved: ResolvedRequest, rows: DataFrame, number: int) -> None:
    """Score one micro-batch; Spark calls this, on Connect in another process."""
    spark = rows.sparkSession
    if resolved not in _streams:
        _streams[resolved] = bind_pinned_uri(spark, resolved, resolved.model.uri, log.info), []
    bound, written = _streams[resolved]
    # One query for both files: the stream's identity, and the offset of this micro-batch.
    folder = _glob_pattern(resolved.request.checkpoint)
    lines = _read_lines(spark, f"{folder}/{{metadata,offsets/{number}}}")
    documents = [json.loads(line) for line in lines if line.startswith("{")]
    query_id = next(document["id"] for document in documents if "id" in document)
    offset = next(document for document in documents if "reservoirVersion" in document)
    batch = Batch(
        batch_id=f"{query_id}/{number}",
        app_id=_app_id(query_id),
        app_version=number,
        input_version=_version_of_offset(offset),
    )
    written.append(write_batch(bound, lambda _: rows, batch))


def _written_batches(
    spark: SparkSession, request: ScoringRequest, old_versions: dict[Table, int], app_id: str
) -> list[WrittenBatch]:
    """Return the batches of a stream that ran in another process, read from the tables' commits."""
    commits: dict[Table, dict[str, Commit]] = {}
    new_ids: set[str] = set()
    for table, old_version in old_versions.items():
        commits[table] = {}
        if _newest_version(spark, table) < 0:
            continue
        for commit in table.commits(spark, limit=None):
            if commit.metadata.get("app_id") == app_id:
                batch_id = str(commit.metadata["batch_id"])
                commits[table][batch_id] = commit
                # An attempt that died may have made one of a batch's two commits: both count.
                if commit.version > old_version:
                    new_ids.add(batch_id)
    written = []
    for batch_id in sorted(new_ids, key=lambda text: int(text.rpartition("/")[2])):
        output_commit = commits[request.output_table].get(batch_id)
        quarantine_commit = commits[request.quarantine_table].get(batch_id)
        newest_commit = output_commit or quarantine_commit
        written.append(
            WrittenBatch(
                rows_scored=output_commit.rows if output_commit else 0,
                rows_quarantined=quarantine_commit.rows if quarantine_commit else 0,
                output_version=output_commit.version if output_commit else None,
                is_new=True,
                metadata=newest_commit.metadata if newest_commit else {},
            )
        )
    return written


def _newest_version(spark: SparkSession, table: Table) -> int:
    """Return a table's newest version; -1 for a table without versions or without existence."""
    version = table.version(spark) if table.exists(spark) else None
    return -1 if version is None else version


def _app_id(query_id: str) -> str:
    return f"dbx_aml/{query_id}"


def _glob_pattern(folder: str) -> str:
    """Return the pattern that stands for a folder of this name alone.

    Spark reads each path as a pattern of Hadoop's file systems, also "ck [1]" or "ck*".
    """
    return re.sub(r"([\\*?\[\]{},])", r"\\\1", folder)


def _read_lines(spark: SparkSession, pattern: str) -> list[str]:
    files = sql_identifier(pattern)
    return [line for (line,) in spark.sql(f"SELECT value FROM text.{files}").collect()]


def last_offset(spark: SparkSession, checkpoint_location: str) -> int | None:
    """Return the table version that a checkpoint's micro-batches have scored, or None."""
    folder = _glob_pattern(checkpoint_location)
    try:
        files = spark.sql(
            "SELECT max(CAST(element_at(split(_metadata.file_path, '/'), -1) AS INT)) "
            f"FROM text.{sql_identifier(f'{folder}/commits')}"
        ).collect()
        if files[0][0] is None:
            return None
        last_line = _read_lines(spark, f"{folder}/offsets/{files[0][0]}")[-1]
        return _version_of_offset(json.loads(last_line))
    except AnalysisException:
        return None


def _version_of_offset(offset: dict[str, Any]) -> int:
    """Return the last table version that a Delta stream's offset covers.

    Source: Delta's `DeltaSourceOffset`: a negative index stands before a version's first file.
    """
    version = int(offset["reservoirVersion"])
    return version - 1 if int(offset["index"]) < 0 else version
