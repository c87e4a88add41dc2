"""Loggers whose records hold no secret, whatever handler they reach."""

import logging

from dbx_aml._common.redact import redact
from dbx_aml._common.text import printable


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, which redacts its messages and tracebacks.

    Args:
        name: The module's `__name__`.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_redact_record)
    return logger


def _redact_record(record: logging.LogRecord) -> bool:
    # The arguments may be errors of other libraries. Formatters such as pyspark's read the error
    # itself, so the record has its text alone.
    text = record.getMessage()
    if record.exc_info:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    record.msg, record.args = redact(text), ()
    record.exc_info = record.exc_text = None
    return True


class PrintableFormatter(logging.Formatter):
    """Formats the records of every library for a terminal or a file that others read."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text without secrets and control codes."""
        return printable(super().format(record))
