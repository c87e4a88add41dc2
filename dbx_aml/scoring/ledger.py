"""The ledger of an output table, `<output>_batches`: one row a batch, with everything about it.

A batch's row is written last, after the output and the quarantine. A batch that is in the output
without a row here was interrupted, or its row was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import TableNotFoundError
from dbx_aml._common.text import sql_literal
from dbx_aml.local.spark import current_spark
from dbx_aml.scoring.delta_table import Commit, Table, has_first_commit
from dbx_aml.scoring.delta_write import batch_transaction, transaction_options, write_rows
from dbx_aml.scoring.request import BatchFacts
from dbx_aml.scoring.spark_errors import SPARK_ERRORS, spark_error_line
from dbx_aml.scoring.table_identity import removes_no_row

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# More batches than a job looks at commits of the output table.
_NEWEST_BATCHES = 400
# Values of `state`.
SCORED, OVER_LIMIT, INTERRUPTED, REBUILT = "scored", "over_limit", "interrupted", "rebuilt"
# Columns and their Spark types, in the order of the table.
COLUMNS = {
    "batch": "bigint",
    "batch_id": "string",
    "state": "string",
    "started_at": "timestamp",
    "seconds": "double",
    "rows_read": "bigint",
    "rows_scored": "bigint",
    "rows_quarantined": "bigint",
    "rows_deleted": "bigint",
    "model_uri": "string",
    "model_name": "string",
    "model_version": "string",
    "model_run_id": "string",
    "registry_uri": "string",
    "input_table": "string",
    "input_id": "string",
    "input_version_from": "bigint",
    "input_version_to": "bigint",
    "row_filter": "string",
    "write_mode": "string",
    "output_id": "string",
    "output_version": "bigint",
    "quarantine_table": "string",
    "quarantine_version": "bigint",
    "identity": "string",
    "job": "string",
    "run": "bigint",
    "plan": "string",
    "challenger": "string",
    "scored_by": "string",
    "compute": "string",
}


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """A batch in the ledger.

    Args:
        facts: Model, tables, filter and machine of the batch.
        state: "scored"; "over_limit" (more rows in the quarantine than the job allowed);
            "rebuilt" (the row was lost, and was made again from the tables' commits).
        rows_read: Rows of the batch.
        rows_scored: Rows of the batch in the output table when it was written.
        rows_quarantined: Rows of the batch in the quarantine when it was written.
        rows_deleted: Rows that the batch took out of both tables, as the input has them no more.
        output_id: Id of the output table.
        output_version: Version of the output table with the batch.
        quarantine_version: Version of the quarantine with the batch; None without such rows.
        seconds: Time from the batch's start to this entry.
        plan: How the batch was scored, as JSON.
        challenger: Agreement of the model and its challenger, see `measure_agreement`; None
            without a challenger.
    """

    facts: BatchFacts
    state: str
    rows_read: int
    rows_scored: int
    rows_quarantined: int
    output_id: str | None
    output_version: int | None
    quarantine_version: int | None
    seconds: float
    plan: str
    challenger: str | None = None
    rows_deleted: int = 0


class Ledger:
    """The ledger of one output table.

    Args:
        spark: Session.
        output: Output table.
        output_id: Id of the output table: the batches of a table that had its name before are not
            its own.
    """

    def __init__(self, spark: SparkSession, output: Table, output_id: str | None) -> None:
        self._spark = spark
        self._output_id = output_id
        self.table = output.sibling("batches")

    def read(self, condition: str | None = None) -> list[LedgerEntry]:
        """Return the newest batches and the batches of a condition, newest first.

        Args:
            condition: SQL predicate on the ledger. Default: all batches.
        """
        rows = self.table.read_if_exists(self._spark)
        if rows is None:
            return []
        if self._output_id is not None:
            rows = rows.where(f"output_id = {sql_literal(self._output_id)}")
        if condition is None:
            collected = rows.collect()
        else:
            collected = rows.orderBy(rows.batch.desc()).limit(_NEWEST_BATCHES).collect()
            if len(collected) == _NEWEST_BATCHES:
                collected += rows.where(condition).collect()
        found = {row.batch: row for row in collected}
        return [_entry(found[batch].asDict()) for batch in sorted(found, reverse=True)]

    def written_batches(self) -> dict[int, str] | None:
        """Return number and id of each batch, from the ledger's commits.

        This costs a third of reading their rows. None where there is no ledger, where it has more
        commits than a look-up reads, or where one of them may have removed a row.
        """
        try:
            commits = self.table.history(self._spark)
        except SPARK_ERRORS:
            return None
        if not has_first_commit(commits):
            return None
        if not all(c.metadata or removes_no_row(c.operation) for c in commits):
            return None
        return {c.metadata["batch"]: c.metadata["batch_id"] for c in commits if c.metadata}

    def write(self, entry: LedgerEntry, *, may_exist: bool, replaces: bool) -> None:
        """Write a batch's row.

        Args:
            entry: Row.
            may_exist: Whether another job may have written a row of this batch.
            replaces: Whether this row takes the place of such a row.
        """
        facts = entry.facts
        values = {field.name: getattr(entry, field.name) for field in fields(entry)}
        values["seconds"] = round(entry.seconds, 3)
        row = self._spark.sql(_select_row(facts, values, scored_by="current_user()"))
        exists = replaces and self.table.exists(self._spark)
        # Without a transaction, Delta need not read the ledger's whole state.
        transaction = batch_transaction(facts.batch, replaces=replaces) if may_exist else None
        metadata = {"batch": facts.batch, "batch_id": facts.batch_id}
        options = transaction_options(metadata, transaction)
        replaced = f"batch = {facts.batch}" if exists else None
        write_rows(row, self.table, options, exists=exists, replaced=replaced)

    def set_state(self, batches: Sequence[int], state: str) -> None:
        """Set the state of some batches."""
        numbers = ", ".join(map(str, batches))
        self._spark.sql(
            f"UPDATE {self.table.name} SET state = {sql_literal(state)} WHERE batch IN ({numbers})"
        ).collect()


def _select_row(facts: BatchFacts, values: Mapping[str, Any], scored_by: str) -> str:
    """Return the SQL query of a row of the ledger.

    Args:
        facts: Facts about the batch.
        values: Values of the other columns; a column without a value is null.
        scored_by: SQL of the user.
    """
    values = {**facts.to_metadata(), "identity": facts.identity_text, **values}
    expressions = {
        **{name: f"CAST({_literal(values.get(name))} AS {COLUMNS[name]})" for name in COLUMNS},
        "started_at": f"timestamp_micros({facts.batch})",
        "scored_by": scored_by,
    }
    return "SELECT " + ", ".join(f"{value} AS {name}" for name, value in expressions.items())


def _literal(value: str | float | None) -> str:
    if value is None:
        return "NULL"
    return sql_literal(value) if isinstance(value, str) else repr(value)


def _entry(row: dict[str, Any]) -> LedgerEntry:
    names = ("state", "output_id", "output_version", "quarantine_version", "seconds", "plan")
    return LedgerEntry(
        facts=BatchFacts.from_metadata(row),
        rows_read=row["rows_read"] or 0,
        rows_scored=row["rows_scored"] or 0,
        rows_quarantined=row["rows_quarantined"] or 0,
        # A ledger of an earlier version has no such column.
        challenger=row.get("challenger"),
        # A ledger that an earlier release has written lacks this column.
        rows_deleted=row.get("rows_deleted") or 0,
        **{name: row[name] for name in names},
    )


def interrupted_commits(commits: Sequence[Commit], entries: Sequence[LedgerEntry]) -> list[Commit]:
    """Return each batch's newest commit, where the ledger has no row of the batch."""
    numbers = {entry.facts.batch for entry in entries}
    newest: dict[int, Commit] = {}
    for commit in commits:
        number = commit.metadata.get("batch")
        if isinstance(number, int) and number not in numbers:
            newest.setdefault(number, commit)
    return list(newest.values())


def batches(output_table: str, spark: SparkSession | None = None) -> DataFrame:
    """Return the batches of an output table, newest first.

    `_scoring.batch` of a row in the output is `batch` here.

    Args:
        output_table: Output table of `score_table`.
        spark: Session. Default: the active one, else a local one.

    Shape:
        One row a batch with the columns of `COLUMNS`, for example batch bigint, batch_id,
        state, started_at, rows_read, rows_scored, rows_quarantined, model_uri, input_table,
        input_version_to. A batch that was interrupted has the state "interrupted" and no counts.

    Raises:
        TableNotFoundError: The table does not exist, or scoring has not written to it.
    """
    spark = spark or current_spark()
    output = Table(output_table)
    ledger = Ledger(spark, output, None)
    if not ledger.table.exists(spark):
        raise TableNotFoundError(
            f"output table must have a ledger: got {output_table!r} without "
            f"{ledger.table.name}; name the output_table of a scoring job"
        )
    rows = ledger.table.read(spark)
    try:
        commits = output.history(spark)
    except SPARK_ERRORS as err:
        raise TableNotFoundError(
            f"output table must be readable: got {output_table!r}; {spark_error_line(err)}"
        ) from err
    names = [name for name in COLUMNS if name in rows.columns]
    interrupted_rows = [
        _select_row(
            BatchFacts.from_metadata(commit.metadata),
            {"state": INTERRUPTED},
            scored_by="CAST(NULL AS STRING)",
        )
        for commit in interrupted_commits(commits, ledger.read())
    ]
    if interrupted_rows:
        interrupted = spark.sql(" UNION ALL ".join(interrupted_rows))
        rows = rows.select(*names).unionByName(interrupted.select(*names))
    return rows.select(*names).orderBy("batch", ascending=False)
