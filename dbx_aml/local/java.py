"""Find a Java that runs Spark, and start and stop its JVM.

Left to pyspark, the JVM's log fills the terminal. `start_jvm` writes the log to a file and reports
a JVM that cannot start as one line.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.environment import environment_variables
from dbx_aml._common.errors import LocalSparkError

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway

# Spark 4 needs 17; Hadoop 3.4 calls Subject.getSubject, which Java 24 removed.
JAVA_RELEASES = range(17, 24)

_JAVA_FOLDERS = ("/usr/lib/jvm/*", "/Library/Java/JavaVirtualMachines/*/Contents/Home")

# Java prints these lines after the line with the reason.
_GENERAL_ERRORS = ("Error: Could not create the Java Virtual Machine", "Error: A fatal exception")


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
    unfit = ", ".join(sorted({str(home) for home in candidates if _java_release(home)})) or "none"
    raise LocalSparkError(
        f"Java for local Spark must be release {JAVA_RELEASES[0]} to {JAVA_RELEASES[-1]}: "
        f"got {unfit}; run 'sudo apt-get install openjdk-17-jre-headless' or set JAVA_HOME"
    )


def _java_release(home: Path) -> int:
    """Return the release of a Java home; 0 for another folder, or without the vector module."""
    try:
        text = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    java_version = re.search(r'^JAVA_VERSION="?(\d+)', text, re.MULTILINE)
    modules = re.search(r'^MODULES="(.*)"', text, re.MULTILINE)
    if modules and "jdk.incubator.vector" not in modules[1].split():
        return 0
    return int(java_version[1]) if java_version else 0


def start_jvm(
    conf: Mapping[str, str], log_file: Path, *, inherit: Sequence[int] = ()
) -> "JavaGateway":
    """Start a JVM with Spark's classes; the JVM and its Python workers log to `log_file`.

    Args:
        conf: Spark settings. Settings of the JVM, for example its memory, have an effect only here.
        log_file: File to append to, so that two jobs can share it.
        inherit: File descriptors that the JVM keeps open until it ends.

    Raises:
        LocalSparkError: No fit Java is installed, or the JVM ended at once.
    """
    from pyspark import SparkConf
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    log_file.parent.mkdir(parents=True, exist_ok=True)
    settings = SparkConf(loadDefaults=False).setAll(list(conf.items()))
    # A Connect server is started here too. With SPARK_REMOTE it would take itself for a client.
    variables = environment_variables(JAVA_HOME=str(find_java()), SPARK_REMOTE=None)
    with variables, log_file.open("ab") as log:
        log_start = log.tell()
        options = {"stdout": log, "stderr": log, "pass_fds": tuple(inherit)}
        try:
            return launch_gateway(settings, options)
        except PySparkRuntimeError as err:
            jvm_output = log_file.read_bytes()[log_start:].decode(errors="replace")
            raise LocalSparkError(
                f"Java must start for local Spark: got {_java_error(jvm_output)!r}; read {log_file}"
            ) from err


def _java_error(jvm_output: str) -> str:
    """Return the line that names the error, with the next line unless a stack trace begins."""
    lines = [line.strip() for line in jvm_output.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_GENERAL_ERRORS)] or lines
    for index, line in enumerate(lines):
        if "rror" in line or "xception" in line:
            details = [line for line in lines[index + 1 : index + 2] if not line.startswith("at ")]
            return ": ".join([line, *details])
    return lines[-1] if lines else "no output"


def stop_jvm(gateway: "JavaGateway") -> None:
    """End a JVM and wait for its exit: the JVM ends when its standard input is closed."""
    gateway.shutdown()
    if gateway.proc is not None:
        gateway.proc.stdin.close()
        gateway.proc.wait()
