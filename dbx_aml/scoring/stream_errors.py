"""Errors of a stream over a Delta table in one line, with the way out."""

from __future__ import annotations

import re

from dbx_aml._common import errors
from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring.request import ScoringRequest
from dbx_aml.scoring.spark_errors import spark_error_line


def stream_error(err: Exception, request: ScoringRequest) -> ScoringError:
    """Return a `ScoringError` for the error of a stream, with the text of the callback's error."""
    text = str(err)
    callback_errors = re.findall(r"dbx_aml\._common\.errors\.(\w+): (.*)", text)
    if callback_errors:
        name, message = callback_errors[-1]
        error_class = getattr(errors, name, ScoringError)
        if issubclass(error_class, ScoringError):
            return error_class(message)
    cause = spark_error_line(err)
    if "CONCURRENT" in text or "Concurrent" in cause:
        return ScoringError(
            f"checkpoint_location must be used by one job at a time: got "
            f"{request.checkpoint!r}, which another job is using; wait for it to end"
        )
    if "DELTA_SOURCE_TABLE_IGNORE_CHANGES" in text or "DELTA_SOURCE_IGNORE_DELETE" in text:
        return ScoringError(
            f"input table must only be appended to for write_mode 'incremental': got "
            f"{request.input_table.name!r}, where rows were changed or deleted; use write_mode "
            "'merge', or a new checkpoint_location and output_table"
        )
    return ScoringError(f"stream must run to its end: got {request.input_table.name!r}; {cause}")
