"""Write one batch: its scored rows into the output table, the others into the quarantine, once.

The output table is committed first, in one transaction that carries the batch's id; then, if rows
could not be scored, the quarantine table, in a transaction with the same id. When the same batch
is started again, its commit is found in the output table's history and nothing is written twice.
If that commit has fewer rows than the input, the quarantine's part is written, unless its commit
exists too: the first attempt may have ended between the two.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from dbx_aml._common.deadline import call_within
from dbx_aml._common.errors import ScoringError
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring.bind import BoundRequest, bind_pinned_uri
from dbx_aml.scoring.delta_table import Commit
from dbx_aml.scoring.delta_write import (
    StrictGuardError,
    batch_writer,
    create_table,
    merge_rows,
    write_table,
)
from dbx_aml.scoring.guard import QUARANTINED
from dbx_aml.scoring.model_trial import require_scorable_row, try_model
from dbx_aml.scoring.output_rows import quarantined_rows, scored_rows
from dbx_aml.scoring.partitions import partition_rows
from dbx_aml.scoring.request import Batch
from dbx_aml.scoring.spark_errors import SPARK_ERRORS
from dbx_aml.scoring.spark_settings import larger_arrow_batches

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Observation

log = get_logger(__name__)

# The commit of a write that has just ended is among the newest, even where other jobs write to
# the same table.
_LATEST_COMMITS = 20
# Spark delivers observed counts when the write returns, or a moment later.
_OBSERVATION_TIMEOUT_S = 10.0

# Returns a batch's rows as of a version of the input table.
ReadRows = Callable[[int | None], "DataFrame"]


@dataclass(frozen=True, kw_only=True)
class WrittenBatch:
    """A batch that is in its tables.

    Args:
        rows_scored: Rows in the output table.
        rows_quarantined: Rows in the quarantine table.
        output_version: Version of the output table with this batch.
        is_new: False if an earlier attempt had written all of it.
        metadata: Facts about the batch, from its commit.
    """

    rows_scored: int
    rows_quarantined: int
    output_version: int | None
    is_new: bool
    metadata: dict[str, Any]


def write_batch(bound: BoundRequest, read_rows: ReadRows, batch: Batch) -> WrittenBatch:
    """Score a batch into both tables, unless an earlier attempt has done it.

    Raises:
        NoScorableRowError: The model fails on every row; nothing is written then.
        ScoringError: A table cannot be written.
    """
    spark, request = bound.spark, bound.request
    output = request.output_table
    exists = output.exists(spark)
    rows = read_rows(batch.input_version)
    allows_all = request.max_quarantined_rows.allows_all
    # Not for a new table: a first write that fails would leave its folder behind. Not with a
    # model server: it hides the reason.
    is_strict = exists and not allows_all and request.is_local_environment
    # Each of these is a small query that mostly waits: they run at the same time.
    with ThreadPoolExecutor(1) as pool:
        partitioning = pool.submit(partition_rows, bound, rows)
        # No look-up for streams: the checkpoint replays a micro-batch only after a crash, and
        # Delta's transaction id rejects the second write.
        if exists and request.write_mode != "incremental":
            commit = output.find_commit(spark, batch.batch_id)
            if commit is not None:
                return _finish_quarantine(bound, read_rows, batch, commit)
        if not is_strict and not allows_all:
            bound.report("trying the model")
            try_model(bound, rows)
        bound.model_udf.prepare(strict=is_strict)
        partitioned_rows, arrow_rows = partitioning.result()
    row_count = _check_keys(bound, rows) if request.write_mode == "merge" else None

    def write_output(*, strict: bool) -> tuple[Commit, int] | None:
        return _write_output(bound, rows, partitioned_rows, batch, exists, row_count, strict=strict)

    bound.report("scoring")
    with larger_arrow_batches(partitioned_rows.sparkSession, arrow_rows):
        try:
            written = write_output(strict=is_strict)
        except StrictGuardError as err:
            require_scorable_row(bound, rows, str(err))
            written = write_output(strict=False)
    if written is None:
        # Delta refused the transaction: its commit is older than the newest 200.
        commit = output.find_commit(spark, batch.batch_id, limit=None)
        if commit is None:
            raise ScoringError(
                f"batch must be written once: got {batch.batch_id!r}, which the output table "
                "holds without its commit in the history; pass another batch_id"
            )
        return _finish_quarantine(bound, read_rows, batch, commit)
    output_commit, rows_quarantined = written
    if rows_quarantined:
        rows_quarantined = _write_quarantine(bound, rows, batch)
    return WrittenBatch(
        rows_scored=output_commit.rows,
        rows_quarantined=rows_quarantined,
        output_version=output_commit.version,
        is_new=True,
        metadata=output_commit.metadata,
    )


def _finish_quarantine(
    bound: BoundRequest, read_rows: ReadRows, batch: Batch, commit: Commit
) -> WrittenBatch:
    """Write the quarantine's part of a batch whose output is committed, if it is missing.

    The rows are read from the commit's version of the input table and scored with the commit's
    model: the table may have grown since, and the alias may name another version.
    """
    metadata = _commit_metadata(bound, batch)
    for name in ("input_table", "row_filter"):
        if commit.metadata.get(name) != metadata[name]:
            raise ScoringError(
                f"batch_id must name one set of rows: got {batch.batch_id!r}, which the output "
                f"holds for {name} {commit.metadata.get(name)!r}; pass another batch_id"
            )
    spark, quarantine = bound.spark, bound.request.quarantine_table
    quarantine_commit = None
    if quarantine.exists(spark):
        quarantine_commit = quarantine.find_commit(spark, batch.batch_id)
    rows_quarantined = quarantine_commit.rows if quarantine_commit else 0
    is_new = False
    batch = replace(batch, input_version=commit.metadata.get("input_version"))
    rows = read_rows(batch.input_version)
    if quarantine_commit is None and rows.count() > commit.rows:
        model_uri = str(commit.metadata["model_uri"])
        if model_uri != bound.resolved.model.uri:
            bound = bind_pinned_uri(spark, bound.resolved, model_uri, bound.report)
        rows_quarantined, is_new = _write_quarantine(bound, rows, batch), True
    return WrittenBatch(
        rows_scored=commit.rows,
        rows_quarantined=rows_quarantined,
        output_version=commit.version,
        is_new=is_new,
        metadata=commit.metadata,
    )


def _check_keys(bound: BoundRequest, rows: DataFrame) -> int:
    """Return the number of rows; refuse two with the same key."""
    keys = [F.col(sql_identifier(name)) for name in bound.request.key_columns]
    counted = rows.groupBy(*keys).agg(F.count(F.lit(1)).alias("n"))
    example = F.max_by(F.to_json(F.struct(*keys)), "n")
    row_count, largest_count, key = counted.agg(F.sum("n"), F.max("n"), example).collect()[0]
    if largest_count is not None and largest_count > 1:
        raise ScoringError(
            f"key_columns must name each input row once: got {largest_count} rows with {key}; "
            "add a column to the key or remove the duplicates"
        )
    return int(row_count or 0)


def _write_output(
    bound: BoundRequest,
    rows: DataFrame,
    partitioned_rows: DataFrame,
    batch: Batch,
    exists: bool,
    row_count: int | None,
    *,
    strict: bool,
) -> tuple[Commit, int] | None:
    """Commit the scored rows, and count those for the quarantine.

    Returns:
        The commit and the count; None if the output table has this batch already.
    """
    spark, request = bound.spark, bound.request
    output = request.output_table
    frame, observation = scored_rows(bound, partitioned_rows, batch, strict=strict)
    attempt = uuid.uuid4().hex
    metadata = {**_commit_metadata(bound, batch), "attempt": attempt}
    if not exists and (output.path is None or request.write_mode == "merge"):
        # A first write that dies leaves files in the folder of a named table, and Spark refuses
        # to create a table there: so the empty table is created before.
        create_table(spark, output, frame.schema)
    if request.write_mode == "merge":
        merged = merge_rows(spark, output, frame, request.key_columns, batch, metadata)
        if merged is None:
            return None
        version = output.version(spark) or 0
        commit = Commit(version=version, rows=merged, metadata=metadata)
        return commit, int(row_count or 0) - merged
    mode = "overwrite" if request.write_mode == "replace" else "append"
    writer = batch_writer(frame, batch, metadata).mode(mode)
    if request.replace_where:
        writer = writer.option("replaceWhere", request.replace_where)
    write_table(writer, output, frame.schema, exists=exists)
    commits = output.commits(spark, _LATEST_COMMITS)
    own_commit = next((c for c in commits if c.metadata.get("attempt") == attempt), None)
    if own_commit is None:
        return None
    observed = _observed_counts(observation).get(QUARANTINED)
    return own_commit, rows.count() - own_commit.rows if observed is None else int(observed)


def _write_quarantine(bound: BoundRequest, rows: DataFrame, batch: Batch) -> int:
    """Commit the rows that cannot be scored; return how many they are."""
    bound.report("writing the quarantine")
    spark, quarantine = bound.spark, bound.request.quarantine_table
    frame = quarantined_rows(bound, rows, batch)
    metadata = {**_commit_metadata(bound, batch), "attempt": uuid.uuid4().hex}
    exists = quarantine.exists(spark)
    if not exists and quarantine.path is None:
        create_table(spark, quarantine, frame.schema)
    writer = batch_writer(frame, batch, metadata).mode("append")
    write_table(writer, quarantine, frame.schema, exists=exists)
    commit = quarantine.find_commit(spark, batch.batch_id)
    return commit.rows if commit else 0


def _commit_metadata(bound: BoundRequest, batch: Batch) -> dict[str, Any]:
    model = bound.resolved.model
    return {
        "batch_id": batch.batch_id,
        "app_id": batch.app_id,
        "model_uri": model.uri,
        "model_name": model.name,
        "model_version": model.version,
        "model_run_id": model.run_id,
        "input_table": bound.request.input_table.name,
        "input_version": batch.input_version,
        "row_filter": bound.request.row_filter,
    }


def _observed_counts(observation: Observation) -> dict[str, Any]:
    """Return the observed counts, or nothing where Spark does not deliver them.

    A write runs several queries, and Spark may take the counts from one that read no row
    (`replaceWhere` is such a write), or, before Spark 4, wait for a query that never comes.
    """
    try:
        return call_within(lambda: dict(observation.get), _OBSERVATION_TIMEOUT_S)
    except (*SPARK_ERRORS, TimeoutError):
        log.debug("Spark delivered no observed counts", exc_info=True)
        return {}
