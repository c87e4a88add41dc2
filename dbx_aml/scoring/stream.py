"""Score a Delta table as a stream: each micro-batch is written once.

A micro-batch of write_mode "incremental" is new rows, one of write_mode "follow" the last change
of each key.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import ScoringError
from dbx_aml._common.log import get_logger
from dbx_aml._common.stop_request import StopRequest, catch_stop_signals
from dbx_aml._common.text import plural, sql_literal
from dbx_aml.local.spark import is_connect
from dbx_aml.scoring.auto_loader import read_new_files
from dbx_aml.scoring.batch import batch_facts, finish_batch, write_batch
from dbx_aml.scoring.batch_identity import differences
from dbx_aml.scoring.bind import BoundRequest, PinnedUris, bind_pinned_uri
from dbx_aml.scoring.changes import last_changes
from dbx_aml.scoring.checkpoint import (
    last_offset,
    query_id,
    read_offset,
    stream_folders,
    version_of_offset,
)
from dbx_aml.scoring.kafka import KafkaTopic
from dbx_aml.scoring.ledger import OVER_LIMIT, SCORED, Ledger, LedgerEntry
from dbx_aml.scoring.request import BatchFacts, ResolvedRequest, Transaction
from dbx_aml.scoring.sole_writer import check_sole_writer
from dbx_aml.scoring.spark_errors import SPARK_ERRORS
from dbx_aml.scoring.stream_errors import stream_error
from dbx_aml.scoring.table_identity import identify_table
from dbx_aml.scoring.unasked_rows import UNREADABLE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = get_logger(__name__)

# Time between two looks at a running stream.
_POLL_INTERVAL_S = 1
# A percentage of fewer rows says little: one row of a small micro-batch may be most of them.
_FEWEST_ROWS_OF_PERCENTAGE = 1000
# Text of the error that ends a stream before its next micro-batch.
_ENDED = "dbx_aml: the stream ends between two batches"
# Largest value of the option maxFilesPerTrigger.
_ALL_FILES = str(2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class StreamResult:
    """Result of a stream.

    Args:
        entries: Batches that it has written, oldest first.
        pending: Earlier batches of the stream whose run ended with too many quarantined rows,
            and which no run has passed since.
        rows_removed: Rows of the stream's newest earlier batch that are no longer in the output.
        is_stopped: Whether a signal stopped it.
    """

    entries: list[LedgerEntry]
    pending: list[LedgerEntry]
    rows_removed: int = 0
    is_stopped: bool = False


@dataclass(frozen=True, kw_only=True)
class StreamStart:
    """The position in the input from which a stream reads.

    Args:
        checkpoint: Folder of the checkpoint.
        version: First version of the input to read; None where the checkpoint says it, or for all
            rows.
        offsets: First offsets of a topic to read, as JSON; None as for `version`.
        previous: Newest batch of the output; None for write_mode "incremental".
        has_scored: Whether an earlier batch has rows that this version of the model scored.
    """

    checkpoint: str
    version: int | None = None
    offsets: str | None = None
    previous: LedgerEntry | None = None
    has_scored: bool = False


@dataclass(kw_only=True)
class _RunningStream:
    """State of a stream from one micro-batch to the next."""

    bound: BoundRequest
    previous: LedgerEntry | None
    stop: StopRequest
    has_written: bool = False
    # Batches of a run that ends by itself; an endless one would have ever more.
    entries: list[LedgerEntry] = field(default_factory=list)
    rows_read: int = 0
    rows_quarantined: int = 0


# Spark calls back in this process; with Spark Connect in a worker beside the server, which binds
# the model again.
_streams: dict[ResolvedRequest, _RunningStream] = {}


def score_new_rows(bound: BoundRequest) -> StreamResult:
    """Score the rows that the checkpoint has not seen.

    Raises:
        ScoringError: A micro-batch failed, the input is not append-only, another job uses the
            checkpoint, or the checkpoint belongs to other tables, another filter or other columns.
    """
    spark, request = bound.spark, bound.request
    # These mostly wait for Spark.
    with ThreadPoolExecutor(2) as pool:
        id_of_stream = pool.submit(query_id, spark, request.checkpoint)
        offset = pool.submit(last_offset, spark, request.checkpoint)
        entries = stream_entries(bound)
        stream_id = id_of_stream.result()
        has_offset = offset.result() is not None
    own = [entry for entry in entries if entry.facts.batch_id.startswith(f"{stream_id}/")]
    start = StreamStart(checkpoint=request.checkpoint)
    if has_offset or stream_folders(spark, request.checkpoint):
        _check_checkpoint(bound, own)
    elif not own and not request.rescore:
        newest = _find_newest(bound, entries)
        if newest is not None:
            own = entries
            start = _start_after(newest, start)
    rows_removed = _count_removed(bound, own)
    entries, is_stopped = run_stream(bound, replace(start, has_scored=has_scored(bound, own)))
    return StreamResult(
        entries=entries, pending=pending(own), rows_removed=rows_removed, is_stopped=is_stopped
    )


def run_stream(bound: BoundRequest, start: StreamStart) -> tuple[list[LedgerEntry], bool]:
    """Run a stream until it has scored all new rows, or until it is stopped.

    Returns:
        The batches that it has written, oldest first, and whether it was stopped.

    Raises:
        ScoringError: A micro-batch failed, or the input cannot be read on.
    """
    request, resolved = bound.request, bound.resolved
    with catch_stop_signals() as stop:
        if not _await_version(bound, start.version, stop):
            return [], stop.is_requested
        stream = _RunningStream(bound=bound, previous=start.previous, stop=stop)
        _streams[resolved] = stream
        query = None
        try:
            bound.report("reading new rows")
            query = (
                _read_stream(bound, start)
                .writeStream.foreachBatch(partial(_score_micro_batch, resolved, start))
                .option("checkpointLocation", start.checkpoint)
                .trigger(**request.trigger.spark_arguments)
                .start()
            )
            while not query.awaitTermination(_POLL_INTERVAL_S):
                # A batch that begins after the request ends itself, before it writes.
                if stop.is_requested and not query.status["isTriggerActive"]:
                    query.stop()
        except SPARK_ERRORS as err:
            if _ENDED not in str(err):
                version = request.input_table.version(bound.spark)
                raise stream_error(err, request, version) from err
        finally:
            del _streams[resolved]
            if query is not None and query.isActive:
                query.stop()
    must_read = request.trigger.is_endless or is_connect(bound.spark)
    return _entries_of_run(bound) if must_read else stream.entries, stop.is_requested


def _await_version(bound: BoundRequest, version: int | None, stop: StopRequest) -> bool:
    """Wait for the first version that a stream reads; return whether the input has it.

    Delta refuses a stream from a version that does not exist yet.
    """
    interval_s = bound.request.trigger.interval_s
    while version is not None and version > (bound.request.input_table.version(bound.spark) or 0):
        bound.report("waiting for new rows")
        if interval_s is None or stop.wait(interval_s):
            return False
    return True


def mark_runs(bound: BoundRequest, result: StreamResult, *, is_over_limit: bool) -> None:
    """Write into the ledger whether the stream's rows in the quarantine are within the limit."""
    state = OVER_LIMIT if is_over_limit else SCORED
    numbers = [e.facts.batch for e in (*result.entries, *result.pending) if e.state != state]
    if numbers:
        ledger = Ledger(bound.spark, bound.request.output_table, None)
        ledger.set_state(numbers, state)


def pending(entries: list[LedgerEntry]) -> list[LedgerEntry]:
    """Return the batches whose run ended with too many quarantined rows."""
    return [entry for entry in entries if entry.state == OVER_LIMIT]


def stream_entries(bound: BoundRequest, condition: str | None = None) -> list[LedgerEntry]:
    """Return the batches of the write mode in the output table, newest first.

    Args:
        bound: Bound request.
        condition: SQL predicate; see `Ledger.read`. Default: all batches.
    """
    output = bound.request.output_table
    identity = bound.resolved.output or identify_table(bound.spark, output)
    if identity is None:
        return []
    entries = Ledger(bound.spark, output, identity.id).read(condition)
    return [entry for entry in entries if entry.facts.write_mode == bound.request.write_mode]


def _entries_of_run(bound: BoundRequest) -> list[LedgerEntry]:
    """Return the stream's batches that this call has written, from the ledger, oldest first."""
    run = bound.resolved.run
    entries = stream_entries(bound, f"run = {run}")
    # The first batch of `follow` has the same run, and is none of its stream.
    return [e for e in reversed(entries) if e.facts.run == run and "/" in e.facts.batch_id]


def has_scored(bound: BoundRequest, entries: list[LedgerEntry]) -> bool:
    """Return whether one of the batches has rows that this version of the model scored."""
    uri = bound.resolved.model.uri
    return any(entry.rows_scored and entry.facts.model_uri == uri for entry in entries)


def stream_identity(bound: BoundRequest) -> dict[str, Any]:
    """Return what a checkpoint belongs to, beside its output table."""
    request, resolved = bound.request, bound.resolved
    identity = {
        "input_table": resolved.input.name,
        "input_id": resolved.input.id,
        "row_filter": request.row_filter,
        "output_columns": list(request.output_columns or ()),
        "quarantine_table": resolved.quarantine_name,
    }
    if request.key_columns:
        identity["key_columns"] = list(request.key_columns)
    return identity


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
    changes = differences(own[0].facts.identity.get("stream", {}), stream_identity(bound))
    if changes:
        raise ScoringError(
            f"checkpoint_location must belong to one job: got {request.checkpoint!r}, where "
            f"{changes}; pass another checkpoint_location"
        )


def _start_after(entry: LedgerEntry, start: StreamStart) -> StreamStart:
    """Return where a stream with a new checkpoint goes on after a batch."""
    if entry.facts.input_version_to is not None:
        return replace(start, version=entry.facts.input_version_to + 1)
    return replace(start, offsets=json.dumps(entry.facts.identity["offsets"]))


def _find_newest(bound: BoundRequest, entries: list[LedgerEntry]) -> LedgerEntry | None:
    """Return the batch to go on after where a checkpoint was lost; None to score all rows.

    Raises:
        ScoringError: The lost checkpoint ended within a version.
    """
    request = bound.request
    identity = stream_identity(bound)
    same = [e for e in entries if e.facts.identity.get("stream") == identity]
    if not same:
        return None
    version = same[0].facts.input_version_to
    has_files = bound.resolved.input.kind == "file"
    if has_files or same[0].facts.identity.get("is_partial_version"):
        # Only the checkpoint knows which files Auto Loader has read.
        part = "" if has_files else f" up to a part of version {version}"
        raise ScoringError(
            f"checkpoint_location must be the one of the earlier runs: got {request.checkpoint!r}, "
            f"a new one, though {request.output_table.name!r} has rows of this input{part}; "
            "restore the old folder, or pass rescore=True to score all rows again"
        )
    log.warning(
        "checkpoint is new, but the output has this input's rows up to version=%s: going on "
        "from there; pass rescore=True to score all rows again",
        version if version is not None else same[0].facts.identity["offsets"],
    )
    return same[0]


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


def _read_stream(bound: BoundRequest, start: StreamStart) -> DataFrame:
    request, reader = bound.request, bound.spark.readStream
    table, row_filter = request.input_table, request.row_filter
    if isinstance(table, KafkaTopic):
        rows = table.read_stream(bound.spark, start.offsets)
        return rows.where(f"({row_filter}\n) OR {UNREADABLE} IS NOT NULL") if row_filter else rows
    if bound.resolved.input.kind == "file":
        rows = read_new_files(bound.spark, table)
        return rows.where(row_filter) if row_filter else rows
    if start.version is not None:
        reader = reader.option("startingVersion", str(start.version))
    if request.write_mode == "follow":
        # By default Delta splits an overwrite of 1,000 files or more: the new row of a key would
        # come before the end of its old row.
        reader = reader.option("readChangeFeed", "true").option("maxFilesPerTrigger", _ALL_FILES)
    rows = reader.format("delta").load(table.path) if table.path else reader.table(table.name)
    return rows.where(row_filter) if row_filter else rows


def _score_micro_batch(
    resolved: ResolvedRequest, start: StreamStart, rows: DataFrame, number: int
) -> None:
    """Score one micro-batch; Spark calls this, on Connect in another process."""
    spark = rows.sparkSession
    if resolved not in _streams:
        bound = bind_pinned_uri(spark, resolved, PinnedUris.of_request(resolved), log.info)
        _streams[resolved] = _RunningStream(
            bound=bound, previous=start.previous, stop=StopRequest()
        )
    stream = _streams[resolved]
    if stream.stop.is_requested:
        raise ScoringError(_ENDED)
    facts = _micro_batch_facts(stream, start.checkpoint, spark, number)
    if facts.write_mode == "follow":
        rows = last_changes(rows, resolved.request.key_columns)
    # Only the first micro-batch of a run may be one that an earlier run has written.
    entry = None if stream.has_written else _find_written(stream.bound, facts, rows)
    if entry is None:
        if stream.previous is not None:
            check_sole_writer(stream.bound, stream.previous, facts, is_first=not stream.has_written)
        transaction = Transaction(app_id=f"dbx_aml/{facts.job}", app_version=number)
        scores = stream.rows_read > stream.rows_quarantined or (
            # Its batches may have a single row. A run of all that there is has all new rows: where
            # the model fails on each of them, something else has changed since.
            start.has_scored and resolved.request.trigger.is_endless
        )
        written = write_batch(stream.bound, facts, rows, transaction, must_score_a_row=not scores)
        entry = written.entry
    stream.has_written = True
    if entry.facts.run == resolved.run and not resolved.request.trigger.is_endless:
        stream.entries.append(entry)
    if stream.previous is not None:
        stream.previous = entry
    _report_progress(stream, entry)
    if _is_over_limit(stream):
        raise ScoringError(_ENDED)


def _is_over_limit(stream: _RunningStream) -> bool:
    """Return whether an endless stream ends now: it has quarantined too many rows."""
    request = stream.bound.request
    limit = request.max_quarantined_rows
    if not request.trigger.is_endless:
        # A run of all that there is looks at the limit when it ends.
        return False
    if limit.count is None and stream.rows_read < _FEWEST_ROWS_OF_PERCENTAGE:
        return False
    return limit.is_exceeded(stream.rows_quarantined, stream.rows_read)


def _micro_batch_facts(
    stream: _RunningStream, checkpoint: str, spark: SparkSession, number: int
) -> BatchFacts:
    """Return the facts about a micro-batch."""
    stream_id = query_id(spark, checkpoint)
    offset = read_offset(spark, checkpoint, number)
    first_version = version = None
    identity: dict[str, Any] = {"stream": stream_identity(stream.bound)}
    if stream.bound.resolved.input.kind == "delta":
        version = version_of_offset(offset)
    else:
        identity["offsets"] = offset
    if stream.previous is not None:
        identity["previous_batch"] = stream.previous.facts.batch
        first_version = (stream.previous.facts.input_version_to or 0) + 1
    elif version is not None:
        identity["is_partial_version"] = int(offset["index"]) >= 0
    batch = time.time_ns() // 1000
    facts = batch_facts(
        stream.bound, f"{stream_id}/{number}", batch, (first_version, version), **identity
    )
    return replace(facts, job=str(stream_id))


def _report_progress(stream: _RunningStream, entry: LedgerEntry) -> None:
    """Say what a micro-batch had, how fast it was, and how far the input is ahead."""
    stream.rows_read += entry.rows_read
    stream.rows_quarantined += entry.rows_quarantined
    newest = stream.bound.request.input_table.version(stream.bound.spark)
    rate = entry.rows_read / entry.seconds if entry.seconds else 0.0
    text = (
        f"batch {entry.facts.batch_id.rpartition('/')[2]}: {plural(entry.rows_read, 'row')}, "
        f"{rate:,.0f} rows a second"
    )
    if newest is not None:
        lag = max(newest - (entry.facts.input_version_to or 0), 0)
        text += f", {plural(lag, 'version')} behind"
    stream.bound.report(text)
    log.info("%s", text)


def _find_written(bound: BoundRequest, facts: BatchFacts, rows: DataFrame) -> LedgerEntry | None:
    """Return a micro-batch that an earlier run has committed, after its end; else None."""
    output = bound.request.output_table
    identity = bound.resolved.output
    if identity is None:
        return None
    condition = f"batch_id = {sql_literal(facts.batch_id)}"
    for entry in Ledger(bound.spark, output, identity.id).read(condition):
        if entry.facts.batch_id == facts.batch_id:
            return entry
    commit = output.find_commit(bound.spark, "batch_id", facts.batch_id)
    if commit is None:
        return None
    # The batch counts for the run that finishes it.
    commit.metadata["run"] = facts.run
    return finish_batch(bound, commit, lambda _: rows)
