"""Write one batch: its scored rows into the output, the others into the quarantine, then its entry.

Each row has one verdict. Where the input has versions, one pass writes the scored rows and observes
the others, which are read again, but not asked again. Elsewhere all rows go into a staging table
with the model's result, and both tables are written from it.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import ScoringError
from dbx_aml._common.log import get_logger
from dbx_aml._common.programs import is_process_running
from dbx_aml.scoring.bind import BoundRequest
from dbx_aml.scoring.challenger import measure_agreement
from dbx_aml.scoring.changes import (
    IS_NEW,
    check_changes,
    check_keys,
    conflict_condition,
    has_key_of,
    new_keys_error,
)
from dbx_aml.scoring.column_binding import CHALLENGER, QUARANTINE, SCORING
from dbx_aml.scoring.delta_table import Commit, Table
from dbx_aml.scoring.delta_write import (
    CHECKPOINT_PROPERTY,
    ConcurrentBatchError,
    MergeConflictError,
    StrictGuardError,
    TooManyReasonsError,
    batch_transaction,
    can_drop,
    create_table,
    drop_new_table,
    merge_rows,
    transaction_options,
    transaction_settings,
    write_rows,
)
from dbx_aml.scoring.estimate import estimate_line, estimate_request
from dbx_aml.scoring.guard import REASON
from dbx_aml.scoring.ledger import SCORED, Ledger, LedgerEntry
from dbx_aml.scoring.model_trial import require_scorable_row, try_model
from dbx_aml.scoring.model_udf import RESULT
from dbx_aml.scoring.output_rows import (
    IS_QUARANTINED,
    IS_SCORED,
    aliased,
    needed_columns,
    output_expressions,
    quarantine_expressions,
    quarantined_rows,
    scored_rows,
)
from dbx_aml.scoring.partitions import partition_rows
from dbx_aml.scoring.plan import is_large, is_small
from dbx_aml.scoring.request import BatchFacts, Transaction
from dbx_aml.scoring.segments import count_segments
from dbx_aml.scoring.spark_settings import larger_arrow_batches
from dbx_aml.scoring.staging import drop_staging, staging_number, staging_table, write_staging
from dbx_aml.scoring.stream_errors import checkpoint_in_use_error
from dbx_aml.scoring.table_identity import identify_table
from dbx_aml.scoring.unasked_rows import IS_DELETED, rows_to_ask, with_result
from dbx_aml.scoring.verdicts import (
    FOUND_REASON,
    Verdicts,
    can_hash,
    find_quarantined,
    observe_verdicts,
    read_verdicts,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = get_logger(__name__)

_REASON = f"{RESULT}.{REASON}"
# The commit of a write that has just ended is among the newest, even where other jobs write to
# the same table.
_LATEST_COMMITS = 20
# Attempts of this process that are under way.
_running_attempts: set[str] = set()
# Longest times between the commit of a batch and its entry: for a process of another machine, and
# for a process that exists on this machine. Later, the batch counts as interrupted.
_GRACE_S, _LONG_GRACE_S = 15.0, 3600.0


def is_under_way(commit: Commit) -> bool:
    """Return whether the job that made a commit may still be writing the rest of the batch."""
    if commit.metadata.get("attempt") in _running_attempts:
        return True
    age_s = time.time() - commit.timestamp_s
    host, _, process_id = str(commit.metadata.get("process")).rpartition("/")
    if host != socket.gethostname():
        return age_s < _GRACE_S
    if process_id == str(os.getpid()):
        return False
    try:
        return is_process_running(int(process_id)) and age_s < _LONG_GRACE_S
    except ValueError:
        return False


class BatchWriter:
    """Writer of a batch, for a single attempt.

    Args:
        bound: Bound request.
        rows: Rows of the batch: all columns of the input; of write_mode "follow" changes, too.
        facts: Batch.
        output_id: Id of the output table; None if it does not exist.
        must_score_a_row: Whether `write` refuses a batch on which the model fails everywhere,
            unless the limit of the request allows it.
    """

    def __init__(
        self,
        bound: BoundRequest,
        rows: DataFrame,
        facts: BatchFacts,
        output_id: str | None,
        *,
        must_score_a_row: bool = True,
    ) -> None:
        self._bound = bound
        self._spark = bound.spark
        self._rows = rows
        self._facts = facts
        self._output_id = output_id
        allows_all = bound.request.max_quarantined_rows.allows_all
        self._must_score_a_row = must_score_a_row and not allows_all
        self._action = facts.write_action
        self._has_changes = facts.previous_batch is not None
        self._output = bound.request.output_table
        self._quarantine = bound.request.quarantine_table
        self._attempt = uuid.uuid4().hex
        self._start_time = time.monotonic()
        # Time of the output's commit; long ago where this attempt did not make it.
        self._commit_time = float("-inf")
        self._plan: dict[str, Any] = {}

    def __enter__(self) -> BatchWriter:
        _running_attempts.add(self._attempt)
        return self

    def __exit__(self, *_: object) -> None:
        _running_attempts.discard(self._attempt)

    def write(self, transaction: Transaction) -> LedgerEntry | None:
        """Write a batch that no table has.

        Returns:
            The entry; None if another job has committed the transaction.

        Raises:
            NoScorableRowError: The model fails on every row; nothing is written then.
            ScoringError: A table cannot be written.
        """
        may_drop = self._output_id is None and self._create_output()
        try:
            return self._write(transaction)
        except ConcurrentBatchError:
            return None
        except ScoringError:
            if may_drop:
                drop_new_table(self._spark, self._output)
            raise

    def write_again(self) -> LedgerEntry:
        """Write a batch in the place of what the tables have of it."""
        staging = self._stage(strict=False)
        commit = self._write_output_from(staging, None)
        return self._finish_from(staging, commit, replaces=True)

    def finish_from(self, staging: Table, output_commit: Commit) -> LedgerEntry:
        """Write the rest of a batch whose output was written from its staging table."""
        return self._finish_from(staging, output_commit, replaces=True)

    def write_entry(
        self, commit: Commit, quarantine: Commit | None, state: str = SCORED
    ) -> LedgerEntry:
        """Write the entry of a batch whose tables are written."""
        quarantined = quarantine.rows if quarantine else 0
        return self._write_entry(
            commit.rows + quarantined,
            quarantined,
            commit.version,
            quarantine.version if quarantine else None,
            replaces=True,
            state=state,
        )

    def _create_output(self) -> bool:
        """Create the output table without rows; return whether a failing job may drop it again.

        A first write that dies leaves files in the folder of a named table, and Spark refuses to
        create a table there.
        """
        bound = self._bound
        may_drop = can_drop(self._spark, self._output)
        if not may_drop and self._must_score_a_row:
            bound.report("trying the model")
            try_model(bound, rows_to_ask(self._rows))
        empty = bound.model_udf.with_empty_result(needed_columns(bound, self._rows))
        request = bound.request
        properties = {CHECKPOINT_PROPERTY: request.checkpoint} if request.is_stream else {}
        create_table(self._output, scored_rows(bound, empty, self._facts), properties)
        identity = identify_table(self._spark, self._output)
        self._output_id = identity.id if identity else None
        return may_drop

    def _write(self, transaction: Transaction) -> LedgerEntry | None:
        self._estimate()
        bound, is_strict = self._bound, self._must_score_a_row
        can_observe = (
            # A second query reads the same rows only of a version.
            self._facts.input_version_to is not None
            and self._action != "merge"
            # Spark delivers no observed values of a query that overwrites a named table.
            and not (self._action == "replace" and self._output.path is None)
            and can_hash(needed_columns(bound, self._rows))
        )
        if can_observe:
            try:
                return self._write_observed(transaction, strict=is_strict)
            except StrictGuardError as err:
                require_scorable_row(bound, rows_to_ask(self._rows), str(err))
                is_strict = False
            except TooManyReasonsError:
                log.info("many rows are to be quarantined: the batch goes through a staging table")
                is_strict = False
        try:
            staging = self._stage(strict=is_strict)
        except StrictGuardError as err:
            require_scorable_row(bound, rows_to_ask(self._rows), str(err))
            staging = self._stage(strict=False)
        commit = self._write_output_from(staging, transaction)
        if commit is None:
            drop_staging(self._spark, staging)
            return None
        return self._finish_from(staging, commit, replaces=False)

    def _metadata(self, staging: Table | None) -> dict[str, Any]:
        return {
            **self._facts.to_metadata(),
            "attempt": self._attempt,
            "process": f"{socket.gethostname()}/{os.getpid()}",
            "staging": staging.name if staging else None,
        }

    def _estimate(self) -> None:
        """Say what a job will cost. Only the model of a large one is measured: it takes seconds."""
        bound, version = self._bound, self._facts.input_version_to
        if bound.request.is_stream:
            return
        size_bytes, row_count = bound.resolved.input.size_bytes or 0, None
        may_have_last_run = bound.resolved.output is not None and not is_small(size_bytes)
        if is_large(size_bytes) or may_have_last_run:
            row_count = bound.request.input_table.read(self._spark, version).count()
        estimate = estimate_request(bound, self._rows, row_count, measures=is_large(size_bytes))
        self._bound = replace(bound, estimate=estimate)
        bound.report(estimate_line(bound, estimate))

    def _note_passes(self, passes: int) -> None:
        """Note for the ledger how this attempt scored the rows."""
        model, segments = self._bound.resolved.model, self._bound.resolved.segments
        models = segments.models if segments is not None else (model,)
        has_own = [each.own_environment is not None for each in models]
        self._plan = {
            "passes": passes,
            "model_files": model.files,
            # A replay takes the same environment of each model.
            "model_environment": "model" if all(has_own) else "auto" if any(has_own) else "local",
            "environment": dict(model.environment),
        }
        if self._bound.estimate is not None:
            self._plan["estimate"] = asdict(self._bound.estimate)

    # In one pass

    def _write_observed(self, transaction: Transaction, *, strict: bool) -> LedgerEntry | None:
        bound = self._bound
        needed = needed_columns(bound, self._rows)
        partitioned, arrow_rows = partition_rows(bound, needed)
        columns = partitioned.columns
        bound.model_udf.prepare(strict=strict, limited=True)
        results = bound.model_udf.with_result(partitioned, strict=strict, limited=True)
        observed, observation = observe_verdicts(results, columns)
        frame = scored_rows(bound, observed, self._facts)
        bound.report("scoring")
        with larger_arrow_batches(partitioned.sparkSession, arrow_rows):
            self._save_output(frame, transaction, None)
        self._commit_time = time.monotonic()
        commit = self._own_commit(self._output)
        if commit is None:
            return None
        verdicts = read_verdicts(observation)
        self._note_passes(1)
        if verdicts is None or verdicts.rows_read != commit.rows + len(verdicts.quarantined):
            log.info("Spark did not count the rows of the batch: it is written again, counted")
            return self.write_again()
        quarantine_version = None
        if verdicts.quarantined or self._replaces_quarantine():
            quarantine_version = self._write_quarantined(columns, verdicts)
            if quarantine_version is None:
                log.info("rows of the batch are equal, and their verdicts are not: written again")
                return self.write_again()
        return self._write_entry(
            verdicts.rows_read,
            len(verdicts.quarantined),
            commit.version,
            quarantine_version,
            replaces=False,
        )

    def _write_quarantined(self, columns: list[str], verdicts: Verdicts) -> int | None:
        """Write the rows that a pass has found; return the version, None if they are too many."""
        self._bound.report("writing the quarantine")
        found = find_quarantined(self._rows, columns, verdicts)
        commit = self._save_quarantine(quarantined_rows(found, FOUND_REASON, self._facts), None)
        return commit.version if commit.rows == len(verdicts.quarantined) else None

    # Through a staging table

    def _stage(self, *, strict: bool) -> Table:
        """Write all rows with the model's result, and return the table."""
        bound = self._bound
        number = staging_number(self._facts.run, self._facts.batch)
        staging = staging_table(self._spark, self._output, number)
        partitioned, arrow_rows = partition_rows(bound, self._rows)
        bound.model_udf.prepare(strict=strict, limited=False)
        results = with_result(bound.model_udf, partitioned, strict=strict)
        bound.report("scoring")
        with larger_arrow_batches(partitioned.sparkSession, arrow_rows):
            write_staging(self._spark, staging, results)
        self._note_passes(2)
        if self._action == "merge":
            check = check_changes if self._has_changes else check_keys
            try:
                check(staging.read(self._spark), bound.request.key_columns)
            except ScoringError:
                drop_staging(self._spark, staging)
                raise
        return staging

    def _write_output_from(self, staging: Table, transaction: Transaction | None) -> Commit | None:
        """Write the output from a staging table; return its commit.

        Args:
            staging: Staging table.
            transaction: Transaction; None replaces what the output has of the batch.

        Returns:
            None if another job has committed the transaction.
        """
        bound, facts = self._bound, self._facts
        # Changes are merged again, too: they are no rows that a batch's number finds.
        if self._has_changes or (self._action == "merge" and transaction is not None):
            expressions = output_expressions(bound, facts.batch, facts.model_version)
            absent_when = IS_QUARANTINED
            if self._has_changes:
                absent_when = f"{IS_DELETED} OR {IS_QUARANTINED}"
            self._merge_from(
                staging, self._output, expressions, absent_when, f"{SCORING}.batch", transaction
            )
            return self._own_commit(self._output) or self._foreign_merge(self._output)
        frame = scored_rows(bound, staging.read(self._spark), facts)
        self._save_output(frame, transaction, staging)
        return self._own_commit(self._output)

    def _merge_from(
        self,
        staging: Table,
        table: Table,
        expressions: dict[str, str],
        absent_when: str,
        batch_column: str,
        transaction: Transaction | None,
    ) -> None:
        """Merge the rows of a staging table into the output or the quarantine.

        Args:
            staging: Staging table.
            table: Output or quarantine.
            expressions: Columns of the table and their SQL, on rows of the staging table.
            absent_when: SQL condition of the rows that the table must not have.
            batch_column: Column of the table with the batch that wrote a row.
            transaction: Transaction of the merge; None where it is repeated.

        Raises:
            ScoringError: A key that is new in the input is in the table.
        """
        key_columns = self._bound.request.key_columns
        previous_batch = self._facts.previous_batch
        deleted_when = "_dbx_aml_is_absent"
        columns = aliased({**expressions, deleted_when: absent_when})
        conflict = {}
        if previous_batch is not None:
            columns.append(IS_NEW)
            conflict["conflict_when"] = conflict_condition(batch_column, previous_batch)
        cleared = []
        if table is self._output and CHALLENGER not in expressions:
            # The answer of an earlier run's challenger would stand beside this run's prediction.
            cleared = [name for name in table.read(self._spark).columns if name == CHALLENGER]
        try:
            merge_rows(
                self._spark,
                table,
                f"SELECT {', '.join(columns)} FROM {staging.name}",
                list(expressions),
                key_columns,
                deleted_when,
                transaction_settings(self._metadata(staging), transaction),
                **conflict,
                cleared_columns=cleared,
            )
        except MergeConflictError as err:
            error = new_keys_error(self._spark, staging, table, key_columns)
            if table is self._output:
                # Nothing is committed: the next attempt has a staging table of its own.
                drop_staging(self._spark, staging)
            raise error from err

    def _foreign_merge(self, table: Table) -> Commit | None:
        """Return the newest commit where the compute lets no merge carry the batch's facts."""
        newest = table.history(self._spark, 1)[0]
        other = table.find_commit(self._spark, "batch_id", self._facts.batch_id)
        return newest if newest.operation == "MERGE" and other is None else None

    def _finish_from(self, staging: Table, commit: Commit | None, *, replaces: bool) -> LedgerEntry:
        """Write the quarantine from the staging table, then the entry; drop the staging table."""
        spark = self._spark
        staged = staging.read(spark)
        is_deleted = IS_DELETED if self._has_changes else "false"
        counts = staged.selectExpr(
            "count(*)", f"count_if({IS_QUARANTINED})", f"count_if({is_deleted})"
        ).collect()[0]
        rows, rows_quarantined, rows_deleted = map(int, counts)
        quarantine_version = None
        if rows_quarantined or self._replaces_quarantine(staging, is_retry=replaces):
            self._bound.report("writing the quarantine")
            frame = quarantined_rows(staged.where(IS_QUARANTINED), _REASON, self._facts)
            saved = self._save_quarantine(frame, staging, replaces=replaces)
            quarantine_version = saved.version
        entry = self._write_entry(
            rows - rows_deleted,
            rows_quarantined,
            commit.version if commit else None,
            quarantine_version,
            replaces=replaces,
            rows_deleted=rows_deleted,
        )
        drop_staging(spark, staging)
        return entry

    # Both

    def _save_output(
        self, frame: DataFrame, transaction: Transaction | None, staging: Table | None
    ) -> None:
        request = self._bound.request
        replaced = None
        if transaction is None:
            replaced = f"_scoring.batch = {self._facts.batch}"
        elif self._action == "replace":
            # Without a condition, Spark would make a named table again, and lose its properties.
            replaced = request.replace_where or "true"
        options = transaction_options(self._metadata(staging), transaction)
        write_rows(frame, self._output, options, exists=True, replaced=replaced)

    def _save_quarantine(
        self, frame: DataFrame, staging: Table | None, *, replaces: bool = False
    ) -> Commit:
        exists = self._quarantine.exists(self._spark)
        if not exists:
            create_table(self._quarantine, frame)
        transaction = batch_transaction(self._facts.batch, replaces=replaces)
        if self._has_changes and staging is not None:
            expressions = quarantine_expressions(
                staging.read(self._spark).columns, _REASON, self._facts
            )
            absent_when = f"{IS_DELETED} OR {IS_SCORED}"
            batch_column = f"{QUARANTINE}.batch"
            self._merge_from(
                staging, self._quarantine, expressions, absent_when, batch_column, transaction
            )
            commit = self._own_commit(self._quarantine) or self._foreign_merge(self._quarantine)
        else:
            options = transaction_options(self._metadata(staging), transaction)
            replaced = f"_quarantine.batch = {self._facts.batch}" if replaces else None
            if self._facts.write_mode == "follow":
                replaced = "true"
            write_rows(frame, self._quarantine, options, exists=True, replaced=replaced)
            commit = self._own_commit(self._quarantine)
        if commit is None:
            raise self._finished_elsewhere()
        return commit

    def _replaces_quarantine(self, staging: Table | None = None, *, is_retry: bool = False) -> bool:
        """Return whether rows of the quarantine are to be removed, or may be."""
        may_replace = is_retry or self._facts.write_mode == "follow"
        if not may_replace or not self._quarantine.exists(self._spark):
            return False
        if is_retry or staging is None or not self._has_changes:
            return True
        # A merge takes several times as long as this question.
        rows, changes = self._quarantine.read(self._spark), staging.read(self._spark)
        return has_key_of(rows, changes, self._bound.request.key_columns)

    def _finished_elsewhere(self) -> ScoringError:
        """Return the error of a job that was so slow that another job has finished its batch."""
        request = self._bound.request
        if request.is_stream:
            return checkpoint_in_use_error(request)
        return ScoringError(
            f"batch must be written by one job at a time: got {self._facts.batch_id!r}, which "
            "another job has finished meanwhile; run the job again"
        )

    def _own_commit(self, table: Table) -> Commit | None:
        return table.find_commit(self._spark, "attempt", self._attempt, _LATEST_COMMITS)

    def _output_rows(self) -> DataFrame:
        return self._output.read(self._spark).where(f"_scoring.batch = {self._facts.batch}")

    def _write_entry(
        self,
        rows_read: int,
        rows_quarantined: int,
        output_version: int | None,
        quarantine_version: int | None,
        *,
        replaces: bool,
        state: str = SCORED,
        rows_deleted: int = 0,
    ) -> LedgerEntry:
        challenger = self._facts.identity.get("challenger")
        agreement = None
        if challenger is not None:
            self._bound.report("comparing with the challenger")
            agreement = measure_agreement(self._output_rows(), challenger["model_uri"])
        segments = self._facts.identity.get("segments")
        if segments is not None:
            self._plan["segments"] = count_segments(self._output_rows(), segments)
        entry = LedgerEntry(
            facts=self._facts,
            state=state,
            rows_read=rows_read,
            rows_scored=rows_read - rows_quarantined,
            rows_quarantined=rows_quarantined,
            rows_deleted=rows_deleted,
            output_id=self._output_id,
            output_version=output_version,
            quarantine_version=quarantine_version,
            seconds=time.monotonic() - self._start_time,
            plan=json.dumps(self._plan),
            challenger=agreement,
        )
        self._bound.report("writing the ledger")
        age_s = time.monotonic() - self._commit_time
        Ledger(self._spark, self._output, self._output_id).write(
            entry, may_exist=replaces or age_s > _GRACE_S / 2, replaces=replaces
        )
        return entry
