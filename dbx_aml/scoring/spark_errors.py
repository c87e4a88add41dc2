"""Errors of Spark in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring.guard_process import NO_ANSWER

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


# Text in an error of Spark -> how the model ended the process that it ran in.
_PROCESS_ENDS = (
    (
        "Python worker exited unexpectedly|WORKER_EXITED_UNEXPECTEDLY",
        "which ended while the model scored, for example by os._exit, a crash of native code or "
        "too little memory",
    ),
    (
        "ExecutorLostFailure|exit code 137|Container killed|OutOfMemoryError",
        "whose executor was lost or ran out of memory",
    ),
)


def process_end_error(err: Exception) -> ScoringError | None:
    """Return the error that says how the model ended Spark's Python worker, or None."""
    text = full_text(err)
    no_answer = re.search(f"{re.escape(NO_ANSWER)}(.*)", text)
    if no_answer:
        return ScoringError(
            f"model must answer in its own environment: its Python {no_answer[1]}; predict a few "
            "rows there, or lower spark.sql.execution.arrow.maxRecordsPerBatch for less memory "
            "and time"
        )
    for pattern, process_end in _PROCESS_ENDS:
        if re.search(pattern, text):
            fatal = re.search(r"(?:Fatal Python error|Windows fatal exception): (.*)", text)
            details = f" ({fatal[1].strip()})" if fatal else ""
            return ScoringError(
                f"model must leave Spark's Python worker running: got one {process_end}{details}; "
                "predict a few rows outside Spark, or set "
                "spark.sql.execution.pyspark.udf.faulthandler.enabled to 'true' for the cause, or "
                "lower spark.sql.execution.arrow.maxRecordsPerBatch for less memory"
            )
    return None


@contextmanager
def name_process_end() -> Iterator[None]:
    """Turn an error about a worker that the model ended, or about its own process, into one line.

    Raises:
        ScoringError: The model ended the worker, or its own process gave no answer.
    """
    try:
        yield
    except (*SPARK_ERRORS, RuntimeError) as err:
        known_error = process_end_error(err)
        if known_error is None:
            raise
        raise known_error from err


def full_text(err: Exception) -> str:
    """Return the message of an error with the causes that Java has for it."""
    return f"{err}\n{getattr(err, '_stackTrace', '') or ''}"


def spark_error_line(err: Exception) -> str:
    """Return the cause of a Spark error in one line, without the stacks of Java and Python."""
    text = full_text(err)
    for cause in _CAUSES:
        if cause in text:
            return cause
    python = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception)): (.*)$", text, re.MULTILINE)
    if "Traceback (most recent call last)" in text and python:
        return ": ".join(python[-1])
    java = re.search(r"^: (?:[\w$]+\.)*([\w$]+: .*)$", str(err), re.MULTILINE)
    if "TASK_WRITE_FAILED" in text:
        # It says only that a task failed; the last cause says why.
        causes = list(re.finditer(r"^Caused by: (?:[\w$]+\.)*([\w$]+: .*)$", text, re.MULTILINE))
        java = causes[-1] if causes else java
    message = java[1] if java else str(err).partition("JVM stacktrace")[0].strip()
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    return line.partition(" SQLSTATE")[0].rstrip(". ") or type(err).__name__
