"""Follow a table: its inserts, updates and deletes reach the output table exactly once.

The first run scores the newest version of the input as one batch, which replaces the rows of both
tables. A stream merges the changes after that version. The number of the first batch names the
stream's folder in the checkpoint's folder, so a run that starts again has a new stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring.batch import batch_facts, score_batch
from dbx_aml.scoring.batch_identity import differences
from dbx_aml.scoring.bind import BoundRequest
from dbx_aml.scoring.changes import check_keys, check_no_null_key
from dbx_aml.scoring.checkpoint import last_offset, query_id, stream_folders
from dbx_aml.scoring.ledger import LedgerEntry
from dbx_aml.scoring.stream import (
    StreamResult,
    StreamStart,
    has_scored,
    pending,
    run_stream,
    stream_entries,
    stream_identity,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# A batch of all rows: the id of a batch of changes has the stream's id, "/" and a number.
_IS_WHOLE = "batch_id NOT LIKE '%/%'"
_START_AGAIN = "pass rescore=True to score all rows again"


def follow_input(bound: BoundRequest, read_rows: Callable[[int | None], DataFrame]) -> StreamResult:
    """Bring the output table up to date with the input table.

    Args:
        bound: Bound request.
        read_rows: Returns the request's rows as of a version of the input table.

    Raises:
        NoScorableRowError: The model fails on every row.
        ScoringError: A key is null or in two rows, the feed is cut off, another writer changed
            the output, or the output or the checkpoint belongs to another job.
    """
    spark, request = bound.spark, bound.request
    entries = newest_first(bound)
    _check_checkpoint(bound, entries)
    pending_entries, written = pending(entries), []
    if not entries or request.rescore:
        if not request.rescore:
            _require_no_other_rows(bound)
        entries = written = [_score_all_rows(bound, read_rows)]
        pending_entries = []
    else:
        _check_same_job(bound, entries[0])
    whole = next(entry for entry in entries if entry.facts.previous_batch is None)
    checkpoint = f"{request.checkpoint}/{whole.facts.batch}"
    start = StreamStart(checkpoint=checkpoint, previous=entries[0])
    if last_offset(spark, checkpoint) is None:
        # A first batch that is written and not in the checkpoint is read again.
        stream_id = query_id(spark, checkpoint)
        before = next(entry for entry in entries if entry.facts.job != stream_id)
        start = replace(start, version=(before.facts.input_version_to or 0) + 1)
    else:
        _check_newest_stream(bound, checkpoint, entries[0])
    changes, is_stopped = run_stream(bound, replace(start, has_scored=has_scored(bound, entries)))
    return StreamResult(
        entries=[*written, *changes], pending=pending_entries, is_stopped=is_stopped
    )


def newest_first(bound: BoundRequest) -> list[LedgerEntry]:
    """Return the output's newest batches, and each batch of all rows, newest first."""
    return stream_entries(bound, _IS_WHOLE)


def _score_all_rows(
    bound: BoundRequest, read_rows: Callable[[int | None], DataFrame]
) -> LedgerEntry:
    """Score the newest version of the input, in the place of what both tables have."""
    version, key_columns = bound.resolved.input_version, bound.request.key_columns
    rows = read_rows(version)
    bound.report("checking the keys")
    check_no_null_key(rows, key_columns)
    check_keys(rows, key_columns)
    facts = batch_facts(
        bound, "", bound.resolved.run, (None, version), stream=stream_identity(bound)
    )
    # Not the version: a job that starts again finishes the batch that it has left.
    facts = replace(facts, batch_id=facts.job)
    return score_batch(bound, facts, read_rows).entry


def _require_no_other_rows(bound: BoundRequest) -> None:
    """Refuse tables that have rows of other jobs: the first batch would remove them."""
    request, resolved = bound.request, bound.resolved
    job = batch_facts(bound, "", 0, (None, None)).job
    for argument, table, identity in (
        ("output_table", request.output_table, resolved.output),
        ("quarantine_table", request.quarantine_table, resolved.quarantine),
    ):
        if identity is None or not table.read(bound.spark).head(1):
            continue
        # An interrupted batch of this job has no entry yet.
        if request.output_table.find_commit(bound.spark, "job", job) is None:
            raise ScoringError(
                f"{argument} must be empty before the first run of write_mode 'follow': got "
                f"{table.name!r} with rows of other jobs; name another {argument}, or pass "
                "rescore=True to remove these rows"
            )


def _check_checkpoint(bound: BoundRequest, entries: list[LedgerEntry]) -> None:
    """Refuse a checkpoint with the streams of another output table, or of another write mode."""
    request = bound.request
    numbers = {str(entry.facts.batch) for entry in entries}
    has_own_streams = stream_folders(bound.spark, request.checkpoint) <= numbers
    if has_own_streams and query_id(bound.spark, request.checkpoint) is None:
        return
    raise ScoringError(
        "checkpoint_location must belong to the output table: got "
        f"{request.checkpoint!r}, which has the stream of another job; pass a folder of its own"
    )


def _check_same_job(bound: BoundRequest, newest: LedgerEntry) -> None:
    """Refuse an output table that follows another input, filter, key, or other columns."""
    changes = differences(newest.facts.identity.get("stream", {}), stream_identity(bound))
    if changes:
        raise ScoringError(
            f"output_table must follow one input in one way: got "
            f"{bound.request.output_table.name!r}, where {changes}; name another output_table and "
            f"another checkpoint_location, or {_START_AGAIN}"
        )


def _check_newest_stream(bound: BoundRequest, checkpoint: str, newest: LedgerEntry) -> None:
    """Refuse a checkpoint that is behind the output: a run with another checkpoint wrote later."""
    is_changes = newest.facts.previous_batch is not None
    if is_changes and newest.facts.job != query_id(bound.spark, checkpoint):
        raise ScoringError(
            "checkpoint_location must be the one of the newest run: got "
            f"{bound.request.checkpoint!r}, but a run with another one has written batch "
            f"{newest.facts.batch} of {bound.request.output_table.name!r}; pass that one, or "
            f"{_START_AGAIN}"
        )
