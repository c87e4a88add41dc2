"""Run the pip of the cluster's Python, and report its errors."""

import os
import re
import sys
from collections.abc import Iterable

from dbx_aml._common.errors import ClusterError, ProgramError
from dbx_aml._common.programs import run_program
from dbx_aml._common.redact import redact

TIMEOUT_S = 300
_OPTIONS = ("--disable-pip-version-check", "--no-input", "--quiet", "--isolated")


def run_pip(command: str, *arguments: str) -> None:
    """Run a command of pip, without its variables and configuration files.

    Args:
        command: Name of the command, for example "install".
        arguments: Arguments of the command.

    Raises:
        ClusterError: pip failed or did not end in time. The message has pip's errors without
            credentials.
    """
    # Never in the home folder of root, which other users do not have on their path.
    environment = {**os.environ, "PIP_USER": "0"}
    try:
        run_program(
            [sys.executable, "-P", "-m", "pip", command, *_OPTIONS, *arguments],
            TIMEOUT_S,
            environment=environment,
            # When a cluster ends the init script, pip has to end with it.
            has_own_group=False,
        )
    except ProgramError as err:
        if err.exit_code is None:
            raise ClusterError(
                f"pip {command} must end within {TIMEOUT_S} s: it did not; "
                "look at the load and the disk of the node"
            ) from err
        raise ClusterError(f"pip {command} must succeed: {pip_errors(err.stderr)}") from err


def pip_errors(stderr: str) -> str:
    """Return the errors in pip's output, on one line and without credentials."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = list(_error_lines(lines)) or lines[-1:] or ["no output"]
    return redact(" ".join(errors))[:600]


def _error_lines(lines: Iterable[str]) -> Iterable[str]:
    """Yield each error with its continuation lines."""
    is_error = False
    for line in lines:
        if re.match(r"ERROR: ", line):
            is_error = True
        elif re.match(r"(WARNING|DEPRECATION|Traceback|  File)", line):
            is_error = False
        if is_error:
            yield line.removeprefix("ERROR: ")
