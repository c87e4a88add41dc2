"""The folder of local Delta tables: names for what is there, and no harm from killed jobs.

The catalog of a local session is in memory, so that two jobs can run at once; the folder is what
stays. A shared lock on it, held by a job's JVM until that ends, says that its files are in use.
"""

import fcntl
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

_locks: dict[Path, int] = {}


def hold_folder(folder: Path) -> int:
    """Return a descriptor that holds the folder's shared lock until the JVM has ended too."""
    if folder not in _locks:
        folder.mkdir(parents=True, exist_ok=True)
        _locks[folder] = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(_locks[folder], fcntl.LOCK_SH)
    return _locks[folder]


def set_aside_leftovers(folder: Path, lock: int, wait_s: float = 5) -> None:
    """Move away what a killed job left of a table without a commit, unless another job runs.

    Delta refuses to create a table where files are, so the job could never be started again.
    """
    if not _leftovers(folder):
        return
    deadline = time.monotonic() + wait_s
    while not locked_alone(lock):
        if time.monotonic() > deadline:
            return  # another job runs here, and the files may be its own
        time.sleep(0.1)
    for leftover in _leftovers(folder):
        target = folder / "leftovers" / f"{leftover.name}-{time.time_ns()}"
        target.parent.mkdir(exist_ok=True)
        leftover.rename(target)
        log.info("set aside folder=%s to=%s", leftover, target)
    fcntl.flock(lock, fcntl.LOCK_SH)


def register_tables(spark: "SparkSession", folder: Path) -> list[str]:
    """Give each Delta table under `<folder>/warehouse` its name again; return the names.

    A table is `<table>/_delta_log` or `<schema>.db/<table>/_delta_log` with at least one commit.
    """
    names = []
    warehouse = folder / "warehouse"
    for commits in sorted([*warehouse.glob("*/_delta_log"), *warehouse.glob("*.db/*/_delta_log")]):
        table = commits.parent
        if not any(commits.glob("*.json")) and not any(commits.glob("*.parquet")):
            continue  # a job died before its first commit: no table yet
        schema = "default" if table.parent == warehouse else table.parent.name.removesuffix(".db")
        if schema != "default":
            spark.sql(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
        name = f"{_quoted(schema)}.{_quoted(table.name)}"
        location = str(table).replace("\\", "\\\\").replace("'", "\\'")
        spark.sql(f"CREATE TABLE IF NOT EXISTS {name} USING delta LOCATION '{location}'")
        _own(schema, table.name)
        names.append(f"{schema}.{table.name}")
    return names


def locked_alone(lock: int) -> bool:
    """Turn the shared lock into an exclusive one; `False` if another job holds it too."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # A failed change of kind may have dropped the lock: take it again.
        fcntl.flock(lock, fcntl.LOCK_SH)
        return False
    return True


def _leftovers(folder: Path) -> list[Path]:
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


def _own(schema: str, table: str) -> None:
    """Mark a registered table as managed, so that DROP TABLE removes its files as it would have.

    SQL has no words for that, and no way to register files as a managed table.
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
    kinds = getattr(jvm, "org.apache.spark.sql.catalyst.catalog.CatalogTableType$")
    fields["tableType"] = getattr(kinds, "MODULE$").MANAGED()
    catalog.alterTable(entry.copy(*fields.values()))


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
