"""A table as a job names it: a name, or a path; its versions, and what committed them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, PySparkException

from dbx_aml._common.errors import ArgumentError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# What Spark raises: its own classes, or py4j's for Java errors it has no class for.
SPARK_ERRORS = (PySparkException, Py4JError)

_PATH = re.compile(r"(?:delta|parquet)\.`(?P<path>[^`]+)`", re.IGNORECASE)
# Commits looked at for a batch that was written before. A batch that is older is still never
# written twice: Delta itself remembers its transaction.
_RECENT_COMMITS = 200
_COMMIT_KEY = "dbx_aml"
_CAUSES = (
    "No space left on device",
    "Permission denied",
    "Read-only file system",
    "Not a directory",
    "ConcurrentTransactionException",
    "ConcurrentAppendException",
    "CONCURRENT_STREAM_LOG_UPDATE",
)


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit of a Delta table that scoring made: its version, rows written, what it says."""

    version: int
    rows: int
    batch: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table or view by name ("main.ml.t"), or a Delta table by path ("delta.`/data/t`")."""

    name: str

    def __post_init__(self) -> None:
        if not self.path and re.search(r"^[/.]|://", self.name):
            raise ArgumentError(
                f"table must be a name or a quoted path: got {self.name!r}; use delta.`{self.name}`"
            )

    @property
    def path(self) -> str | None:
        """The path of a table that is named by its path."""
        match = _PATH.fullmatch(self.name)
        return match["path"] if match else None

    def beside(self, suffix: str) -> Table:
        """Return the table of the same name with a suffix: beside it, for a path."""
        if self.path:
            return Table(f"delta.`{self.path.rstrip('/')}_{suffix}`")
        if self.name.endswith("`"):
            return Table(f"{self.name[:-1]}_{suffix}`")
        return Table(f"{self.name}_{suffix}")

    def exists(self, spark: SparkSession) -> bool:
        """Return whether there is such a table or view."""
        if not self.path:
            return bool(spark.catalog.tableExists(self.name))
        try:
            return bool(self.read(spark).schema)
        except AnalysisException as err:
            if "DELTA_MISSING_DELTA_TABLE" in str(err) or "DELTA_TABLE_NOT_FOUND" in str(err):
                return False
            if "PATH_NOT_FOUND" in str(err) or "doesn't exist" in str(err):
                return False
            raise

    def version(self, spark: SparkSession) -> int | None:
        """Return the table's newest version; None for a view or what else has no versions."""
        try:
            rows = spark.sql(f"DESCRIBE HISTORY {self.name} LIMIT 1").select("version").collect()
        except AnalysisException:
            return None
        return int(rows[0][0]) if rows else None

    def has_versions(self, spark: SparkSession) -> bool:
        """Return whether it is a Delta table, sooner than `version` would tell."""
        try:
            found = spark.sql(f"SHOW TBLPROPERTIES {self.name}").collect()
        except AnalysisException:
            return False
        return any(key == "delta.minReaderVersion" for key, _ in found)

    def read(self, spark: SparkSession, version: int | None = None) -> DataFrame:
        """Return the table's rows, as of a version if one is given."""
        reader = spark.read if version is None else spark.read.option("versionAsOf", str(version))
        if self.path and self.name.lower().startswith("delta"):
            return reader.format("delta").load(self.path)
        return reader.table(self.name)

    def commits(self, spark: SparkSession, limit: int | None = _RECENT_COMMITS) -> list[Commit]:
        """Return the commits that scoring made, newest first, among the `limit` newest."""
        newest = f" LIMIT {limit}" if limit else ""
        history = spark.sql(f"DESCRIBE HISTORY {self.name}{newest}")
        rows = history.select("version", "userMetadata", "operationMetrics").collect()
        found = []
        for version, text, metrics in rows:
            batch = batch_of(text)
            if batch is not None:
                metrics = metrics or {}
                # Rows that a merge or a replace copied from files it rewrote are counted too.
                count = metrics.get("numSourceRows", metrics.get("numOutputRows", 0))
                count = int(count) - int(metrics.get("numCopiedRows", 0))
                found.append(Commit(version=int(version), rows=count, batch=batch))
        return found

    def types(self, spark: SparkSession) -> dict[str, str]:
        """Return the columns and their Spark types."""
        return column_types(self.read(spark))


def column_types(frame: DataFrame) -> dict[str, str]:
    """Return a frame's columns and their Spark types, for example {"x": "bigint"}."""
    return {field.name: field.dataType.simpleString() for field in frame.schema.fields}


def bytes_of(spark: SparkSession, frame: DataFrame) -> int | None:
    """Return Spark's estimate of a frame's size in bytes, or None if it gives none."""
    text = spark.sql("EXPLAIN COST SELECT * FROM {frame}", frame=frame).collect()[0][0]
    match = re.search(r"sizeInBytes=([\d.]+(?:E[+-]?\d+)?) ([KMGTPE]?)i?B", text)
    return int(float(match[1]) * 1024 ** " KMGTPE".index(match[2] or " ")) if match else None


def cores_of(spark: SparkSession) -> int | None:
    """Return how many tasks run at once: the partitions Spark gives a range by default."""
    text = spark.sql("EXPLAIN SELECT * FROM range(10)").collect()[0][0]
    match = re.search(r"splits=(\d+)", text)
    return int(match[1]) if match else None


def commit_text(batch: Mapping[str, Any]) -> str:
    """Return what a commit says about its batch: Delta's `userMetadata`."""
    return json.dumps({_COMMIT_KEY: batch}, ensure_ascii=False)


def batch_of(text: str | None) -> dict[str, Any] | None:
    """Return what a commit says about its batch, or None for a commit of somebody else."""
    try:
        data = json.loads(text or "")
    except ValueError:
        return None
    batch = data.get(_COMMIT_KEY) if isinstance(data, dict) else None
    return batch if isinstance(batch, dict) else None


def one_line(err: Exception) -> str:
    """Return the cause of a Spark error in one line: no Java, no Python stack."""
    text = f"{err}\n{getattr(err, '_stackTrace', '') or ''}"
    for cause in _CAUSES:
        if cause in text:
            return cause
    python = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception)): (.*)$", text, re.MULTILINE)
    if "Traceback (most recent call last)" in text and python:
        return ": ".join(python[-1])
    java = re.search(r"^: (?:[\w$]+\.)*([\w$]+: .*)$", str(err), re.MULTILINE)
    message = java[1] if java else str(err).partition("JVM stacktrace")[0].strip()
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    return line.partition(" SQLSTATE")[0].rstrip(". ") or type(err).__name__
