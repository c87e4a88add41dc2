"""A table that a job names by its name or its path: its rows, its versions, its commits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException

from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.json_content import parse_json

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_PATH = re.compile(
    r"(?:(?:delta|parquet)\.`(?P<path>[^`]+)`|\w+\.`(?P<other_path>[^`]*/[^`]*)`)", re.IGNORECASE
)
# Newest commits that a look-up of an earlier attempt reads. Delta itself refuses a transaction of
# an older commit.
_RECENT_COMMITS = 200
_METADATA_KEY = "dbx_aml"


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit of a Delta table.

    Args:
        version: Version of the table after the commit.
        operation: Delta's name of the operation, for example "WRITE".
        timestamp_s: Time of the commit, in seconds since 1970.
        rows: Rows that a write wrote; no meaning for other operations.
        metadata: Facts about the batch, in Delta's `userMetadata`; empty for others' commits.
    """

    version: int
    operation: str
    timestamp_s: float
    rows: int
    metadata: dict[str, Any]


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
        """Path of a table that is named by its path, else None."""
        match = _PATH.fullmatch(self.name)
        return (match["path"] or match["other_path"]) if match else None

    def sibling(self, suffix: str) -> Table:
        """Return the table whose name or path ends with "_<suffix>" after this table's."""
        if self.path:
            return Table(f"delta.`{self.path.rstrip('/')}_{suffix}`")
        if self.name.endswith("`"):
            return Table(f"{self.name[:-1]}_{suffix}`")
        return Table(f"{self.name}_{suffix}")

    def exists(self, spark: SparkSession) -> bool:
        """Return whether there is a table or view of this name."""
        if not self.path:
            return bool(spark.catalog.tableExists(self.name))
        return self.read_if_exists(spark) is not None

    def read_if_exists(self, spark: SparkSession) -> DataFrame | None:
        """Return the table's rows; None where there is no table or view of this name."""
        if not self.path:
            return self.read(spark) if self.exists(spark) else None
        try:
            rows = self.read(spark)
            # Spark Connect looks for the table when it answers the schema.
            return rows if rows.schema else None
        except AnalysisException as err:
            if "DELTA_MISSING_DELTA_TABLE" in str(err) or "DELTA_TABLE_NOT_FOUND" in str(err):
                return None
            if "PATH_NOT_FOUND" in str(err) or "doesn't exist" in str(err):
                return None
            raise

    def version(self, spark: SparkSession) -> int | None:
        """Return the table's newest version; None for a view or a table without versions."""
        try:
            rows = spark.sql(f"DESCRIBE HISTORY {self.name} LIMIT 1").select("version").collect()
        except AnalysisException:
            return None
        return int(rows[0][0]) if rows else None

    def read(self, spark: SparkSession, version: int | None = None) -> DataFrame:
        """Return the table's rows, by default of its newest version."""
        reader = spark.read if version is None else spark.read.option("versionAsOf", str(version))
        if self.path and self.name.lower().startswith("delta"):
            return reader.format("delta").load(self.path)
        return reader.table(self.name)

    def history(self, spark: SparkSession, limit: int | None = _RECENT_COMMITS) -> list[Commit]:
        """Return the `limit` newest commits, newest first."""
        newest = f" LIMIT {limit}" if limit else ""
        rows = spark.sql(f"DESCRIBE HISTORY {self.name}{newest}").selectExpr(
            "version", "operation", "unix_micros(timestamp)", "userMetadata", "operationMetrics"
        )
        commits = []
        for version, operation, micros, text, metrics in rows.collect():
            # This number includes rows that a replace only copied.
            count = int((metrics or {}).get("numOutputRows", 0))
            count -= int((metrics or {}).get("numCopiedRows", 0))
            commits.append(
                Commit(
                    version=int(version),
                    operation=operation or "",
                    timestamp_s=micros / 1e6,
                    rows=count,
                    metadata=parse_commit_metadata(text) or {},
                )
            )
        return commits

    def find_commit(
        self, spark: SparkSession, key: str, value: object, limit: int | None = _RECENT_COMMITS
    ) -> Commit | None:
        """Return the newest commit of scoring with a fact, among the `limit` newest commits."""
        commits = self.history(spark, limit)
        return next((c for c in commits if c.metadata.get(key) == value), None)


def has_first_commit(commits: Sequence[Commit]) -> bool:
    """Return whether commits, newest first, go back to the creation of their table."""
    return bool(commits) and commits[-1].version == 0


def column_types(frame: DataFrame) -> dict[str, str]:
    """Return a frame's columns and their Spark types, for example {"x": "bigint"}."""
    return {field.name: field.dataType.simpleString() for field in frame.schema.fields}


def format_commit_metadata(metadata: Mapping[str, Any]) -> str:
    """Return the text of Delta's `userMetadata` for a batch."""
    return json.dumps({_METADATA_KEY: metadata}, ensure_ascii=False)


def parse_commit_metadata(text: str | None) -> dict[str, Any] | None:
    """Return the facts about a batch in a commit's `userMetadata`; None if it is not scoring's."""
    try:
        data = parse_json(text or "")
    except ValueError:
        return None
    metadata = data.get(_METADATA_KEY) if isinstance(data, dict) else None
    return metadata if isinstance(metadata, dict) else None
