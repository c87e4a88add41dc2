"""The identity of a table in every spelling: its id, its folder, and the version of its data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from dbx_aml._common.errors import ArgumentError, ScoringError
from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.spark_errors import SPARK_ERRORS, spark_error_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TableKind = Literal["delta", "view", "temporary view", "file", "topic", "other"]

# Operations in a Delta table's history that change no value of a row. A new column, or a column of
# another type, is another fact of a batch where the model or the output takes it.
# Source: delta-io/delta, DeltaOperations.scala (master, 2026-11); Databricks, "Work with Delta
# Lake table history", table of operation keys.
_KEEPS_ROWS = frozenset(
    (
        "ADD COLUMNS",
        "ADD CONSTRAINT",
        "ADD DELETION VECTORS TOMBSTONES",
        "CHANGE COLUMN",
        "CHANGE COLUMNS",
        "CLUSTER BY",
        "COMPUTE STATS",
        "DOMAIN METADATA CLEANUP",
        "DROP CONSTRAINT",
        "DROP FEATURE",
        "Empty Commit",
        "OPTIMIZE",
        "REORG",
        "REORG TABLE UPGRADE UNIFORM",
        "ROW TRACKING BACKFILL",
        "ROW TRACKING UNBACKFILL",
        "SET TBLPROPERTIES",
        "UNSET TBLPROPERTIES",
        "UPGRADE PROTOCOL",
        "VACUUM END",
        "VACUUM START",
    )
)
# Metrics that are all zero where an operation changed no row. An operation without its metrics
# counts as a change; so does an overwrite, whose metrics leave out the rows that it removed.
_ROW_METRICS: Mapping[str, tuple[str, ...]] = {
    "DELETE": ("numRemovedFiles", "numDeletedRows"),
    "MERGE": ("numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted"),
    "STREAMING UPDATE": ("numOutputRows", "numRemovedFiles"),
    "UPDATE": ("numUpdatedRows",),
    "WRITE": ("numOutputRows",),
}
# Commits that each query reads. In most tables one of the newest 20 has changed rows.
_PAGES = (20, 500, 10_000, None)
_NAME_PART = re.compile(r"`(?:[^`]|``)+`|\w+")
_NOT_FOUND = (
    "TABLE_OR_VIEW_NOT_FOUND",
    "DELTA_MISSING_DELTA_TABLE",
    "DELTA_TABLE_NOT_FOUND",
    "DELTA_PATH_DOES_NOT_EXIST",
    "SCHEMA_NOT_FOUND",
    "PATH_NOT_FOUND",
    # A folder inside another Delta table.
    "DELTA_INVALID_PARTITION_PATH",
    "doesn't exist",
)


@dataclass(frozen=True, kw_only=True)
class TableIdentity:
    """A table or view that exists.

    Args:
        name: Name with catalog and schema, quoted where needed; or delta.`path`.
        id: Delta's id of the table (`metaData.id`); None for a view or a file.
        location: Folder of the table, for example "/data/t" or "abfss://..."; None for a view.
        kind: Kind of the table.
        version: Newest version: it has the rows of `data_version`, and its files are there even
            where older ones were removed. None for a table without versions.
        data_version: Newest version whose commit changed rows; None as for `version`.
        is_data_version_certain: False where the history no longer holds that commit:
            `data_version` is then the oldest version of the history.
        properties: Properties of a Delta table, for example its constraints.
        size_bytes: Size of a Delta table's files; None for a view or a file.
    """

    name: str
    id: str | None
    location: str | None
    kind: TableKind
    version: int | None = None
    data_version: int | None = None
    is_data_version_certain: bool = True
    properties: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    size_bytes: int | None = field(default=None, compare=False)


def identify_table(spark: SparkSession, table: Table) -> TableIdentity | None:
    """Return what a table is, without its versions; None if it does not exist.

    Raises:
        ScoringError: The table exists and cannot be read.
    """
    name = resolve_name(spark, table)
    try:
        # Spark answers this five times as fast as it fails to describe what does not exist.
        if not table.path and not spark.catalog.tableExists(table.name):
            return None
        (detail,) = spark.sql(f"DESCRIBE DETAIL {table.name}").collect()
    except SPARK_ERRORS as err:
        return _identify_other(spark, table, name, err)
    is_delta = detail["format"] == "delta"
    return TableIdentity(
        name=name,
        id=detail["id"],
        location=normalize_location(detail["location"]) if detail["location"] else None,
        kind="delta" if is_delta else "other",
        properties=detail["properties"] or {},
        size_bytes=detail["sizeInBytes"] if is_delta else None,
    )


def locate_table(spark: SparkSession, table: Table) -> str | None:
    """Return the folder of a table; None where there is no such table.

    This costs a tenth of `identify_table` where the table has just changed.
    """
    if table.path:
        return normalize_location(table.path)
    try:
        if not spark.catalog.tableExists(table.name):
            return None
        rows = spark.sql(f"DESCRIBE TABLE EXTENDED {table.name}").collect()
    except SPARK_ERRORS:
        return None
    locations = [row["data_type"] for row in rows if row["col_name"] == "Location"]
    return normalize_location(locations[-1]) if locations else None


def _identify_other(
    spark: SparkSession, table: Table, name: str, err: Exception
) -> TableIdentity | None:
    """Return what a view or a file is, of which Spark gives no details."""
    kind: TableKind
    if table.path:
        # Spark says "not found" of every path that is no Delta table, and of a missing one.
        if table.name.lower().startswith("delta"):
            if any(text in str(err) for text in _NOT_FOUND):
                return None
            raise _unreadable(table, err) from err
        location = normalize_location(table.path)
        return TableIdentity(name=name, id=None, location=location, kind="file")
    try:
        found = spark.catalog.getTable(table.name)
    except SPARK_ERRORS as error:
        if any(text in str(error) for text in _NOT_FOUND):
            return None
        raise _unreadable(table, error) from error
    if found.isTemporary:
        name, kind = sql_name(split_name(table.name)), "temporary view"
    else:
        kind = "view" if "VIEW" in str(found.tableType) else "other"
    return TableIdentity(name=name, id=None, location=None, kind=kind)


def _unreadable(table: Table, err: Exception) -> ScoringError:
    return ScoringError(f"table must be readable: got {table.name!r}; {spark_error_line(err)}")


def read_versions(spark: SparkSession, table: Table, identity: TableIdentity) -> TableIdentity:
    """Return the identity with the newest version and the version of the data.

    A history of maintenance alone, for example of a thousand nights, is read in pages.
    """
    if identity.kind != "delta":
        return identity
    for limit in _PAGES:
        newest = f" LIMIT {limit}" if limit else ""
        commits = (
            spark.sql(f"DESCRIBE HISTORY {table.name}{newest}")
            .select("version", "operation", "operationMetrics", "operationParameters")
            .collect()
        )
        if not commits:
            return identity
        changed = find_data_version(commits)
        if changed is None and limit is not None and len(commits) == limit:
            continue
        oldest = int(commits[-1][0])
        return replace(
            identity,
            version=int(commits[0][0]),
            data_version=oldest if changed is None else changed,
            is_data_version_certain=changed is not None or oldest == 0,
        )
    return identity


def find_data_version(commits: Iterable[Sequence[Any]]) -> int | None:
    """Return the newest version whose commit changed rows or columns, or None.

    An operation that is not known to keep the rows counts as a change.

    Args:
        commits: Version, operation, metrics and parameters of each commit, newest first.
    """
    for version, operation, metrics, parameters in commits:
        if not _keeps_rows(operation or "", metrics or {}, parameters or {}):
            return int(version)
    return None


def changing_commits(
    spark: SparkSession, table: Table, first_version: int
) -> list[tuple[int, str, str | None]]:
    """Return version, operation and `userMetadata` of the commits that may have changed rows.

    Args:
        spark: Session.
        table: Delta table.
        first_version: First version that counts.
    """
    newest = table.version(spark)
    if newest is None or newest < first_version:
        return []
    commits = spark.sql(f"DESCRIBE HISTORY {table.name} LIMIT {newest - first_version + 1}").select(
        "version", "operation", "userMetadata", "operationMetrics", "operationParameters"
    )
    return [
        (int(version), operation or "", text)
        for version, operation, text, metrics, parameters in commits.collect()
        if version >= first_version
        and not _keeps_rows(operation or "", metrics or {}, parameters or {})
    ]


def removes_no_row(operation: str) -> bool:
    """Return whether an operation of a Delta table's history leaves each row in the table."""
    return operation in _KEEPS_ROWS or operation in ("CREATE TABLE", "UPDATE")


def _keeps_rows(operation: str, metrics: Mapping[str, str], parameters: Mapping[str, str]) -> bool:
    if operation in _KEEPS_ROWS:
        return True
    if operation == "WRITE" and parameters.get("mode") != "Append":
        return False
    names = _ROW_METRICS.get(operation)
    return names is not None and all(metrics.get(name) == "0" for name in names)


def resolve_name(spark: SparkSession, table: Table) -> str:
    """Return a table's name with catalog and schema, or delta.`path`, whether it exists or not."""
    if table.path:
        return f"{table.name.partition('.')[0].lower()}.`{normalize_location(table.path)}`"
    parts = split_name(table.name)
    if len(parts) == 1:
        parts = [spark.catalog.currentDatabase(), *parts]
    if len(parts) == 2 and parts[0].lower() != "global_temp":
        parts = [spark.catalog.currentCatalog(), *parts]
    return sql_name(parts)


def split_name(name: str, argument: str = "table") -> list[str]:
    """Return the parts of a table's name without quotes, for example of "main.ml.`a-b`".

    Args:
        name: Name as the caller gave it.
        argument: Argument that an error names.

    Raises:
        ArgumentError: SQL cannot read the name.
    """
    parts = _NAME_PART.findall(name)
    if not parts or ".".join(parts) != name:
        raise ArgumentError(
            f"{argument} must be a name that SQL can read: got {name!r}; put backticks around each "
            "part with other characters than letters, digits and _, for example main.ml.`a-b`"
        )
    return [p[1:-1].replace("``", "`") if p.startswith("`") else p for p in parts]


def sql_name(parts: Iterable[str]) -> str:
    """Return a table's name in lower case, as catalogs compare names, quoted where needed."""
    lowered = [part.lower() for part in parts]
    return ".".join(
        part if re.fullmatch(r"[a-z_][a-z0-9_]*", part) else sql_identifier(part)
        for part in lowered
    )


def normalize_location(location: str) -> str:
    """Return one spelling of a folder: "/data/t" for "file:/data/t/", else its URI."""
    parts = urlsplit(location)
    if parts.scheme in ("", "file"):
        path = unquote(parts.path) if parts.scheme else location
        return str(Path(path).resolve())
    host = f"//{parts.netloc}" if parts.netloc else ""
    return f"{parts.scheme}:{host}{parts.path}".rstrip("/")
