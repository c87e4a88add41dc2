"""The rows that some versions of a table have added: the input of an earlier micro-batch."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.table_identity import changing_commits

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def read_added_rows(
    spark: SparkSession, table: Table, first_version: int, last_version: int
) -> DataFrame:
    """Return the rows that the commits of some versions added to a table that only grows.

    Args:
        spark: Session.
        table: Delta table.
        first_version: First version whose rows are read.
        last_version: Last version whose rows are read.
    """
    rows = table.read(spark, last_version)
    files, earlier_files = set(rows.inputFiles()), _files(spark, table, first_version - 1)
    if earlier_files <= files:
        return _in_files(rows, files - earlier_files)
    # A commit such as OPTIMIZE wrote old rows into new files: each other commit by itself.
    frames = [rows.where("false")]
    changes = changing_commits(spark, table, first_version)
    for version in sorted(number for number, _, _ in changes if number <= last_version):
        rows = table.read(spark, version)
        added_files = set(rows.inputFiles()) - _files(spark, table, version - 1)
        frames.append(_in_files(rows, added_files))
    return reduce(lambda first, second: first.unionByName(second, allowMissingColumns=True), frames)


def _files(spark: SparkSession, table: Table, version: int) -> set[str]:
    return set(table.read(spark, version).inputFiles()) if version >= 0 else set()


def _in_files(rows: DataFrame, files: set[str]) -> DataFrame:
    return rows.where(F.col("_metadata.file_path").isin(sorted(files)))
