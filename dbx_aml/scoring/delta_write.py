"""Write rows into a Delta table, once a batch: a transaction id, what the commit says, a merge."""

from __future__ import annotations

import logging
import re
import uuid
from typing import TYPE_CHECKING, Any

from pyspark.sql import types as T

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring.column_binding import quote
from dbx_aml.scoring.delta_table import SPARK_ERRORS, Table, commit_text, one_line
from dbx_aml.scoring.guard import EVERY_ROW
from dbx_aml.scoring.model_udf import Scorer
from dbx_aml.scoring.resolved_request import SCORING, Batch
from dbx_aml.scoring.spark_settings import alone_with

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameWriter, SparkSession

log = logging.getLogger(__name__)

# delta.dataSkippingNumIndexedCols, where a table does not say otherwise.
_INDEXED_BY_DEFAULT = 32
# Characters that Delta allows in a column's name only with column mapping.
_MAPPED = re.compile(r"[ ,;{}()\n\t=]")


class NothingScoredError(ScoringError):
    """A strict guard ended the job: nothing was written; the message is the first row's reason."""


def create(spark: SparkSession, table: Table, schema: T.StructType) -> None:
    """Make an empty table of these columns, unless there is one."""
    empty = spark.createDataFrame([], schema)
    writer = empty.write.format("delta").mode("ignore")
    save(spark, writer, table, schema, exists=False)


def save(
    spark: SparkSession, writer: DataFrameWriter, table: Table, schema: T.StructType, exists: bool
) -> None:
    """Write rows into a table; raise ScoringError with the cause in one line."""
    if not exists:
        for key, value in _properties(schema).items():
            writer = writer.option(key, value)
    try:
        if table.path:
            writer.save(table.path)
        else:
            writer.saveAsTable(table.name)
    except SPARK_ERRORS as err:
        raise _write_error(table, err) from err


def merge(
    scorer: Scorer, output: Table, frame: DataFrame, batch: Batch, about: dict[str, Any]
) -> int | None:
    """Merge on the key; return the rows written, or None if Delta had done it before."""
    view = f"dbx_aml_{uuid.uuid4().hex}"
    frame.createOrReplaceTempView(view)
    # Null keys are equal here: otherwise each run would insert such a row again.
    same = " AND ".join(
        f"dst.{quote(key)} <=> src.{quote(key)}" for key in scorer.recipe.key_columns
    )
    confs = {
        "spark.databricks.delta.write.txnAppId": batch.app_id,
        "spark.databricks.delta.write.txnVersion": str(batch.app_version),
        "spark.databricks.delta.commitInfo.userMetadata": commit_text(about),
    }
    try:
        # A merge takes no options. It is repeatable as it is; where the settings are not allowed,
        # only its commit does not name the batch.
        with alone_with(scorer.spark, confs):
            done = scorer.spark.sql(
                f"MERGE WITH SCHEMA EVOLUTION INTO {output.name} AS dst USING {view} AS src "
                f"ON {same} WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
            ).collect()
    except SPARK_ERRORS as err:
        raise _write_error(output, err) from err
    finally:
        scorer.spark.catalog.dropTempView(view)
    return int(done[0]["num_affected_rows"]) if done else None


def options(writer: DataFrameWriter, batch: Batch, about: dict[str, Any]) -> DataFrameWriter:
    """Return the writer with the batch as Delta's transaction, and as what the commit says."""
    return (
        writer.format("delta")
        .option("txnAppId", batch.app_id)
        .option("txnVersion", batch.app_version)
        .option("userMetadata", commit_text(about))
        .option("mergeSchema", "true")
    )


def _properties(schema: T.StructType) -> dict[str, str]:
    """Return the Delta properties that a table of these columns is made with."""
    properties = {}
    if _MAPPED.search("".join(_names(schema))):
        properties["delta.columnMapping.mode"] = "name"
    # A table ends with the struct of provenance. Minimum and maximum of texts that are the
    # same in all rows cost a fifth of a write; the batch, its first field, is worth finding.
    indexed = _leaves(T.StructType(schema.fields[:-1])) + 1
    if indexed < _INDEXED_BY_DEFAULT and schema.fields[-1].name == SCORING:
        properties["delta.dataSkippingNumIndexedCols"] = str(indexed)
    return properties


def _leaves(kind: T.DataType) -> int:
    """Return how many columns Delta sees in a type, which it counts through structs."""
    return sum(_leaves(f.dataType) for f in kind.fields) if isinstance(kind, T.StructType) else 1


def _names(kind: T.DataType) -> list[str]:
    if isinstance(kind, T.StructType):
        return [n for f in kind.fields for n in (f.name, *_names(f.dataType))]
    if isinstance(kind, T.ArrayType):
        return _names(kind.elementType)
    if isinstance(kind, T.MapType):
        return [*_names(kind.keyType), *_names(kind.valueType)]
    return []


def _write_error(table: Table, err: Exception) -> ScoringError:
    nothing_scored = re.search(f"{re.escape(EVERY_ROW)}(.*)", str(err))
    if nothing_scored:
        return NothingScoredError(nothing_scored[1])
    if "DELTA_REPLACE_WHERE_MISMATCH" in str(err):
        return ScoringError(
            f"replace_where must hold for every scored row: got {one_line(err)}; "
            "use the same predicate as row_filter"
        )
    return ScoringError(f"table must be writable: got {table.name!r}; {one_line(err)}")
