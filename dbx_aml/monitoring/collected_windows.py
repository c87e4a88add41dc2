"""The windows of the files that the data collector of an Azure ML endpoint has written.

The collector writes into a folder for each hour in UTC: <folder>/yyyy/MM/dd/HH/<name>.jsonl. A file
belongs to the window of its folder, so a later run opens only the files of new windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType, TimestampType

from dbx_aml._common.errors import ArgumentError
from dbx_aml.monitoring.collected_rows import (
    FILE_COLUMN,
    FILES,
    TIME_COLUMN,
    missing_folder_error,
    read_collected_files,
)
from dbx_aml.monitoring.windows import Window, Windows

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from dbx_aml.monitoring.result import WindowKind

_HOUR = r"/(\\d{4}/\\d{2}/\\d{2}/\\d{2})/[^/]+$"


class CollectedWindows(Windows):
    """The windows of a folder of the data collector.

    Args:
        spark: Session.
        folder: Folder that Spark can read.
        schema: Columns with their types.
        kind: Kind of the windows.

    Raises:
        ArgumentError: The kind is "batch".
    """

    def __init__(
        self, spark: SparkSession, folder: str, schema: StructType, kind: WindowKind
    ) -> None:
        if kind == "batch":
            raise ArgumentError(
                "collected_folder must go with hours, days, weeks or months: got by='batch'; use "
                "for example by='day'"
            )
        # The rows of all files are never needed: `select` opens the files of some windows.
        collected = [
            StructField(TIME_COLUMN, TimestampType()), StructField(FILE_COLUMN, StringType())
        ]  # fmt: skip
        rows = spark.createDataFrame([], StructType([*schema.fields, *collected]))
        super().__init__(spark, rows, kind)
        self.columns_left_out = {TIME_COLUMN, FILE_COLUMN}
        self._folder = folder
        self._schema = schema
        self._files: dict[int, list[str]] = {}

    @property
    def key(self) -> Column:
        """Start of the window of a row, by the folder of its file."""
        return self._start_of_file(FILE_COLUMN)

    def _start_of_file(self, path: str) -> Column:
        hour = f"concat(regexp_extract({path}, '{_HOUR}', 1), '+00:00')"
        return self.start_of(f"try_to_timestamp({hour}, 'yyyy/MM/dd/HHXXX')")

    def read(self) -> list[Window]:
        """Return the windows of the folder, oldest first.

        Raises:
            ArgumentError: A file is in no folder of an hour.
            TableNotFoundError: The folder does not exist.
        """
        with missing_folder_error(self._folder):
            files = self._spark.read.format("binaryFile").options(**FILES).load(self._folder)
            # Spark opens no file for these columns.
            found = files.select(
                "path", "length", F.expr("unix_micros(modificationTime)").alias("changed"),
                self._start_of_file("path").alias("start"),
            ).orderBy("path").collect()  # fmt: skip
        states: dict[int, tuple[int, int]] = {}
        for file in found:
            if file.start is None:
                raise ArgumentError(
                    "collected_folder must have a folder for each hour, yyyy/MM/dd/HH: got "
                    f"{file.path!r}; name the folder of a deployment's model_inputs"
                )
            size, changed = states.get(file.start, (0, 0))
            states[file.start] = size + file.length, max(changed, file.changed)
            self._files.setdefault(file.start, []).append(file.path)
        return [
            Window(
                start=start,
                state=f"{len(self._files[start])} files, {size} bytes, changed {changed}",
            )
            for start, (size, changed) in sorted(states.items())
        ]

    def select(self, windows: list[Window]) -> DataFrame:
        """Return the rows of some windows, from their files alone."""
        paths = [path for window in windows for path in self._files[window.start]]
        return read_collected_files(self._spark, paths, self._schema)
