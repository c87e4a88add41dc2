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
    # The arguments may be errors of other libraries.
    record.msg, record.args = redact(record.getMessage()), ()
    if record.exc_info and not record.exc_text:
        # A formatter takes this text instead of formatting the error.
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
    return True


class PrintableFormatter(logging.Formatter):
    """Formats the records of every library for a terminal or a file that others read."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text without secrets and control codes."""
        return printable(super().format(record))
