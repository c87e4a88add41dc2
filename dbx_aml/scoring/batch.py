"""Score a batch into its tables once: decide what the tables have of it, and write the rest.

A batch is done where the ledger has it and its rows are in the tables now. A batch that is in the
output without an entry in the ledger was interrupted: its rest is written first.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import ScoringError
from dbx_aml._common.log import get_logger
from dbx_aml._common.redact import redact_uri
from dbx_aml._common.text import plural, sql_literal
from dbx_aml.scoring.batch_identity import batch_identity, differences, job_identity
from dbx_aml.scoring.batch_writer import BatchWriter, is_under_way
from dbx_aml.scoring.bind import BoundRequest, PinnedUris, bind_pinned_uri
from dbx_aml.scoring.changes import has_key_of
from dbx_aml.scoring.column_binding import QUARANTINE
from dbx_aml.scoring.delta_table import Commit, Table, has_first_commit
from dbx_aml.scoring.ledger import REBUILT, Ledger, LedgerEntry, interrupted_commits
from dbx_aml.scoring.request import BatchFacts, Transaction
from dbx_aml.scoring.spark_errors import SPARK_ERRORS
from dbx_aml.scoring.table_identity import identify_table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = get_logger(__name__)

_POLL_INTERVAL_S = 0.5
# Longest wait for another job that has committed the same batch.
_LONGEST_WAIT_S = 600.0
# Operations that may take a batch's rows out of a table.
_REMOVING_OPERATIONS = ("DELETE", "RESTORE", "WRITE", "MERGE", "UPDATE", "TRUNCATE")

# Returns a batch's rows as of a version of the input table.
ReadRows = Callable[[int | None], "DataFrame"]


@dataclass(frozen=True, kw_only=True)
class WrittenBatch:
    """A batch that is in its tables.

    Args:
        entry: Entry of the ledger.
        is_new: False if an earlier attempt had written all of it.
        rows_removed: Rows of the batch that are no longer in the tables.
        removed_by: Commit that removed them, for example "version 5 (RESTORE) of main.ml.scored".
    """

    entry: LedgerEntry
    is_new: bool
    rows_removed: int = 0
    removed_by: str | None = None


def batch_facts(
    bound: BoundRequest,
    batch_id: str,
    number: int,
    versions: tuple[int | None, int | None],
    **identity: Any,
) -> BatchFacts:
    """Return the facts about a batch of this request.

    Args:
        bound: Bound request.
        batch_id: Name of the batch.
        number: Number of the batch.
        versions: First and last version of the input table with rows of the batch.
        **identity: Further facts of the batch's identity, as plain JSON values.
    """
    request, resolved = bound.request, bound.resolved
    own_identity = batch_identity(bound)
    return BatchFacts(
        batch=number,
        batch_id=batch_id,
        identity={**own_identity, **identity},
        job=job_identity(own_identity),
        run=resolved.run,
        model_uri=resolved.model.uri,
        model_name=resolved.model.name,
        model_version=resolved.model.version,
        model_run_id=resolved.model.run_id,
        registry_uri=redact_uri(resolved.registry_uri),
        input_table=resolved.input.name,
        input_id=resolved.input.id,
        input_version_from=versions[0],
        input_version_to=versions[1],
        row_filter=request.row_filter,
        write_mode=request.write_mode,
        quarantine_table=request.quarantine_table.name,
        compute=_compute(bound),
    )


def _compute(bound: BoundRequest) -> str:
    """Return the id of the cluster, or the name of this machine."""
    try:
        return str(bound.spark.conf.get("spark.databricks.clusterUsageTags.clusterId"))
    except SPARK_ERRORS:
        return socket.gethostname()


def score_batch(bound: BoundRequest, facts: BatchFacts, read_rows: ReadRows) -> WrittenBatch:
    """Score the request's rows as one batch, unless the tables have it.

    Args:
        bound: Bound request.
        facts: Batch, of the newest version of the input.
        read_rows: Returns the batch's rows.

    Raises:
        NoScorableRowError: The model fails on every row; nothing is written then.
        ScoringError: A table cannot be written, the batch id names other rows, or the batch's
            rows were removed from the output.
    """
    resolved, batch_id = bound.resolved, facts.batch_id
    earlier: list[LedgerEntry] = []
    if resolved.output is not None:
        ledger = Ledger(bound.spark, bound.request.output_table, resolved.output.id)
        earlier, finished = _finish_interrupted(bound, ledger, facts, read_rows)
        for entry in finished:
            if entry.facts.batch_id == batch_id:
                return WrittenBatch(entry=entry, is_new=True)
        if earlier:
            done = _find_done(bound, earlier[0], facts, read_rows)
            if done is not None:
                return done
    transaction = Transaction(app_id=f"dbx_aml/{batch_id}", app_version=len(earlier) + 1)
    return write_batch(bound, facts, read_rows(resolved.input_version), transaction)


def write_batch(
    bound: BoundRequest,
    facts: BatchFacts,
    rows: DataFrame,
    transaction: Transaction,
    *,
    must_score_a_row: bool = True,
) -> WrittenBatch:
    """Score a batch that the tables do not have; a batch that another job commits is its batch.

    Args:
        bound: Bound request.
        facts: Batch.
        rows: Rows of the batch.
        transaction: Transaction of the output's commit.
        must_score_a_row: Whether a batch on which the model fails everywhere is refused.
    """
    identity = bound.resolved.output
    if identity is None and bound.request.is_stream:
        # An earlier batch of this run may have created the table.
        identity = identify_table(bound.spark, bound.request.output_table)
    output_id = identity.id if identity else None
    with BatchWriter(bound, rows, facts, output_id, must_score_a_row=must_score_a_row) as writer:
        entry = writer.write(transaction)
    if entry is not None:
        return WrittenBatch(entry=entry, is_new=True)
    identity = identify_table(bound.spark, bound.request.output_table)
    ledger = Ledger(bound.spark, bound.request.output_table, identity.id if identity else None)
    commit = bound.request.output_table.find_commit(bound.spark, "batch_id", facts.batch_id, None)
    if commit is not None:
        bound.report("waiting for another job that writes the same batch")
        entry = _await_entry(ledger, commit, _LONGEST_WAIT_S)
        if entry is not None:
            return WrittenBatch(entry=entry, is_new=False)
    raise ScoringError(
        f"batch must be written by one job at a time: got {facts.batch_id!r}, which another job "
        "has committed and not finished; run the job again"
    )


def _await_entry(ledger: Ledger, commit: Commit, timeout_s: float) -> LedgerEntry | None:
    """Return the entry of a batch as soon as its job has ended; None if the job wrote no entry."""
    number = commit.metadata["batch"]
    end_time = time.monotonic() + timeout_s
    while True:
        may_come = is_under_way(commit) and time.monotonic() < end_time
        for entry in ledger.read(f"batch = {int(number)}"):
            if entry.facts.batch == number:
                return entry
        if not may_come:
            return None
        time.sleep(_POLL_INTERVAL_S)


# Interrupted batches


def _finish_interrupted(
    bound: BoundRequest, ledger: Ledger, facts: BatchFacts, read_rows: ReadRows
) -> tuple[list[LedgerEntry], list[LedgerEntry]]:
    """Finish the batches that earlier attempts at this job have left.

    Returns:
        Earlier entries of the same batch id, newest first, and the entries of finished batches.
    """
    # Both mostly wait for Spark.
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(ledger.written_batches)
        commits = bound.request.output_table.history(bound.spark)
        written = reading.result()
    if written is not None and _has_nothing_of(facts.batch_id, commits, written):
        return [], []
    entries = ledger.read(f"batch_id = {sql_literal(facts.batch_id)}")
    finished = []
    for commit in interrupted_commits(commits, entries):
        if commit.metadata.get("job") != facts.job:
            log.warning(
                "output has an interrupted batch of another job, batch=%s batch_id=%s",
                commit.metadata.get("batch"), commit.metadata.get("batch_id"),
            )  # fmt: skip
            continue
        bound.report("waiting for an interrupted batch")
        entry = _await_entry(ledger, commit, _LONGEST_WAIT_S)
        if entry is None:
            try:
                entry = finish_batch(bound, commit, read_rows)
            except ScoringError:
                if not bound.request.rescore:
                    raise
                new_facts = replace(facts, batch=commit.metadata["batch"])
                rows = read_rows(facts.input_version_to)
                entry = _replace_batch(bound, new_facts, rows)
            if entry.state != REBUILT:
                finished.append(entry)
        entries.append(entry)
    earlier = [entry for entry in entries if entry.facts.batch_id == facts.batch_id]
    return sorted(earlier, key=lambda entry: entry.facts.batch, reverse=True), finished


def _has_nothing_of(batch_id: str, commits: Sequence[Commit], written: Mapping[int, str]) -> bool:
    """Return whether a table has no batch of this id, and no batch that was interrupted.

    Args:
        batch_id: Name of the batch.
        commits: Newest commits of the output table; the answer is certain if they are all.
        written: Number and id of each batch in the ledger.
    """
    batches = {
        c.metadata["batch"]: c.metadata["batch_id"] for c in commits if "batch" in c.metadata
    }
    return (
        has_first_commit(commits)
        and batches.keys() <= written.keys()
        and batch_id not in (*batches.values(), *written.values())
    )


def finish_batch(bound: BoundRequest, commit: Commit, read_rows: ReadRows) -> LedgerEntry:
    """Write the quarantine and the entry of a batch whose output is committed.

    Args:
        bound: Bound request.
        commit: Newest commit of the batch in the output table.
        read_rows: Returns the batch's rows.

    Raises:
        ScoringError: The batch's rows cannot be read any more.
    """
    facts = BatchFacts.from_metadata(commit.metadata)
    log.warning("finishing an interrupted batch, batch=%s batch_id=%s", facts.batch, facts.batch_id)
    bound.report("finishing an interrupted batch")
    spark, output = bound.spark, bound.request.output_table
    staging = commit.metadata.get("staging")
    rows = read_rows(_readable_version(bound, facts))
    with BatchWriter(bound, rows, facts, _output_id(bound)) as writer:
        if staging and Table(staging).exists(spark):
            return writer.finish_from(Table(staging), commit)
        quarantine, quarantine_commit = Table(facts.quarantine_table), None
        if quarantine.exists(spark):
            quarantine_commit = quarantine.find_commit(spark, "batch", facts.batch)
        scored = output.read(spark, commit.version).where(f"_scoring.batch = {facts.batch}")
        commit = replace(commit, rows=scored.count())
        quarantined = quarantine_commit.rows if quarantine_commit else 0
        if facts.input_version_to is None:
            # The staging table of a view is dropped last: only the entry is missing.
            return writer.write_entry(commit, quarantine_commit, REBUILT)
        # Changes are no rows to count, and the quarantine may have rows of the time before.
        can_count = facts.previous_batch is None and (
            facts.write_mode != "follow" or quarantine_commit or not quarantine.exists(spark)
        )
        try:
            if can_count and rows.count() == commit.rows + quarantined:
                return writer.write_entry(commit, quarantine_commit, REBUILT)
        except SPARK_ERRORS as err:
            raise _unreadable(facts, commit) from err
    bound = _bind_own_model(bound, facts)
    try:
        return _replace_batch(bound, facts, rows)
    except ScoringError as err:
        raise _unreadable(facts, commit) from err


def _unreadable(facts: BatchFacts, commit: Commit) -> ScoringError:
    return ScoringError(
        f"interrupted batch must be finished before the next: got batch {facts.batch} "
        f"({facts.batch_id!r}) of version {facts.input_version_to} of {facts.input_table}, "
        f"which cannot be scored any more; the output has {plural(commit.rows, 'row')} of it "
        f"(_scoring.batch = {facts.batch}), its other rows have no verdict; pass rescore=True to "
        "score the input's newest version in the place of that batch"
    )


def _bind_own_model(bound: BoundRequest, facts: BatchFacts) -> BoundRequest:
    """Return the request with the model of an earlier batch, and with its challenger."""
    uris = PinnedUris.of_batch(facts)
    if PinnedUris.of_request(bound.resolved) != uris:
        bound = bind_pinned_uri(bound.spark, bound.resolved, uris, bound.report)
    challenger_content = (facts.identity.get("challenger") or {}).get("model_content")
    for model, uri, content in (
        (bound.resolved.model, facts.model_uri, facts.identity.get("model_content")),
        (bound.resolved.challenger, uris.challenger, challenger_content),
    ):
        if model is not None and model.content != content:
            raise ScoringError(
                f"interrupted batch must be finished with its own model: got {uri!r}, which is "
                "another model now; pass rescore=True to score with the model as it is now"
            )
    return bound


def _output_id(bound: BoundRequest) -> str | None:
    return bound.resolved.output.id if bound.resolved.output else None


def _replace_batch(bound: BoundRequest, facts: BatchFacts, rows: DataFrame) -> LedgerEntry:
    with BatchWriter(bound, rows, facts, _output_id(bound)) as writer:
        return writer.write_again()


def _readable_version(bound: BoundRequest, facts: BatchFacts) -> int | None:
    """Return a version of the input with a batch's rows: the newest one, if it has them.

    The files of an older version may have been removed, though it has the same rows.
    """
    source = bound.resolved.input
    if (
        source.id == facts.input_id
        and source.data_version == facts.identity.get("input_data_version")
        and bound.resolved.input_version is not None
    ):
        return bound.resolved.input_version
    return facts.input_version_to


# Batches that are done


def _find_done(
    bound: BoundRequest, entry: LedgerEntry, facts: BatchFacts, read_rows: ReadRows
) -> WrittenBatch | None:
    """Return the batch of this id if the tables have it; None where it is to be written.

    Raises:
        ScoringError: The batch id names other rows, or no row of the batch is in the output.
    """
    request = bound.request
    if request.write_mode == "follow":
        return None if request.rescore else WrittenBatch(entry=entry, is_new=False)
    changes = differences(entry.facts.identity, facts.identity)
    if changes and not request.rescore:
        raise ScoringError(
            f"batch_id must name one set of rows: got {facts.batch_id!r}, under which "
            f"{request.output_table.name!r} has other facts: {changes}; pass another batch_id, or "
            "rescore=True to replace that batch"
        )
    scored, quarantined, total = _count_rows(bound, entry)
    missing = max(entry.rows_scored - scored, 0)
    missing_quarantined = max(entry.rows_quarantined - quarantined, 0)
    is_changed = changes or missing or missing_quarantined
    if request.write_mode == "replace" and (is_changed or total != entry.rows_scored):
        return None
    if request.write_mode == "merge" and (is_changed or _has_quarantined_key(bound, entry)):
        return None
    if request.rescore and is_changed:
        new_facts = replace(facts, batch=entry.facts.batch)
        rows = read_rows(bound.resolved.input_version)
        return WrittenBatch(entry=_replace_batch(bound, new_facts, rows), is_new=True)
    removed_by = None
    if missing:
        removed_by = f"a commit after version {entry.output_version} of {request.output_table.name}"
        removal = find_removal(bound.spark, request.output_table, entry)
        if removal is not None:
            version = f"version {removal.version} ({removal.operation})"
            removed_by = f"{version} of {request.output_table.name}"
        if not scored:
            raise ScoringError(
                f"batch must be in the output table: got {facts.batch_id!r}, whose "
                f"{plural(missing, 'row')} {removed_by} removed; pass rescore=True to score them "
                "again"
            )
        log.warning("%s removed %s of the batch", removed_by, plural(missing, "row"))
    return WrittenBatch(
        entry=entry,
        is_new=False,
        rows_removed=missing + missing_quarantined,
        removed_by=removed_by,
    )


def _count_rows(bound: BoundRequest, entry: LedgerEntry) -> tuple[int, int, int]:
    """Return the batch's rows in the output and in the quarantine, and the rows to be replaced."""
    request, number = bound.request, entry.facts.batch
    output = request.output_table.name
    counts = [f"(SELECT count(*) FROM {output} WHERE _scoring.batch = {number})", "0L", "0L"]
    if entry.rows_quarantined and _has_quarantine(bound):
        quarantine = request.quarantine_table.name
        counts[1] = f"(SELECT count(*) FROM {quarantine} WHERE _quarantine.batch = {number})"
    if request.write_mode == "replace":
        counts[2] = f"(SELECT count(*) FROM {output} WHERE {request.replace_where or 'true'}\n)"
    scored, quarantined, total = bound.spark.sql(f"SELECT {', '.join(counts)}").collect()[0]
    return int(scored), int(quarantined), int(total)


def _has_quarantine(bound: BoundRequest) -> bool:
    """Return whether the quarantine exists and has scoring's own column."""
    if bound.resolved.quarantine is None:
        return False
    return QUARANTINE in bound.request.quarantine_table.read(bound.spark).columns


def _has_quarantined_key(bound: BoundRequest, entry: LedgerEntry) -> bool:
    """Return whether the output has a row whose key the batch has put into the quarantine.

    A later batch, of another model or another filter, has scored it.
    """
    request = bound.request
    if not entry.rows_quarantined:
        return False
    quarantined = request.quarantine_table.read(bound.spark).where(
        f"{QUARANTINE}.batch = {entry.facts.batch}"
    )
    output = request.output_table.read(bound.spark)
    return has_key_of(output, quarantined, request.key_columns)


def find_removal(spark: SparkSession, table: Table, entry: LedgerEntry) -> Commit | None:
    """Return the first commit that removed rows of a batch; None where no history tells it."""
    later = [
        commit
        for commit in reversed(table.history(spark))
        if commit.version > (entry.output_version or 0)
        and commit.operation.startswith(_REMOVING_OPERATIONS)
    ]
    condition = f"_scoring.batch = {entry.facts.batch}"
    for commit in later:
        try:
            count = table.read(spark, commit.version).where(condition).count()
        except SPARK_ERRORS:
            continue
        if count < entry.rows_scored:
            return commit
    return None
