"""A local Spark session with Delta, and the folder of the laptop's tables and stores.

The folder is by default `.dbx_aml` in the current folder:

    warehouse/   Delta tables, one folder each; the next job sees them by name
    mlflow.db    the MLflow store, for tracking and registry
    artifacts/   artifacts of runs and models
    spark.log    the log of Java and Spark
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbx_aml._common.environment import environment_variables
from dbx_aml._common.errors import LocalSparkError
from dbx_aml.local.delta_folder import lock_folder, move_uncommitted_folders, register_tables
from dbx_aml.local.jars import class_archive, delta_jars, kafka_jars, spark_home
from dbx_aml.local.java import find_java, start_jvm, stop_jvm

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# For short jobs: without its second compiler Java needs half the time for them. It then keeps only
# 48 MB of compiled code unless told otherwise. Spark and Delta have more, and Java would throw code
# away and compile it again. The serial collector needs a tenth less CPU where the heap is small.
SHORT_JOB_JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
_GIB = 2**30


def local_root(root: str | Path | None = None) -> Path:
    """Return the folder of everything local: the argument, else DBX_AML_LOCAL_ROOT, else .dbx_aml.

    Returns:
        An absolute path; the folder need not exist.
    """
    return Path(root or os.environ.get("DBX_AML_LOCAL_ROOT") or ".dbx_aml").absolute()


def local_mlflow_uri(root: str | Path | None = None) -> str:
    """Return the SQLite URI of the local tracking and registry store; create its folder."""
    folder = local_root(root)
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def local_artifact_uri(root: str | Path | None = None) -> str:
    """Return the artifact location to create local experiments with.

    Without an artifact location MLflow writes artifacts to `mlruns` in the current folder.
    """
    return (local_root(root) / "artifacts").as_uri()


def is_connect(spark: Any) -> bool:
    """Return whether a session is a Spark Connect session, which has no `sparkContext`."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def current_spark(*, kafka: bool = False) -> "SparkSession":
    """Return the active Spark session; without an active session, start the one that fits.

    On Databricks this is the cluster's session, with SPARK_REMOTE set a session of the server
    that the variable names, else a local session.

    Args:
        kafka: Whether a local session that is started reads and writes Kafka topics.

    Raises:
        LocalSparkError: A local session is needed and cannot start.
    """
    remote = os.environ.get("SPARK_REMOTE", "")
    on_databricks = "DATABRICKS_RUNTIME_VERSION" in os.environ
    if not on_databricks:
        spark_home()  # raises without pyspark
    from pyspark.sql import SparkSession

    active = active_session()
    if active is not None:
        return active
    if on_databricks or (remote and not remote.startswith("local")):
        return SparkSession.builder.getOrCreate()
    return local_spark(master=remote or "local[*]", connect=bool(remote), kafka=kafka)


def local_spark(
    root: str | Path | None = None,
    *,
    master: str = "local[*]",
    connect: bool = False,
    kafka: bool = False,
    conf: Mapping[str, str] | None = None,
) -> "SparkSession":
    """Return a Spark session with Delta on this machine; it knows the folder's tables by name.

    The first call on a machine finds Java and fetches Delta's jars. The catalog is in memory and
    filled from the folder, so two jobs can run at once. A job sees the tables that exist when it
    starts.

    Args:
        root: Folder for tables and logs, for example "/tmp/trial"; default as in `local_root`.
        master: For example "local[2]".
        connect: `True` for a Spark Connect session, with a new Connect server in this process.
        kafka: `True` for a session that reads and writes Kafka topics; the first such call fetches
            the jars of Spark's Kafka source.
        conf: Further Spark settings. JVM options are added to the default options; any other
            setting replaces the default.

    Returns:
        The session. A process has a single session: a second call returns the same.

    Raises:
        LocalSparkError: Java, pyspark or the jars are missing, or a session runs in another folder.
    """
    spark_home()  # raises without pyspark
    folder = local_root(root)
    active = active_session()
    if active is not None:
        warehouse = str(active.conf.get("spark.sql.warehouse.dir")).removeprefix("file:")
        if warehouse == str(folder / "warehouse"):
            return active
        raise LocalSparkError(
            f"local Spark must be stopped before it starts in another folder: got {folder} while "
            f"{Path(warehouse).parent} is in use; call spark.stop()"
        )
    settings = _settings(folder, dict(conf or {}), kafka=kafka)
    lock = lock_folder(folder)
    move_uncommitted_folders(folder, lock)
    spark = _start_session(settings, folder / "spark.log", master, connect=connect, lock=lock)
    register_tables(spark, folder)
    return spark


def archive_java_classes() -> None:
    """Archive the Java classes of a small Delta job: each later session starts about 4 s faster.

    The job writes and reads a table, which also shows that Spark and Delta work on this machine.
    The archive has 180 MB and lies in the user's cache folder.
    """
    from pyspark import SparkContext

    archive = class_archive(find_java(), delta_jars())
    if archive.exists():
        return
    draft = archive.with_name(f"{archive.name}.{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        options = f"-XX:ArchiveClassesAtExit={draft} {SHORT_JOB_JAVA_OPTIONS}"
        conf = {"spark.driver.extraJavaOptions": options}
        spark = local_spark(folder, master="local[2]", conf=conf)
        spark.range(100).write.format("delta").saveAsTable("numbers")
        spark.table("numbers").groupBy("id").count().toPandas()
        spark.stop()
        # The JVM writes the archive when it ends.
        stop_jvm(SparkContext._gateway)
    if draft.exists():
        draft.replace(archive)


def active_session() -> "SparkSession | None":
    """Return the Spark session of this process, or None."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    spark = SparkSession.getActiveSession()
    if spark is None and SparkContext._active_spark_context is not None:
        return SparkSession.builder.getOrCreate()  # "active" is per thread, the context is not
    return spark


def _settings(folder: Path, conf: dict[str, str], *, kafka: bool) -> dict[str, str]:
    java, jars = find_java(), [*delta_jars(), *(kafka_jars() if kafka else [])]
    archive = class_archive(java, jars)
    options = ["-Duser.timezone=UTC", "-Xlog:disable"]  # the JVM's own log goes to stdout
    if archive.exists():
        options.append(f'-XX:SharedArchiveFile="{archive}"')
    options.append(conf.pop("spark.driver.extraJavaOptions", ""))
    classpath = ":".join(map(str, jars))
    cores = str(os.cpu_count() or 2)
    return {
        "spark.app.name": "dbx-aml",
        "spark.driver.extraClassPath": classpath,
        "spark.executor.extraClassPath": classpath,  # executor processes of a local-cluster
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
        "spark.sql.shuffle.partitions": cores,
        "spark.databricks.delta.snapshotPartitions": "2",  # default 50: 10 s a commit
        # Default 10,000: a VACUUM of a small table takes 50 s instead of 4.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": cores,
        # Defaults of Databricks.
        "spark.sql.sources.default": "delta",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        **conf,
    }


def _driver_gib() -> int:
    """Return a quarter of the machine's memory, 1 to 4 GiB: Python workers need memory too."""
    return min(4, max(1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (4 * _GIB)))


def _start_session(
    settings: dict[str, str], log_file: Path, master: str, *, connect: bool, lock: int
) -> "SparkSession":
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if SparkContext._gateway is not None:
        # The JVM of a stopped session has the settings and the lock of that session's folder.
        stop_jvm(SparkContext._gateway)
        SparkContext._gateway = SparkContext._jvm = None
    builder = SparkSession.builder
    builder = builder.remote(master) if connect else builder.master(master)
    # Workers would start the PATH's python3. SPARK_TESTING gives the Connect server a free port,
    # so that two can run at once.
    testing = "1" if connect else os.environ.get("SPARK_TESTING")
    with environment_variables(
        PYSPARK_PYTHON=sys.executable, SPARK_TESTING=testing, SPARK_REMOTE=None, MASTER=None
    ):
        # A JVM that the builder starts logs to the terminal, and the Connect client warns about
        # each setting of the server. This JVM has the settings already.
        gateway = start_jvm(settings, log_file, inherit=[lock])
        SparkContext._ensure_initialized(gateway=gateway)
        return builder.getOrCreate()
