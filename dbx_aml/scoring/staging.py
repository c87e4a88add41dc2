"""The staging table of a batch: all its rows with the model's result, until the batch is written.

It is used where the input cannot be read a second time, where a write asks for its rows twice, and
where a batch is written again.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from dbx_aml._common.log import get_logger
from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.delta_write import write_table
from dbx_aml.scoring.table_identity import resolve_name, split_name

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = get_logger(__name__)

_DAY_US = 24 * 3600 * 10**6
# A staging table that is older was left by a job that died and never ran again.
_LONGEST_LIFE_US = 7 * _DAY_US


def staging_number(run: int, batch: int) -> int:
    """Return the number of a batch's staging table: a time, in microseconds since 1970.

    The batches of a stream share a number for a day. Delta keeps the log of each dropped table in
    memory for an hour, unless a table of the same name follows.

    Args:
        run: Number of the run that writes the batch: its start.
        batch: Number of the batch: its start, or the start of an earlier attempt.
    """
    days = max(batch - run, 0) // _DAY_US
    return run + days * _DAY_US


def staging_table(spark: SparkSession, output: Table, number: int) -> Table:
    """Return the staging table of a number: a managed table, as such a table can be dropped.

    It stands beside the output, or in the current schema where the output is named by its path.
    """
    if output.path:
        return Table(resolve_name(spark, Table(f"dbx_aml_staging_{number}")))
    return Table(resolve_name(spark, output.sibling(f"staging_{number}")))


def write_staging(spark: SparkSession, table: Table, results: DataFrame) -> None:
    """Write the rows of a batch with the model's result.

    Raises:
        ScoringError: The table cannot be written, or the model ended the query.
    """
    _drop_old(spark, table)
    writer = results.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
    write_table(writer, table, results.schema, exists=False)


def drop_staging(spark: SparkSession, table: Table) -> None:
    """Drop a staging table."""
    spark.sql(f"DROP TABLE IF EXISTS {table.name}").collect()


def _drop_old(spark: SparkSession, table: Table) -> None:
    *schema, name = split_name(table.name)
    prefix = re.sub(r"\d+$", "", name)
    in_schema = ".".join(map(sql_identifier, schema))
    pattern = f"'{prefix}*'" if "'" not in prefix else "'*'"
    now_us = int(time.time() * 1e6)
    for row in spark.sql(f"SHOW TABLES IN {in_schema} LIKE {pattern}").collect():
        match = re.fullmatch(re.escape(prefix) + r"(\d{16})", row["tableName"])
        if match and now_us - int(match[1]) > _LONGEST_LIFE_US:
            log.warning("dropping the staging table of a job that died, table=%s", row["tableName"])
            drop_staging(spark, Table(f"{in_schema}.{sql_identifier(row['tableName'])}"))
