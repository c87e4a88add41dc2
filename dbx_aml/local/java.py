"""The Java side of a local Spark session: which Java, Delta's jars, starting the JVM.

Three things make the usual `spark.jars.packages` unpleasant on a laptop, and are solved here: Ivy
resolves at every start (2 s, or a failure when offline), every JVM loads 20,000 classes from
scratch (5 s on 2 cores, most of it saved by an archive of them), and its stderr fills the terminal.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.errors import LocalSparkError

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway

log = logging.getLogger(__name__)

# Spark 4 needs 17; Hadoop 3.4 calls Subject.getSubject, which Java 24 took away.
JAVA_RELEASES = range(17, 24)

_JAVA_FOLDERS = ("/usr/lib/jvm/*", "/Library/Java/JavaVirtualMachines/*/Contents/Home")

# Spark routes this API to its own log through jcl-over-slf4j; the jar would win over that.
_UNWANTED_JARS = {"commons-logging"}

# What Java says after the reason.
_NO_REASON = ("Error: Could not create the Java Virtual Machine", "Error: A fatal exception")


def find_java() -> Path:
    """Return the home of a Java that runs Spark: JAVA_HOME, the PATH's, else the oldest installed.

    Raises:
        LocalSparkError: No Java 17 to 23 with the vector module, which Spark 4 loads, was found.
    """
    candidates = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path).resolve().parents[1])
    installed = [home for pattern in _JAVA_FOLDERS for home in Path("/").glob(pattern[1:])]
    candidates += sorted(installed, key=_java_release)
    for home in candidates:
        if _java_release(home) in JAVA_RELEASES and (home / "bin" / "java").exists():
            return home
    got = ", ".join(sorted({str(home) for home in candidates if _java_release(home)})) or "none"
    raise LocalSparkError(
        f"Java for local Spark must be release {JAVA_RELEASES[0]} to {JAVA_RELEASES[-1]}: got {got}"
        "; run 'sudo apt-get install openjdk-17-jre-headless' or set JAVA_HOME"
    )


def _java_release(home: Path) -> int:
    """Return the release of a Java home, 0 if it is none or lacks the vector module."""
    try:
        text = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    found = re.search(r'^JAVA_VERSION="?(\d+)', text, re.MULTILINE)
    modules = re.search(r'^MODULES="(.*)"', text, re.MULTILINE)
    if modules and "jdk.incubator.vector" not in modules[1].split():
        return 0
    return int(found[1]) if found else 0


def delta_jars(*, fetch: bool = True) -> list[Path]:
    """Return Delta's jars for the installed pyspark; the first call fetches them through Ivy.

    Args:
        fetch: `False` to raise instead of using the network.

    Returns:
        Absolute paths, without the jars that pyspark itself brings.

    Raises:
        LocalSparkError: pyspark or delta-spark is not installed, or the jars cannot be fetched.
    """
    try:
        spark, delta = version("pyspark"), version("delta-spark")
    except PackageNotFoundError as err:
        raise LocalSparkError(
            f"local Spark must have pyspark and delta-spark: got no {err.name}; "
            "run: pip install 'dbx-aml[local]'"
        ) from err
    minor = ".".join(spark.split(".")[:2])
    coordinate = f"io.delta:delta-spark_{minor}_2.13:{delta}"
    listing = cache_folder() / f"{coordinate.replace(':', '-')}-pyspark-{spark}.txt"
    if listing.exists():
        jars = [Path(line) for line in listing.read_text(encoding="utf-8").splitlines()]
        if jars and all(jar.exists() for jar in jars):
            return jars
    if not fetch:
        raise LocalSparkError(f"Delta's jars must be here: got no {coordinate}; run 'make setup'")
    log.warning("fetching Delta's jars, once: %s", coordinate)
    jars = _fetch(coordinate, listing.with_suffix(".log"))
    write_whole(listing, "".join(f"{jar}\n" for jar in jars))
    return jars


def _fetch(coordinate: str, log_file: Path) -> list[Path]:
    gateway = launch({"spark.jars.packages": coordinate}, log_file)
    try:
        fetched = str(gateway.jvm.System.getProperty("spark.jars") or "")
    finally:
        stop(gateway)
    brought = [jar.name for jar in (spark_home() / "jars").iterdir()]
    return _missing_jars([Path(uri.removeprefix("file:")) for uri in fetched.split(",")], brought)


def _missing_jars(fetched: Sequence[Path], brought: Sequence[str]) -> list[Path]:
    """Return the fetched jars that Spark does not bring itself: its class path has ours first.

    Ivy names a jar <organisation>_<artifact>-<revision>.jar, Spark <artifact>-<revision>.jar.
    """
    unwanted = {_artifact(jar) for jar in brought} | _UNWANTED_JARS
    return [jar for jar in fetched if _artifact(jar.name.split("_", 1)[-1]) not in unwanted]


def _artifact(jar: str) -> str:
    return re.sub(r"-\d.*$", "", jar.removesuffix(".jar"))


def class_archive(java: Path, jars: Sequence[Path]) -> Path:
    """Return where the archive of loaded classes is kept for exactly this Java and these jars."""
    parts = [str(java), (java / "release").read_text(), str(spark_home()), version("pyspark")]
    key = hashlib.sha256("\n".join([*parts, *map(str, jars)]).encode()).hexdigest()
    return cache_folder() / f"spark-classes-{key[:12]}.jsa"


def launch(
    conf: Mapping[str, str], log_file: Path, *, inherit: Sequence[int] = ()
) -> "JavaGateway":
    """Start a JVM with Spark's classes; everything it and its workers print goes to `log_file`.

    Args:
        conf: Spark settings; those that shape the JVM itself count only here.
        log_file: Appended to, so that two jobs can share it.
        inherit: File descriptors that the JVM keeps open until it ends.

    Raises:
        LocalSparkError: No Java, or the JVM ended at once.
    """
    from pyspark import SparkConf
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    log_file.parent.mkdir(parents=True, exist_ok=True)
    settings = SparkConf(loadDefaults=False).setAll(list(conf.items()))
    # Started for a Connect server too, so it must not take itself for a Connect client.
    with environment(JAVA_HOME=str(find_java()), SPARK_REMOTE=None), log_file.open("ab") as sink:
        start = sink.tell()
        options = {"stdout": sink, "stderr": sink, "pass_fds": tuple(inherit)}
        try:
            return launch_gateway(settings, options)
        except PySparkRuntimeError as err:
            said = log_file.read_bytes()[start:].decode(errors="replace")
            raise LocalSparkError(
                f"Java must start for local Spark: got {_reason(said)!r}; read {log_file}"
            ) from err


def _reason(said: str) -> str:
    """Return the line that names the error, and the one after it unless that is a stack's."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_NO_REASON)] or lines
    for index, line in enumerate(lines):
        if "rror" in line or "xception" in line:
            after = [line for line in lines[index + 1 : index + 2] if not line.startswith("at ")]
            return ": ".join([line, *after])
    return lines[-1] if lines else "no word from it"


def stop(gateway: "JavaGateway") -> None:
    """End a JVM and wait for it: it ends when its standard input does."""
    gateway.shutdown()
    if gateway.proc is not None:
        gateway.proc.stdin.close()
        gateway.proc.wait()


def spark_home() -> Path:
    """Return the folder of the installed pyspark, without importing it."""
    if chosen := os.environ.get("SPARK_HOME"):
        return Path(chosen)
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise LocalSparkError(
            "local Spark must have pyspark: got none; run: pip install 'dbx-aml[local]'"
        )
    return Path(spec.origin).parent


def cache_folder() -> Path:
    """Return the user's cache folder for what can always be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dbx-aml"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Set environment variables (`None` takes one away) and put the old ones back."""
    before = {name: os.environ.get(name) for name in values}
    _apply(values)
    try:
        yield
    finally:
        _apply(before)


def _apply(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
