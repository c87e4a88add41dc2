"""Delta's and Kafka's jars for the installed pyspark, and the archive of Spark's loaded classes.

With `spark.jars.packages` Ivy resolves the jars at every start: 2 s, or a failure when offline.
Here Ivy runs once. A JVM also needs 5 s on 2 cores to load Spark's 20,000 classes; an archive of
the loaded classes saves 4 of them.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from dbx_aml._common.errors import LocalSparkError
from dbx_aml._common.log import get_logger
from dbx_aml._common.paths import write_atomically
from dbx_aml._common.text import install_command
from dbx_aml.local.java import start_jvm, stop_jvm

log = get_logger(__name__)

# Spark sends this logging API to its own log through jcl-over-slf4j; the jar would undo that.
_UNWANTED_JARS = {"commons-logging"}
_KAFKA_SOURCE = "org.apache.spark:spark-sql-kafka-0-10"
# From this release on Delta has a jar for each minor release of Spark.
_FIRST_DELTA_BY_SPARK = (4, 1)


def delta_jars(*, fetch: bool = True) -> list[Path]:
    """Return Delta's jars for the installed pyspark; the first call fetches them through Ivy.

    Args:
        fetch: `False` to raise instead of using the network.

    Returns:
        Absolute paths, without the jars that pyspark contains.

    Raises:
        LocalSparkError: pyspark or delta-spark is not installed, or the jars cannot be fetched.
    """
    try:
        spark, delta = version("pyspark"), version("delta-spark")
    except PackageNotFoundError as err:
        raise LocalSparkError(
            f"local Spark must have pyspark and delta-spark: got no {err.name}; "
            f"run: {install_command('local')}"
        ) from err
    artifact = "delta-spark"
    if tuple(map(int, delta.split(".")[:2])) >= _FIRST_DELTA_BY_SPARK:
        artifact += "_" + ".".join(spark.split(".")[:2])
    return jars_of(f"io.delta:{artifact}_{_scala_version()}:{delta}", fetch=fetch)


def kafka_jars() -> list[Path]:
    """Return the jars of Spark's Kafka source; the first call fetches them through Ivy.

    A repository may lack the newest patch of this part of Spark: then it is the newest patch
    before it, with the minor version of the installed pyspark.

    Returns:
        Absolute paths, without the jars that pyspark contains.

    Raises:
        LocalSparkError: pyspark is not installed, or the jars cannot be fetched.
    """
    artifact = f"{_KAFKA_SOURCE}_{_scala_version()}"  # raises without pyspark
    major, minor, patch = version("pyspark").split(".")[:3]
    coordinates = [f"{artifact}:{major}.{minor}.{n}" for n in range(int(patch), -1, -1)]
    for coordinate, fetch in [(c, fetch) for fetch in (False, True) for c in coordinates]:
        try:
            return jars_of(coordinate, fetch=fetch)
        except LocalSparkError as err:
            last_error = err
    raise last_error


def jars_of(coordinate: str, *, fetch: bool = True) -> list[Path]:
    """Return the jars of a Maven coordinate that the installed pyspark lacks.

    Args:
        coordinate: For example "org.apache.kafka:kafka_2.13:4.1.1".
        fetch: `False` to raise instead of using the network.
    """
    spark = version("pyspark")
    listing = cache_folder() / f"{coordinate.replace(':', '-')}-pyspark-{spark}.txt"
    if listing.exists():
        jars = [Path(line) for line in listing.read_text(encoding="utf-8").splitlines()]
        if jars and all(jar.exists() for jar in jars):
            return jars
    if not fetch:
        raise LocalSparkError(
            f"jars must be on this machine: got no {coordinate}; run 'make setup'"
        )
    log.warning("fetching jars, once: %s", coordinate)
    jars = _fetch_jars(coordinate, listing.with_suffix(".log"))
    write_atomically(listing, "".join(f"{jar}\n" for jar in jars))
    return jars


def _fetch_jars(coordinate: str, log_file: Path) -> list[Path]:
    gateway = start_jvm({"spark.jars.packages": coordinate}, log_file)
    try:
        fetched = str(gateway.jvm.System.getProperty("spark.jars") or "")
    finally:
        stop_jvm(gateway)
    spark_jars = [jar.name for jar in (spark_home() / "jars").iterdir()]
    return _missing_jars(
        [Path(uri.removeprefix("file:")) for uri in fetched.split(",")], spark_jars
    )


def _missing_jars(fetched: Sequence[Path], spark_jars: Sequence[str]) -> list[Path]:
    """Return the fetched jars that Spark lacks: the class path loads fetched jars before Spark's.

    Ivy names a jar <organisation>_<artifact>-<revision>.jar, Spark <artifact>-<revision>.jar.
    """
    unwanted = {_artifact(jar) for jar in spark_jars} | _UNWANTED_JARS
    return [jar for jar in fetched if _artifact(jar.name.split("_", 1)[-1]) not in unwanted]


def _scala_version() -> str:
    """Return the version of Scala that the installed pyspark is built for, for example "2.13"."""
    (jar,) = (spark_home() / "jars").glob("spark-core_*.jar")
    return jar.name.split("-")[1].removeprefix("core_")


def _artifact(jar: str) -> str:
    return re.sub(r"-\d.*$", "", jar.removesuffix(".jar"))


def class_archive(java: Path, jars: Sequence[Path]) -> Path:
    """Return the file for the archive of loaded classes of exactly this Java and these jars."""
    release = (java / "release").read_text()
    key = "\n".join([str(java), release, str(spark_home()), version("pyspark"), *map(str, jars)])
    return cache_folder() / f"spark-classes-{hashlib.sha256(key.encode()).hexdigest()[:12]}.jsa"


def spark_home() -> Path:
    """Return SPARK_HOME, or the folder of the installed pyspark, without importing it.

    Raises:
        LocalSparkError: pyspark is not installed, or SPARK_HOME has another minor version of Spark.
    """
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise LocalSparkError(
            f"local Spark must have pyspark: got none; run: {install_command('local')}"
        )
    if folder := os.environ.get("SPARK_HOME"):
        minor = ".".join(version("pyspark").split(".")[:2])
        if not any(Path(folder, "jars").glob(f"spark-core_*-{minor}.*.jar")):
            raise LocalSparkError(
                f"SPARK_HOME must be a folder of Spark {minor}, as the installed pyspark: got "
                f"{folder!r}; unset SPARK_HOME"
            )
        return Path(folder)
    return Path(spec.origin).parent


def cache_folder() -> Path:
    """Return the user's cache folder, for files that can be downloaded or computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dbx-aml"
