"""Rows that the data collector of an Azure ML endpoint has written, as a frame of Spark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DateType,
    IntegralType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from dbx_aml._common.errors import ArgumentError, TableNotFoundError
from dbx_aml._common.text import sql_identifier

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TIME_COLUMN = "collected_time"
FILE_COLUMN = "collected_file"
FILES = {"recursiveFileLookup": "true", "pathGlobFilter": "*.jsonl"}
_EVENT = "time timestamp, data string, dataref string"
# Types that the collector writes in two ways: they are read as text first.
_TEXTS = (TimestampType, TimestampNTZType, DateType, IntegralType)


def read_collected_rows(spark: SparkSession, folder: str, schema: StructType) -> DataFrame:
    """Return the rows of all requests in a folder of the data collector.

    A line of a file is a CloudEvent with the rows of one or more requests. The collector writes
    times as milliseconds since 1970, null for a number that is not finite, and 3.0 for the integer
    3 in a request where a row lacks the value.

    Args:
        spark: Session.
        folder: Folder that Spark can read, for example
            "abfss://logs@account.dfs.core.windows.net/modelDataCollector/delay/blue/model_inputs".
        schema: Columns with their types, for example `spark.table("flights_train").schema`. A
            column that the collector did not write is null.

    Shape:
        A row for each row of a request: the columns of the schema, and `collected_time` timestamp.

    Raises:
        ArgumentError: The schema has a column `collected_time` or `collected_file`.
        TableNotFoundError: The folder does not exist.

    Source:
        Microsoft Learn, "Collect production data from models deployed for real-time inferencing":
        columns `time`, `data`, and `dataref` for more than 4 MB. Package azureml-ai-monitoring
        1.0, `PandasFrameData.to_json`.
    """
    return read_collected_files(spark, [folder], schema).drop(FILE_COLUMN)


def read_collected_files(
    spark: SparkSession, paths: Sequence[str], schema: StructType
) -> DataFrame:
    """Return the same rows as `read_collected_rows`, with their file as `collected_file` string.

    Args:
        spark: Session.
        paths: Files or folders.
        schema: Columns with their types.
    """
    taken = {TIME_COLUMN, FILE_COLUMN} & set(schema.names)
    if taken:
        raise ArgumentError(
            f"schema must not have the column {', '.join(sorted(taken))}: got "
            f"{', '.join(schema.names)}; rename the column"
        )
    events = _read_events(spark, paths)
    texts = events.where("data IS NOT NULL").select("time", "data", FILE_COLUMN)
    # Only the driver can open paths that are in the rows; such requests are rare.
    for event in events.where("data IS NULL AND dataref IS NOT NULL").collect():
        payload = spark.read.text(event.dataref, wholetext=True)
        columns = F.lit(event.time).alias("time"), "value", F.lit(event[FILE_COLUMN])
        texts = texts.unionAll(payload.select(*columns))
    read_as = StructType(
        [
            StructField(
                field.name, StringType() if isinstance(field.dataType, _TEXTS) else field.dataType
            )
            for field in schema
        ]
    )
    row = F.explode(F.from_json("data", ArrayType(read_as))).alias("row")
    values = [F.expr(_column(field)).alias(field.name) for field in schema]
    return texts.select("time", FILE_COLUMN, row).select(
        *values, F.col("time").alias(TIME_COLUMN), FILE_COLUMN
    )


def find_collected_columns(spark: SparkSession, folder: str) -> list[str]:
    """Return the columns of the first request in a folder; none where all requests are large."""
    events = _read_events(spark, [folder]).where("data IS NOT NULL")
    names = F.json_object_keys(F.get_json_object("data", "$[0]")).alias("names")
    first = events.select(names).where("names IS NOT NULL").limit(1).collect()
    return list(first[0].names) if first else []


def _read_events(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    with missing_folder_error(", ".join(paths)):
        events = spark.read.options(**FILES).schema(_EVENT).json(list(paths))
        # Spark Connect looks for the folder when it answers the schema.
        names = events.schema.names
    return events.select(*names, F.col("_metadata.file_path").alias(FILE_COLUMN))


@contextmanager
def missing_folder_error(folder: str) -> Iterator[None]:
    """Raise a `TableNotFoundError` where Spark does not find a folder of the data collector."""
    try:
        yield
    except AnalysisException as err:
        if "PATH_NOT_FOUND" not in str(err):
            raise
        raise TableNotFoundError(
            f"collected_folder must exist and be readable: got {folder!r}; name the folder of a "
            "deployment, for example modelDataCollector/delay/blue/model_inputs"
        ) from err


def _column(field: StructField) -> str:
    """Return SQL of a column: a time may be a number of milliseconds or a text.

    An integer may be 3.0: pandas makes floats of the integers of a request that lacks one.
    """
    value = f"row.{sql_identifier(field.name)}"
    if not isinstance(field.dataType, _TEXTS):
        return value
    kind = field.dataType.simpleString()
    if isinstance(field.dataType, IntegralType):
        return f"TRY_CAST(TRY_CAST({value} AS DECIMAL(38, 6)) AS {kind})"
    milliseconds = f"CAST(timestamp_millis(TRY_CAST({value} AS BIGINT)) AS {kind})"
    return f"coalesce({milliseconds}, TRY_CAST({value} AS {kind}))"
