"""Write a batch into a Delta table at most once: as a transaction that names the batch."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspark.sql import types as T

from dbx_aml._common.errors import ScoringError
from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring.column_binding import SCORING
from dbx_aml.scoring.delta_table import Table, format_commit_metadata
from dbx_aml.scoring.guard import EVERY_ROW_FAILED
from dbx_aml.scoring.request import Batch
from dbx_aml.scoring.spark_errors import SPARK_ERRORS, process_end_error, spark_error_line
from dbx_aml.scoring.spark_settings import exclusive_settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameWriter, SparkSession

# Default of delta.dataSkippingNumIndexedCols.
_DEFAULT_INDEXED_COLUMNS = 32
# Characters that a column's name may have only with column mapping.
_NEEDS_COLUMN_MAPPING = re.compile(r"[ ,;{}()\n\t=]")


class StrictGuardError(ScoringError):
    """A strict guard ended the write before any commit; the message is the first row's reason."""


def create_table(spark: SparkSession, table: Table, schema: T.StructType) -> None:
    """Create an empty table of these columns, unless the table exists."""
    writer = spark.createDataFrame([], schema).write.format("delta").mode("ignore")
    write_table(writer, table, schema, exists=False)


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
        if table.path:
            writer.save(table.path)
        else:
            writer.saveAsTable(table.name)
    except SPARK_ERRORS as err:
        raise _write_error(table, err) from err


def merge_rows(
    spark: SparkSession,
    table: Table,
    rows: DataFrame,
    key_columns: Sequence[str],
    batch: Batch,
    metadata: dict[str, Any],
) -> int | None:
    """Merge rows into a table by their key.

    Returns:
        Number of rows written; None if the table has this batch already.

    Raises:
        ScoringError: The table cannot be written; the message is one line.
    """
    view = f"dbx_aml_{uuid.uuid4().hex}"
    rows.createOrReplaceTempView(view)
    # Not "=": each run would insert a row with a null key again.
    has_same_key = " AND ".join(
        f"destination.{key} <=> source.{key}" for key in map(sql_identifier, key_columns)
    )
    settings = {
        "spark.databricks.delta.write.txnAppId": batch.app_id,
        "spark.databricks.delta.write.txnVersion": str(batch.app_version),
        "spark.databricks.delta.commitInfo.userMetadata": format_commit_metadata(metadata),
    }
    try:
        # MERGE takes no options. Where the compute does not allow the settings, the merge can
        # still be repeated without harm; only its commit does not name the batch.
        with exclusive_settings(spark, settings):
            counts = spark.sql(
                f"MERGE WITH SCHEMA EVOLUTION INTO {table.name} AS destination "
                f"USING {view} AS source ON {has_same_key} "
                "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
            ).collect()
    except SPARK_ERRORS as err:
        raise _write_error(table, err) from err
    finally:
        spark.catalog.dropTempView(view)
    return int(counts[0]["num_affected_rows"]) if counts else None


def batch_writer(rows: DataFrame, batch: Batch, metadata: dict[str, Any]) -> DataFrameWriter:
    """Return a writer whose Delta transaction is the batch, with facts about it for the commit."""
    return (
        rows.write.format("delta")
        .option("txnAppId", batch.app_id)
        .option("txnVersion", batch.app_version)
        .option("userMetadata", format_commit_metadata(metadata))
        .option("mergeSchema", "true")
        # The session's own mode may be "dynamic", which keeps the partitions without new rows.
        .option("partitionOverwriteMode", "static")
    )


def _table_properties(schema: T.StructType) -> dict[str, str]:
    """Return the Delta properties of a new table of these columns."""
    properties = {}
    if _NEEDS_COLUMN_MAPPING.search("".join(_column_names(schema))):
        properties["delta.columnMapping.mode"] = "name"
    # The last column is `_scoring`. Its first field, the batch, gets statistics: they find a batch.
    # Statistics of its texts, equal in all rows, would cost a fifth of a write.
    indexed_columns = _count_leaf_columns(T.StructType(schema.fields[:-1])) + 1
    if indexed_columns < _DEFAULT_INDEXED_COLUMNS and schema.fields[-1].name == SCORING:
        properties["delta.dataSkippingNumIndexedCols"] = str(indexed_columns)
    return properties


def _count_leaf_columns(data_type: T.DataType) -> int:
    """Return how many columns Delta counts in a type: the leaves of its structs."""
    if not isinstance(data_type, T.StructType):
        return 1
    return sum(_count_leaf_columns(field.dataType) for field in data_type.fields)


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
    if "DELTA_REPLACE_WHERE_MISMATCH" in str(err):
        return ScoringError(
            f"replace_where must hold for every scored row: got {spark_error_line(err)}; "
            "use the same predicate as row_filter"
        )
    return ScoringError(f"table must be writable: got {table.name!r}; {spark_error_line(err)}")
