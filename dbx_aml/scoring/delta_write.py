"""Write a batch into a Delta table at most once: as a transaction that names the batch."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyspark.sql import types as T

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import ScoringError
from dbx_aml._common.text import sql_identifier, sql_literal
from dbx_aml.local.spark import is_connect
from dbx_aml.scoring.delta_table import Table, format_commit_metadata
from dbx_aml.scoring.guard import EVERY_ROW_FAILED, TOO_MANY_REASONS
from dbx_aml.scoring.request import Transaction
from dbx_aml.scoring.spark_errors import (
    SPARK_ERRORS,
    full_text,
    process_end_error,
    spark_error_line,
)
from dbx_aml.scoring.spark_settings import exclusive_settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameWriter, SparkSession

# Property of a new output table that a stream writes: the folder of its checkpoint.
CHECKPOINT_PROPERTY = "dbx_aml.checkpoint_location"
# Text of the error of a merge whose condition of a conflict holds for a row.
_CONFLICT = "dbx_aml: a new key is in the table"
# Characters that a column's name may have only with column mapping.
_NEEDS_COLUMN_MAPPING = re.compile(r"[ ,;{}()\n\t=]")


# Parts of the errors of a job that created a table a moment later than another job.
_CREATED_MEANWHILE = (
    "TABLE_OR_VIEW_ALREADY_EXISTS",
    "DELTA_PROTOCOL_CHANGED",
    "DELTA_METADATA_CHANGED",
    "ProtocolChangedException",
    "MetadataChangedException",
    "DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION",
)


class StrictGuardError(ScoringError):
    """A strict guard ended the write before any commit; the message is the first row's reason."""


class ConcurrentBatchError(ScoringError):
    """Another job has committed the same transaction at the same time."""


class MergeConflictError(ScoringError):
    """A merge has found a row of the table that a row of the source must not match."""


class TooManyReasonsError(ScoringError):
    """A limited guard ended the write before any commit: too many rows are to be quarantined."""


def create_table(
    table: Table, rows: DataFrame, properties: Mapping[str, str] | None = None
) -> None:
    """Create an empty table with the columns of these rows, unless the table exists.

    Args:
        table: Table.
        rows: Rows, of which none is written.
        properties: Properties of the new table beside the mark of this package.

    Raises:
        ScoringError: The table cannot be created; the message is one line.
    """
    # Spark sees that no row passes, and runs no job.
    writer = rows.where("false").writeTo(table.name).using("delta")
    properties = {**_table_properties(rows.schema), **creation_tags(), **(properties or {})}
    for key, value in properties.items():
        writer = writer.tableProperty(key, value)
    try:
        writer.create()
    except SPARK_ERRORS as err:
        if not any(text in str(err) for text in _CREATED_MEANWHILE):
            raise _write_error(table, err) from err


def can_drop(spark: SparkSession, table: Table) -> bool:
    """Return whether `drop_new_table` can remove a table that is created now.

    Not a table by path on Spark Connect, which cannot remove a folder, nor a table in a folder
    that exists: the folder may have other files.
    """
    if not table.path:
        return True
    if is_connect(spark):
        return False
    file_system, folder = _folder(spark, table.path)
    return not file_system.exists(folder)


def drop_new_table(spark: SparkSession, table: Table) -> None:
    """Remove a table that this job has created and can drop, unless it has rows."""
    if table.version(spark) != 0:
        return
    drop_table(spark, table)


def drop_table(spark: SparkSession, table: Table) -> bool:
    """Drop a table if it exists; return False for a table by path on Spark Connect."""
    if table.path:
        return remove_folder(spark, table.path)
    spark.sql(f"DROP TABLE IF EXISTS {table.name}").collect()
    return True


def remove_folder(spark: SparkSession, path: str) -> bool:
    """Remove a folder with everything in it; return False on Spark Connect, which cannot."""
    if is_connect(spark):
        return False
    file_system, folder = _folder(spark, path)
    file_system.delete(folder, True)
    return True


def _folder(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Return Hadoop's file system of a path, and the path as Hadoop has it."""
    classic: Any = spark
    folder = classic._jvm.org.apache.hadoop.fs.Path(path)
    return folder.getFileSystem(classic._jsc.hadoopConfiguration()), folder


def write_table(
    writer: DataFrameWriter, table: Table, schema: T.StructType, *, exists: bool
) -> None:
    """Write rows into a table; one that does not exist yet is created with properties.

    Raises:
        ScoringError: The table cannot be written; the message is one line.
    """
    if not exists:
        for key, value in _table_properties(schema).items():
            writer = writer.option(key, value)
    try:
        _save(writer, table)
    except SPARK_ERRORS as err:
        if exists or not any(text in str(err) for text in _CREATED_MEANWHILE):
            raise _write_error(table, err) from err
        # Another job has just created the table.
        try:
            _save(writer, table)
        except SPARK_ERRORS as second_err:
            raise _write_error(table, second_err) from second_err


def write_rows(
    rows: DataFrame,
    table: Table,
    options: Mapping[str, str],
    *,
    exists: bool,
    replaced: str | None = None,
) -> None:
    """Add rows to a table, or put them in the place of the rows of a condition.

    The table gains new columns of the rows. The session's own mode of overwriting, which may keep
    the partitions without new rows, has no effect.

    Args:
        rows: Rows.
        table: Table.
        options: Options of the transaction.
        exists: Whether the table exists.
        replaced: SQL predicate on the rows that are replaced; None adds the rows.

    Raises:
        ScoringError: The table cannot be written; the message is one line.
    """
    writer = rows.write.format("delta").mode("append" if replaced is None else "overwrite")
    writer = writer.options(mergeSchema="true", partitionOverwriteMode="static", **options)
    if replaced is not None:
        writer = writer.option("replaceWhere", replaced)
    write_table(writer, table, rows.schema, exists=exists)


def _save(writer: DataFrameWriter, table: Table) -> None:
    if table.path:
        writer.save(table.path)
    else:
        writer.saveAsTable(table.name)


def merge_rows(
    spark: SparkSession,
    table: Table,
    source: str,
    columns: Sequence[str],
    key_columns: Sequence[str],
    deleted_when: str,
    settings: Mapping[str, str],
    conflict_when: str = "false",
    cleared_columns: Sequence[str] = (),
) -> None:
    """Merge rows into a table by their key, in one transaction.

    Args:
        spark: Session.
        table: Table.
        source: SQL query of the rows.
        columns: Columns that the table gets.
        key_columns: Columns that identify a row.
        deleted_when: Boolean column of the source: a row of the table that such a row matches is
            deleted, and the row itself is not inserted.
        settings: Spark settings of the transaction.
        conflict_when: SQL predicate on a matched pair of `destination` and `source` that ends the
            merge.
        cleared_columns: Further columns of the table, which are null in each row that is updated.

    Raises:
        MergeConflictError: The predicate holds for a pair; nothing is written then.
        ScoringError: The table cannot be written; the message is one line.
    """
    # Not "=": each run would insert a row with a null key again.
    has_same_key = " AND ".join(
        f"destination.{key} <=> source.{key}" for key in map(sql_identifier, key_columns)
    )
    names = [sql_identifier(name) for name in columns]
    values = [f"source.{name}" for name in names]
    checked = f"IF({conflict_when}, raise_error({sql_literal(_CONFLICT)}), {values[0]})"
    updates = ", ".join(
        f"{name} = {value}" for name, value in zip(names, [checked, *values[1:]], strict=True)
    )
    updates += "".join(f", {sql_identifier(name)} = NULL" for name in cleared_columns)
    try:
        # MERGE takes no options. Where the compute does not allow the settings, the merge can
        # still be repeated without harm; only its commit does not name the batch.
        with exclusive_settings(spark, settings) as session:
            session.sql(
                f"MERGE WITH SCHEMA EVOLUTION INTO {table.name} AS destination "
                f"USING ({source}) AS source ON {has_same_key} "
                f"WHEN MATCHED AND source.{deleted_when} AND NOT ({conflict_when}) THEN DELETE "
                f"WHEN MATCHED THEN UPDATE SET {updates} "
                f"WHEN NOT MATCHED AND NOT source.{deleted_when} THEN "
                f"INSERT ({', '.join(names)}) VALUES ({', '.join(values)})"
            ).collect()
    except SPARK_ERRORS as err:
        raise _write_error(table, err) from err


def batch_transaction(batch: int, *, replaces: bool) -> Transaction:
    """Return the transaction of a batch in its quarantine or in the ledger.

    A job that replaces the batch commits a later version, so a slow first job adds nothing more.
    """
    version = time.time_ns() // 1000 if replaces else 1
    return Transaction(app_id=f"dbx_aml/batch/{batch}", app_version=version)


def transaction_options(
    metadata: Mapping[str, Any], transaction: Transaction | None
) -> dict[str, str]:
    """Return Delta's options for a write whose commit carries these facts.

    Args:
        metadata: Facts about the batch.
        transaction: Transaction that the table accepts once; None for a write that replaces rows.
    """
    options = {"userMetadata": format_commit_metadata(metadata)}
    if transaction is not None:
        options["txnAppId"] = transaction.app_id
        options["txnVersion"] = str(transaction.app_version)
    return options


def transaction_settings(
    metadata: Mapping[str, Any], transaction: Transaction | None
) -> dict[str, str]:
    """Return the same as `transaction_options` for statements, which take settings only."""
    prefixes = {"userMetadata": "commitInfo."}
    return {
        f"spark.databricks.delta.{prefixes.get(name, 'write.')}{name}": value
        for name, value in transaction_options(metadata, transaction).items()
    }


def _table_properties(schema: T.StructType) -> dict[str, str]:
    """Return the Delta properties of a new table of these columns."""
    properties = {}
    if _NEEDS_COLUMN_MAPPING.search("".join(_column_names(schema))):
        properties["delta.columnMapping.mode"] = "name"
    return properties


def _column_names(data_type: T.DataType) -> list[str]:
    if isinstance(data_type, T.StructType):
        return [
            name
            for field in data_type.fields
            for name in (field.name, *_column_names(field.dataType))
        ]
    if isinstance(data_type, T.ArrayType):
        return _column_names(data_type.elementType)
    if isinstance(data_type, T.MapType):
        return [*_column_names(data_type.keyType), *_column_names(data_type.valueType)]
    return []


def _write_error(table: Table, err: Exception) -> ScoringError:
    process_end = process_end_error(err)
    if process_end is not None:
        return process_end
    every_row_failed = re.search(f"{re.escape(EVERY_ROW_FAILED)}(.*)", str(err))
    if every_row_failed:
        return StrictGuardError(every_row_failed[1])
    if "ConcurrentTransactionException" in str(err) or "CONCURRENT_TRANSACTION" in str(err):
        return ConcurrentBatchError(f"batch must be written by one job: got {table.name!r}")
    if _CONFLICT in full_text(err):
        return MergeConflictError(_CONFLICT)
    if TOO_MANY_REASONS in str(err):
        return TooManyReasonsError(TOO_MANY_REASONS)
    if "DELTA_REPLACE_WHERE_MISMATCH" in str(err):
        return ScoringError(
            f"replace_where must hold for every scored row: got {spark_error_line(err)}; "
            "use the same predicate as row_filter"
        )
    return ScoringError(f"table must be writable: got {table.name!r}; {spark_error_line(err)}")
