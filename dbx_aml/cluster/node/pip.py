"""Run the pip of the cluster's Python, and report its errors."""

import os
import re
import sys
from collections.abc import Iterable

from dbx_aml._common.errors import ClusterError, ProgramError
from dbx_aml._common.programs import run_program
from dbx_aml._common.redact import redact

# For one command in all; pip's own timeout bounds each answer of the index.
TIMEOUT_S = 300
# Few retries, because the init script itself repeats a failed attempt after a longer wait.
_OPTIONS = ("--disable-pip-version-check", "--no-input", "--quiet", "--retries", "1")


def run_pip(command: str, *arguments: str, is_isolated: bool = False) -> None:
    """Run a command of pip.

    Args:
        command: Name of the command, for example "install".
        arguments: Arguments of the command.
        is_isolated: Whether pip ignores its variables and configuration files.

    Raises:
        ClusterError: pip failed or did not end in time. The message has pip's errors without
            credentials; the cause is a `ProgramError`.
    """
    options = (*_OPTIONS, "--isolated") if is_isolated else _OPTIONS
    # Never in the home folder of root, which other users do not have on their path.
    environment = {**os.environ, "PIP_USER": "0"}
    try:
        run_program(
            [sys.executable, "-P", "-m", "pip", command, *options, *arguments],
            TIMEOUT_S,
            environment=environment,
            # When a cluster ends the init script, pip has to end with it.
            has_own_group=False,
        )
    except ProgramError as err:
        if err.exit_code is None:
            raise ClusterError(
                f"pip {command} must end within {TIMEOUT_S} s: it did not; "
                "compare the settings of the package index"
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
