"""The folder of local Delta tables: register them by name, and survive killed jobs.

The catalog of a local session is in memory, so that two jobs can run at once; only the folder
outlives a job. The JVM of each job holds a shared lock on the folder until it ends.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbx_aml._common.deadline import poll_until
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import sql_identifier, sql_literal

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = get_logger(__name__)

_locks: dict[Path, int] = {}


def lock_folder(folder: Path) -> int:
    """Return a descriptor that holds the folder's shared lock until the JVM has ended too."""
    if folder not in _locks:
        folder.mkdir(parents=True, exist_ok=True)
        _locks[folder] = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(_locks[folder], fcntl.LOCK_SH)
    return _locks[folder]


def move_uncommitted_folders(folder: Path, lock: int, wait_s: float = 5) -> None:
    """Move away the folders of tables whose job was killed before the first commit.

    Delta refuses to create a table in a folder with files, so the job could never be started
    again. While another job holds the folder's lock, the files may be its own and stay.

    Args:
        folder: Folder that contains `warehouse`.
        lock: Descriptor from `lock_folder`.
        wait_s: Seconds to wait until other jobs have ended.
    """
    if not _uncommitted_folders(folder):
        return
    if not poll_until(lambda: try_exclusive_lock(lock), wait_s, interval_s=0.1):
        return
    for uncommitted in _uncommitted_folders(folder):
        target = folder / "leftovers" / f"{uncommitted.name}-{time.time_ns()}"
        target.parent.mkdir(exist_ok=True)
        uncommitted.rename(target)
        log.info("moved uncommitted folder=%s to=%s", uncommitted, target)
    fcntl.flock(lock, fcntl.LOCK_SH)


def register_tables(spark: "SparkSession", folder: Path) -> list[str]:
    """Register each Delta table under `<folder>/warehouse` in the catalog; return the names.

    A table is `<table>/_delta_log` or `<schema>.db/<table>/_delta_log` with at least one commit.
    """
    names = []
    warehouse = folder / "warehouse"
    for commits in sorted([*warehouse.glob("*/_delta_log"), *warehouse.glob("*.db/*/_delta_log")]):
        table = commits.parent
        if not any(commits.glob("*.json")) and not any(commits.glob("*.parquet")):
            continue  # a job was killed before its first commit
        schema = "default" if table.parent == warehouse else table.parent.name.removesuffix(".db")
        if schema != "default":
            spark.sql(f"CREATE SCHEMA IF NOT EXISTS {sql_identifier(schema)}")
        name = f"{sql_identifier(schema)}.{sql_identifier(table.name)}"
        location = sql_literal(str(table))
        spark.sql(f"CREATE TABLE IF NOT EXISTS {name} USING delta LOCATION {location}")
        _mark_as_managed(schema, table.name)
        names.append(f"{schema}.{table.name}")
    return names


def try_exclusive_lock(lock: int) -> bool:
    """Turn the shared lock into an exclusive one; `False` if another job holds the lock too."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # A failed change from shared to exclusive may have dropped the lock: lock again.
        fcntl.flock(lock, fcntl.LOCK_SH)
        return False
    return True


def _uncommitted_folders(folder: Path) -> list[Path]:
    warehouse = folder / "warehouse"
    tables = [path for path in warehouse.glob("*") if path.suffix != ".db"]
    tables += warehouse.glob("*.db/*")
    # _SUCCESS: a finished table of another format.
    return [
        path
        for path in tables
        if path.is_dir()
        and not any((path / name).exists() for name in ("_SUCCESS", "_delta_log"))
        and any(path.rglob("*.parquet*"))
    ]


def _mark_as_managed(schema: str, table: str) -> None:
    """Mark a registered table as managed, so that DROP TABLE removes its files.

    SQL can only register existing files as an external table, whose files DROP TABLE keeps.
    """
    from pyspark import SparkContext

    jvm: Any = SparkContext._jvm
    spark = jvm.org.apache.spark.sql.classic.SparkSession.getDefaultSession().get()
    catalog = spark.sharedState().externalCatalog()
    entry = catalog.getTable(schema, table)
    fields = {
        name: entry.productElement(index)
        for index, name in enumerate(entry.productElementNames().mkString(",").split(","))
    }
    table_types = getattr(jvm, "org.apache.spark.sql.catalyst.catalog.CatalogTableType$")
    fields["tableType"] = getattr(table_types, "MODULE$").MANAGED()
    catalog.alterTable(entry.copy(*fields.values()))
