"""A local Spark session with Delta, and where the laptop's tables and stores live.

Everything is under one folder, by default `.dbx_aml` where the job was started:

    warehouse/   Delta tables, one folder each; a second job sees them by name
    mlflow.db    the MLflow store, tracking and registry
    artifacts/   what runs and models consist of
    spark.log    what Java has to say
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.errors import LocalSparkError
from dbx_aml.local.delta_folder import hold_folder, register_tables, set_aside_leftovers
from dbx_aml.local.java import (
    class_archive,
    delta_jars,
    environment,
    find_java,
    launch,
    spark_home,
    stop,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_GIB = 2**30


def local_root(root: str | Path | None = None) -> Path:
    """Return the folder of everything local: the argument, else DBX_AML_LOCAL_ROOT, else .dbx_aml.

    Args:
        root: For example "/tmp/trial".

    Returns:
        An absolute path; the folder need not exist.
    """
    return Path(root or os.environ.get("DBX_AML_LOCAL_ROOT") or ".dbx_aml").absolute()


def local_mlflow_uri(root: str | Path | None = None) -> str:
    """Return the SQLite URI that serves as tracking and as registry URI; makes its folder."""
    folder = local_root(root)
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def local_artifact_uri(root: str | Path | None = None) -> str:
    """Return the artifact location to create local experiments with.

    Without one MLflow puts artifacts into `mlruns` of whatever folder the job was started in.
    """
    return (local_root(root) / "artifacts").as_uri()


def session() -> "SparkSession":
    """Return the Spark session of wherever this runs.

    The active session if there is one; on Databricks the cluster's; the server that SPARK_REMOTE
    names; else a local one.

    Raises:
        LocalSparkError: A local session is needed and cannot start.
    """
    remote = os.environ.get("SPARK_REMOTE", "")
    on_databricks = "DATABRICKS_RUNTIME_VERSION" in os.environ
    if not on_databricks:
        _require_pyspark()
    from pyspark.sql import SparkSession

    active = _active()
    if active is not None:
        return active
    if on_databricks or (remote and not remote.startswith("local")):
        return SparkSession.builder.getOrCreate()
    return local_spark(master=remote or "local[*]", connect=bool(remote))


def local_spark(
    root: str | Path | None = None,
    *,
    master: str = "local[*]",
    connect: bool = False,
    conf: Mapping[str, str] | None = None,
) -> "SparkSession":
    """Return a Spark session with Delta on this machine; tables made earlier are there by name.

    Java is found, Delta's jars are fetched the first time, the catalog is in memory and filled
    from the folder, so two jobs can run at once; each sees the other's new tables when it starts.

    Args:
        root: Folder of everything, for example "/tmp/trial"; as `local_root` says.
        master: For example "local[2]".
        connect: `True` for a Spark Connect session with a server of its own.
        conf: Further Spark settings; JVM options are added, others replace the ones here.

    Returns:
        The session. A process has one: a second call returns it.

    Raises:
        LocalSparkError: No Java, no pyspark, no jars, or a session with another folder runs.
    """
    _require_pyspark()
    folder = local_root(root)
    running = _active()
    if running is not None:
        warehouse = str(running.conf.get("spark.sql.warehouse.dir")).removeprefix("file:")
        if warehouse == str(folder / "warehouse"):
            return running
        raise LocalSparkError(
            f"local Spark must be stopped before it starts in another folder: got {folder} while "
            f"{Path(warehouse).parent} is in use; call spark.stop()"
        )
    settings = _settings(folder, dict(conf or {}))
    lock = hold_folder(folder)
    set_aside_leftovers(folder, lock)
    spark = _start(settings, folder / "spark.log", master, connect=connect, lock=lock)
    register_tables(spark, folder)
    return spark


def warm_up() -> None:
    """Show that Spark and Delta work here, and make each later start about 4 s faster.

    Writes and reads a table, then archives the classes which that took (180 MB, in the cache).
    """
    from pyspark import SparkContext

    archive = class_archive(find_java(), delta_jars())
    if archive.exists():
        return
    draft = archive.with_name(f"{archive.name}.{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        options = f"-XX:ArchiveClassesAtExit={draft} -XX:TieredStopAtLevel=1"
        conf = {"spark.driver.extraJavaOptions": options}
        spark = local_spark(folder, master="local[2]", conf=conf)
        spark.range(100).write.format("delta").saveAsTable("warm_up")
        spark.table("warm_up").groupBy("id").count().toPandas()
        spark.stop()
        # The JVM writes the archive when it ends.
        stop(SparkContext._gateway)
    if draft.exists():
        draft.replace(archive)


def _require_pyspark() -> None:
    spark_home()


def _active() -> "SparkSession | None":
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    spark = SparkSession.getActiveSession()
    if spark is None and SparkContext._active_spark_context is not None:
        return SparkSession.builder.getOrCreate()  # "active" is per thread, the context is not
    return spark


def _settings(folder: Path, extra: dict[str, str]) -> dict[str, str]:
    java, jars = find_java(), delta_jars()
    archive = class_archive(java, jars)
    options = ["-Duser.timezone=UTC", "-Xlog:disable"]  # the JVM's own log goes to stdout
    if archive.exists():
        options.append(f'-XX:SharedArchiveFile="{archive}"')
    options.append(extra.pop("spark.driver.extraJavaOptions", ""))
    classpath = ":".join(map(str, jars))
    return {
        "spark.app.name": "dbx-aml",
        "spark.driver.extraClassPath": classpath,
        "spark.executor.extraClassPath": classpath,  # local-cluster starts executors of its own
        "spark.driver.extraJavaOptions": " ".join(filter(None, options)),
        "spark.driver.memory": f"{_driver_gib()}g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(os.cpu_count() or 2),
        "spark.databricks.delta.snapshotPartitions": "2",  # default 50: 10 s a commit
        # As on Databricks.
        "spark.sql.sources.default": "delta",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        **extra,
    }


def _driver_gib() -> int:
    """Return a quarter of the machine's memory, 1 to 4 GiB: Python workers need theirs too."""
    return min(4, max(1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (4 * _GIB)))


def _start(
    settings: dict[str, str], log_file: Path, master: str, *, connect: bool, lock: int
) -> "SparkSession":
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if SparkContext._gateway is not None:
        # Left by a stopped session: its settings, and its lock, are those of another folder.
        stop(SparkContext._gateway)
        SparkContext._gateway = SparkContext._jvm = None
    builder = SparkSession.builder
    builder = builder.remote(master) if connect else builder.master(master)
    # Workers would start the PATH's python3. SPARK_TESTING gives the Connect server a free port,
    # so that two can run at once.
    testing = "1" if connect else os.environ.get("SPARK_TESTING")
    with environment(
        PYSPARK_PYTHON=sys.executable, SPARK_TESTING=testing, SPARK_REMOTE=None, MASTER=None
    ):
        # Left to the builder, the JVM's log would be the terminal, and the Connect client would
        # warn about each setting that is the server's. Launched here, the JVM has them already.
        SparkContext._ensure_initialized(gateway=launch(settings, log_file, inherit=[lock]))
        return builder.getOrCreate()
