"""Rows that the data collector of an Azure ML endpoint has written, as a frame of Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DateType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.text import sql_identifier

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TIME_COLUMN = "collected_time"
_EVENT = "time timestamp, data string, dataref string"
_TIMES = (TimestampType, TimestampNTZType, DateType)


def read_collected_rows(spark: SparkSession, folder: str, schema: StructType) -> DataFrame:
    """Return the rows of all requests in a folder of the data collector.

    A line of a file is a CloudEvent with the rows of one or more requests. The collector writes
    times as milliseconds since 1970, and null for a number that is not finite.

    Args:
        spark: Session.
        folder: Folder that Spark can read, for example
            "abfss://logs@account.dfs.core.windows.net/modelDataCollector/delay/blue/model_inputs".
        schema: Columns with their types, for example `spark.table("flights_train").schema`. A
            column that the collector did not write is null.

    Shape:
        A row for each row of a request: the columns of the schema, and `collected_time` timestamp.

    Raises:
        ArgumentError: The schema has a column `collected_time`.

    Source:
        Microsoft Learn, "Collect production data from models deployed for real-time inferencing":
        columns `time`, `data`, and `dataref` for more than 4 MB. Package azureml-ai-monitoring
        1.0, `PandasFrameData.to_json`.
    """
    if TIME_COLUMN in schema.names:
        raise ArgumentError(
            f"schema must not have the column {TIME_COLUMN}: got {', '.join(schema.names)}; rename "
            "the column"
        )
    files = spark.read.option("recursiveFileLookup", True).option("pathGlobFilter", "*.jsonl")
    events = files.schema(_EVENT).json(folder)
    texts = events.where("data IS NOT NULL").select("time", "data")
    # Only the driver can open paths that are in the rows; such requests are rare.
    for event in events.where("data IS NULL AND dataref IS NOT NULL").collect():
        payload = spark.read.text(event.dataref, wholetext=True)
        texts = texts.unionAll(payload.select(F.lit(event.time).alias("time"), "value"))
    read_as = StructType(
        [
            StructField(
                field.name, StringType() if isinstance(field.dataType, _TIMES) else field.dataType
            )
            for field in schema
        ]
    )
    rows = texts.select("time", F.explode(F.from_json("data", ArrayType(read_as))).alias("row"))
    columns = [F.expr(_column(field)).alias(field.name) for field in schema]
    return rows.select(*columns, F.col("time").alias(TIME_COLUMN))


def _column(field: StructField) -> str:
    """Return SQL of a column: a time may be a number of milliseconds or a text."""
    value = f"row.{sql_identifier(field.name)}"
    if not isinstance(field.dataType, _TIMES):
        return value
    kind = field.dataType.simpleString()
    milliseconds = f"CAST(timestamp_millis(TRY_CAST({value} AS BIGINT)) AS {kind})"
    return f"coalesce({milliseconds}, TRY_CAST({value} AS {kind}))"
