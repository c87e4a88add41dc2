"""Files of a volume as the input of a stream, by Databricks' Auto Loader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbx_aml.scoring.delta_table import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def read_new_files(spark: SparkSession, table: Table) -> DataFrame:
    """Return the files of a folder as a stream, each file once.

    The columns are those that the files have at the start, so Auto Loader infers none.

    Args:
        spark: Session.
        table: Folder with its format, for example "json.`/Volumes/main/ml/landing`".

    Source:
        Databricks, "Auto Loader options", 2026-11.
    """
    reader = spark.readStream.format("cloudFiles").schema(table.read(spark).schema)
    return reader.options(**auto_loader_options(table)).load(table.path)


def auto_loader_options(table: Table) -> dict[str, str]:
    """Return Auto Loader's options for a folder of files."""
    return {"cloudFiles.format": table.name.partition(".")[0].lower()}
