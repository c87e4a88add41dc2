"""Score the new rows of a Delta table as a stream: each micro-batch is written once."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException

from dbx_aml._common.errors import ScoringError
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import sql_identifier, sql_literal
from dbx_aml.scoring.batch import batch_facts, finish_batch, write_batch
from dbx_aml.scoring.batch_identity import differences
from dbx_aml.scoring.bind import BoundRequest, PinnedUris, bind_pinned_uri
from dbx_aml.scoring.ledger import OVER_LIMIT, SCORED, Ledger, LedgerEntry
from dbx_aml.scoring.request import BatchFacts, ResolvedRequest, ScoringRequest, Transaction
from dbx_aml.scoring.spark_errors import SPARK_ERRORS
from dbx_aml.scoring.stream_errors import stream_error
from dbx_aml.scoring.table_identity import identify_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = get_logger(__name__)

# The bound request of each running stream, and whether it has written a batch. Spark calls back in
# this process; with Spark Connect in a worker beside the server, which binds the model again.
_streams: dict[ResolvedRequest, tuple[BoundRequest, list[int]]] = {}


@dataclass(frozen=True, kw_only=True)
class StreamResult:
    """Result of a stream.

    Args:
        entries: Batches that it has written, oldest first.
        pending: Earlier batches of the stream whose run ended with too many quarantined rows,
            and which no run has passed since.
        rows_removed: Rows of the stream's newest earlier batch that are no longer in the output.
    """

    entries: list[LedgerEntry]
    pending: list[LedgerEntry]
    rows_removed: int = 0


def score_new_rows(bound: BoundRequest) -> StreamResult:
    """Score the rows that the checkpoint has not seen.

    Raises:
        ScoringError: A micro-batch failed, the input is not append-only, another job uses the
            checkpoint, or the checkpoint belongs to other tables, another filter or other columns.
    """
    spark, request, resolved = bound.spark, bound.request, bound.resolved
    entries = _stream_entries(bound)
    query_id = _query_id(spark, request.checkpoint)
    own = [entry for entry in entries if entry.facts.batch_id.startswith(f"{query_id}/")]
    start_version = None
    if last_offset(spark, request.checkpoint) is not None:
        _check_checkpoint(bound, own)
    elif not own and not request.rescore:
        start_version = _find_start_version(bound, entries)
        newest = request.input_table.version(spark)
        if start_version is not None and newest is not None and start_version > newest:
            return StreamResult(entries=[], pending=_pending(entries))
    rows_removed = _count_removed(bound, own)
    _streams[resolved] = bound, []
    try:
        bound.report("reading new rows")
        query = (
            _read_stream(spark, request, start_version)
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
    # With Spark Connect the batches were written in another process.
    written = [entry for entry in _stream_entries(bound) if entry.facts.run == resolved.run]
    return StreamResult(
        entries=sorted(written, key=lambda entry: entry.facts.batch),
        pending=_pending(own),
        rows_removed=rows_removed,
    )


def mark_runs(bound: BoundRequest, result: StreamResult, *, is_over_limit: bool) -> None:
    """Write into the ledger whether the stream's rows in the quarantine are within the limit."""
    state = OVER_LIMIT if is_over_limit else SCORED
    numbers = [e.facts.batch for e in (*result.entries, *result.pending) if e.state != state]
    if numbers:
        ledger = Ledger(bound.spark, bound.request.output_table, None)
        ledger.set_state(numbers, state)


def _pending(entries: list[LedgerEntry]) -> list[LedgerEntry]:
    return [entry for entry in entries if entry.state == OVER_LIMIT]


def _stream_entries(bound: BoundRequest) -> list[LedgerEntry]:
    """Return the newest batches of streams in the output table, newest first."""
    output = bound.request.output_table
    identity = bound.resolved.output or identify_table(bound.spark, output)
    if identity is None:
        return []
    entries = Ledger(bound.spark, output, identity.id).read()
    return [entry for entry in entries if entry.facts.write_mode == "incremental"]


def _stream_identity(bound: BoundRequest) -> dict[str, Any]:
    """Return what a checkpoint belongs to, beside its output table."""
    request, resolved = bound.request, bound.resolved
    return {
        "input_table": resolved.input.name,
        "input_id": resolved.input.id,
        "row_filter": request.row_filter,
        "output_columns": list(request.output_columns or ()),
        "quarantine_table": resolved.quarantine_name,
    }


def _check_checkpoint(bound: BoundRequest, own: list[LedgerEntry]) -> None:
    """Refuse a checkpoint that belongs to other tables, another filter or other columns."""
    request = bound.request
    if not own:
        raise ScoringError(
            "checkpoint_location must belong to the output table: got "
            f"{request.checkpoint!r}, whose rows went to a table that is not "
            f"{request.output_table.name!r}; pass another checkpoint_location to score all rows "
            "again"
        )
    changes = differences(own[0].facts.identity.get("stream", {}), _stream_identity(bound))
    if changes:
        raise ScoringError(
            f"checkpoint_location must belong to one job: got {request.checkpoint!r}, where "
            f"{changes}; pass another checkpoint_location"
        )


def _find_start_version(bound: BoundRequest, entries: list[LedgerEntry]) -> int | None:
    """Return the version to go on from where a checkpoint was lost; None to score all rows.

    Raises:
        ScoringError: The lost checkpoint ended within a version.
    """
    request = bound.request
    identity = _stream_identity(bound)
    same = [e for e in entries if e.facts.identity.get("stream") == identity]
    if not same:
        return None
    version = same[0].facts.input_version_to
    if version is None or same[0].facts.identity.get("is_partial_version"):
        raise ScoringError(
            f"checkpoint_location must be the one of the earlier runs: got {request.checkpoint!r}, "
            f"a new one, though {request.output_table.name!r} has rows of this input up to a part "
            f"of version {version}; restore the old folder, or pass rescore=True to score all rows "
            "again"
        )
    log.warning(
        "checkpoint is new, but the output has this input's rows up to version=%s: going on "
        "from there; pass rescore=True to score all rows again",
        version,
    )
    return version + 1


def _count_removed(bound: BoundRequest, own: list[LedgerEntry]) -> int:
    """Return how many rows of the stream's newest batch are no longer in the output."""
    newest = next((entry for entry in own if entry.rows_scored), None)
    if newest is None:
        return 0
    rows = bound.request.output_table.read(bound.spark)
    count = rows.where(f"_scoring.batch = {newest.facts.batch}").count()
    removed = max(newest.rows_scored - count, 0)
    if removed:
        log.warning("rows of batch=%s are no longer in the output: %s", newest.facts.batch, removed)
    return removed


def _read_stream(
    spark: SparkSession, request: ScoringRequest, start_version: int | None
) -> DataFrame:
    reader, table = spark.readStream, request.input_table
    if start_version is not None:
        reader = reader.option("startingVersion", str(start_version))
    rows = reader.format("delta").load(table.path) if table.path else reader.table(table.name)
    return rows.where(request.row_filter) if request.row_filter else rows


def _score_micro_batch(resolved: ResolvedRequest, rows: DataFrame, number: int) -> None:
    """Score one micro-batch; Spark calls this, on Connect in another process."""
    spark = rows.sparkSession
    if resolved not in _streams:
        bound = bind_pinned_uri(spark, resolved, PinnedUris.of_request(resolved), log.info)
        _streams[resolved] = bound, []
    bound, numbers = _streams[resolved]
    checkpoint = resolved.request.checkpoint
    query_id = _query_id(spark, checkpoint)
    offset = _read_offset(spark, checkpoint, number)
    version = _version_of_offset(offset)
    facts = batch_facts(bound, f"{query_id}/{number}", time.time_ns() // 1000, (None, version))
    identity = {
        **facts.identity,
        "stream": _stream_identity(bound),
        "is_partial_version": int(offset["index"]) >= 0,
    }
    facts = replace(facts, identity=identity, job=str(query_id))
    # Only the first micro-batch of a run may be one that an earlier run has written.
    if numbers or not _is_written(bound, facts, rows):
        transaction = Transaction(app_id=f"dbx_aml/{query_id}", app_version=number)
        write_batch(bound, facts, rows, transaction)
    numbers.append(number)


def _is_written(bound: BoundRequest, facts: BatchFacts, rows: DataFrame) -> bool:
    """Return whether an earlier run has committed a micro-batch, and finish that micro-batch."""
    output = bound.request.output_table
    if bound.resolved.output is None:
        return False
    condition = f"batch_id = {sql_literal(facts.batch_id)}"
    entries = Ledger(bound.spark, output, bound.resolved.output.id).read(condition)
    if any(entry.facts.batch_id == facts.batch_id for entry in entries):
        return True
    commit = output.find_commit(bound.spark, "batch_id", facts.batch_id)
    if commit is None:
        return False
    # The batch counts for the run that finishes it.
    commit.metadata["run"] = facts.run
    finish_batch(bound, commit, lambda _: rows)
    return True


def _query_id(spark: SparkSession, checkpoint: str) -> str | None:
    """Return the id of a checkpoint's stream; None for a checkpoint that does not exist yet."""
    try:
        lines = _read_lines(spark, f"{_glob_pattern(checkpoint)}/metadata")
    except AnalysisException:
        return None
    return next((str(json.loads(line)["id"]) for line in lines if line.startswith("{")), None)


def _read_offset(spark: SparkSession, checkpoint: str, number: int) -> dict[str, Any]:
    """Return the position in the input table at the end of a micro-batch."""
    lines = _read_lines(spark, f"{_glob_pattern(checkpoint)}/offsets/{number}")
    documents = [json.loads(line) for line in lines if line.startswith("{")]
    return next(document for document in documents if "reservoirVersion" in document)


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
