"""Changes of a table by its key: the last one of each row, and the keys that break the rule.

Delta's change feed has a row for each insert and each delete, and two for each update: the row
before and after it. A batch needs one row a key: the last row, or the mark of a deletion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from dbx_aml._common.errors import ScoringError
from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.unasked_rows import IS_DELETED

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# Columns that Delta's change feed adds to a table's own.
# Source: Delta Lake, "Change data feed", 2026-11.
CHANGE_COLUMNS = ("_change_type", "_commit_version", "_commit_timestamp")
# Columns of a last change beside `IS_DELETED`: its key was not in the input before the batch; its
# key was in two rows of the input at once.
IS_NEW, IS_REPEATED = "_dbx_aml_is_new", "_dbx_aml_is_repeated"
_SIGN, _COUNT, _IS_LAST = "_dbx_aml_sign", "_dbx_aml_count", "_dbx_aml_is_last"
_EXAMPLES = 5


def read_changes(
    spark: SparkSession, table: Table, first_version: int, last_version: int
) -> DataFrame:
    """Return the rows of Delta's change feed for some versions of a table."""
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    reader = reader.option("startingVersion", str(first_version))
    reader = reader.option("endingVersion", str(last_version))
    return reader.load(table.path) if table.path else reader.table(table.name)


def last_changes(changes: DataFrame, key_columns: Sequence[str]) -> DataFrame:
    """Return the last change of each key.

    An update of a key column takes the old key away: each row before an update counts as deleted.

    Args:
        changes: Rows of Delta's change feed, in any order.
        key_columns: Columns that identify a row.

    Shape:
        n changes -> one row a key: the input's columns, `IS_DELETED`, `IS_NEW`, `IS_REPEATED`.
    """
    keys = _key_columns(key_columns)
    # Within a commit, a key that is deleted and inserted stays.
    in_order = Window.partitionBy(*keys).orderBy("_commit_version", _SIGN)
    before = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    is_gone = F.col("_change_type").isin("delete", "update_preimage")
    counted = (
        changes.withColumn(_SIGN, F.when(is_gone, -1).otherwise(1))
        .withColumn(_COUNT, F.sum(_SIGN).over(before))
        .withColumn(_IS_LAST, F.lead(_SIGN).over(in_order).isNull())
    )
    # The key had 0 or 1 rows before; how many more and fewer it had in between says which.
    by_key = Window.partitionBy(*keys)
    most = F.greatest(F.max(_COUNT).over(by_key), F.lit(0))
    least = F.least(F.min(_COUNT).over(by_key), F.lit(0))
    names = [name for name in changes.columns if name not in CHANGE_COLUMNS]
    flagged = counted.select(
        *(F.col(sql_identifier(name)) for name in names),
        (F.col(_SIGN) < 0).alias(IS_DELETED),
        (most > 0).alias(IS_NEW),
        (most - least > 1).alias(IS_REPEATED),
        _IS_LAST,
    )
    return flagged.where(_IS_LAST).drop(_IS_LAST)


def check_keys(rows: DataFrame, key_columns: Sequence[str]) -> None:
    """Refuse two rows with the same key.

    Raises:
        ScoringError: A key is in several rows; the message has up to 5 such keys.
    """
    counted = rows.groupBy(*_key_columns(key_columns)).agg(F.count(F.lit(1)).alias("n"))
    repeated = counted.where("n > 1").orderBy(F.desc("n"), _key_text(key_columns))
    examples = repeated.select("n", _key_text(key_columns)).limit(_EXAMPLES).collect()
    if examples:
        raise ScoringError(
            "key_columns must name each input row once: got "
            f"{', '.join(f'{count} rows with {key}' for count, key in examples)}; "
            "add a column to the key or remove the duplicates"
        )


def check_no_null_key(rows: DataFrame, key_columns: Sequence[str]) -> None:
    """Refuse a row without a value in a column of the key.

    Raises:
        ScoringError: A key column is null in a row; the message has up to 5 such keys.
    """
    keys = _example_keys(rows.where(_has_null_key(key_columns)), key_columns)
    if keys:
        raise ScoringError(
            "key_columns must have a value in each input row for write_mode 'follow': got "
            f"{', '.join(keys)}; give these rows a key, or leave them out by row_filter; then pass "
            "rescore=True"
        )


def check_changes(changes: DataFrame, key_columns: Sequence[str]) -> None:
    """Refuse last changes whose key is null, or was in two rows of the input at once.

    Raises:
        ScoringError: A key breaks the rule; the message has up to 5 such keys.
    """
    # One query where no key breaks a rule.
    broken = f"count_if({_has_null_key(key_columns)} OR {IS_REPEATED})"
    if changes.selectExpr(broken).collect()[0][0]:
        check_no_null_key(changes, key_columns)
        raise _repeated_keys_error(_example_keys(changes.where(IS_REPEATED), key_columns))


def conflict_condition(batch_column: str, previous_batch: int) -> str:
    """Return the SQL predicate of a merge that finds a second row of a key.

    A key that is new in the input must not be in the table. A row of a later batch is one that
    this batch, or an interrupted one with the same changes, has written.

    Args:
        batch_column: Column of the table with the batch that wrote a row.
        previous_batch: Last batch before the changes.
    """
    is_earlier = f"coalesce(destination.{batch_column} <= {previous_batch}, false)"
    return f"source.{IS_NEW} AND {is_earlier}"


def new_keys_error(
    spark: SparkSession, changes: Table, table: Table, key_columns: Sequence[str]
) -> ScoringError:
    """Return the error of changes with new keys that a table has already."""
    new_rows = changes.read(spark).where(IS_NEW)
    repeated_rows = _rows_with_key_of(new_rows, table.read(spark), key_columns)
    return _repeated_keys_error(_example_keys(repeated_rows, key_columns))


def has_key_of(rows: DataFrame, other_rows: DataFrame, key_columns: Sequence[str]) -> bool:
    """Return whether one of the rows has the key of one of the other rows."""
    same_rows = _rows_with_key_of(rows, other_rows, key_columns)
    return bool(same_rows.select(*_key_columns(key_columns)).head(1))


def _rows_with_key_of(
    rows: DataFrame, other_rows: DataFrame, key_columns: Sequence[str]
) -> DataFrame:
    """Return the rows whose key one of the other rows has, too."""
    has_same_key = [
        F.col(f"rows.{name}").eqNullSafe(F.col(f"other_rows.{name}"))
        for name in map(sql_identifier, key_columns)
    ]
    return rows.alias("rows").join(other_rows.alias("other_rows"), has_same_key, "left_semi")


def _repeated_keys_error(keys: Sequence[str]) -> ScoringError:
    return ScoringError(
        f"key_columns must name each input row once: got several rows with {', '.join(keys)}; "
        "add a column to the key or remove the duplicates, then pass rescore=True"
    )


def _example_keys(rows: DataFrame, key_columns: Sequence[str]) -> list[str]:
    """Return up to 5 keys of some rows, as JSON."""
    texts = rows.select(_key_text(key_columns).alias("text")).distinct()
    return [text for (text,) in texts.orderBy("text").limit(_EXAMPLES).collect()]


def _has_null_key(key_columns: Sequence[str]) -> str:
    return " OR ".join(f"{sql_identifier(name)} IS NULL" for name in key_columns)


def _key_columns(key_columns: Sequence[str]) -> list[Column]:
    return [F.col(sql_identifier(name)) for name in key_columns]


def _key_text(key_columns: Sequence[str]) -> Column:
    return F.to_json(F.struct(*_key_columns(key_columns)), {"ignoreNullFields": "false"})
