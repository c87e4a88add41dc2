"""Errors of Spark in one line."""

from __future__ import annotations

import re

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

# Errors of Spark: its own classes, or py4j's for a Java error that has no class in Python.
SPARK_ERRORS = (PySparkException, Py4JError)

_CAUSES = (
    "No space left on device",
    "Permission denied",
    "Read-only file system",
    "Not a directory",
    "ConcurrentTransactionException",
    "ConcurrentAppendException",
    "CONCURRENT_STREAM_LOG_UPDATE",
)


def spark_error_line(err: Exception) -> str:
    """Return the cause of a Spark error in one line, without the stacks of Java and Python."""
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
