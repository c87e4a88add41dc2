"""The log of a scoring server: the reason of a failure in it."""

import re
from itertools import pairwise, takewhile

from dbx_aml._common.text import one_line

_EXCEPTION = re.compile(r"(?!azureml_inference_server_http\.)[A-Za-z_][\w.]*(?:: .*)?")
_MAX_REASON = 360
_SHOWN_LINES = 3


def find_reason(log: str) -> str:
    """Return the last exception in a log that the scoring server did not raise, on one line."""
    lines = log.splitlines()
    # An exception follows the indented lines of its traceback, and may have several lines.
    starts = [
        number
        for number, (previous_line, line) in enumerate(pairwise(lines), start=1)
        if previous_line.startswith("  ") and _EXCEPTION.fullmatch(line)
    ]
    if not starts:
        return ""
    message = one_line(" ".join(takewhile(str.strip, lines[starts[-1] :])))
    if len(message) <= _MAX_REASON:
        return message
    # MLflow shows the rows first, and then what is wrong with them.
    return f"{message[: _MAX_REASON // 3]} ... {message[-_MAX_REASON * 2 // 3 :]}"


def reason_or_last_lines(log: str) -> str:
    """Return the reason of a failure in a log, else the last lines of the log."""
    lines = [line for line in log.splitlines() if line.strip()]
    return find_reason(log) or one_line(" ".join(lines[-_SHOWN_LINES:]), 300)
