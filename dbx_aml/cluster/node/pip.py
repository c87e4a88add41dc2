"""The cluster's own pip, in a process of its own, and what it says when it fails."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable

from dbx_aml._common.errors import ClusterError

# Seconds for one call, whatever an index does; each single answer is bound by pip's own timeout.
LIMIT_S = 300
# The script waits between attempts of its own, longer than pip would.
_ALWAYS = ("--disable-pip-version-check", "--no-input", "--quiet", "--retries", "1")


def run_pip(command: str, *arguments: str, isolated: bool = False) -> None:
    """Run one of pip's commands.

    Args:
        command: For example "install".
        arguments: What follows it.
        isolated: Whether pip's variables and settings on this machine do not count.

    Raises:
        ClusterError: It failed; the message has pip's last error, without credentials. Its cause
            is the process's error.
    """
    words = [sys.executable, "-P", "-m", "pip", command, *_ALWAYS]
    # Never beside the cluster's packages in a home folder, which other users do not have.
    environment = {**os.environ, "PIP_USER": "0"}
    if isolated:
        words.append("--isolated")
    try:
        subprocess.run(
            [*words, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT_S,
        )
    except subprocess.CalledProcessError as err:
        raise ClusterError(f"pip {command} must succeed: {errors_of(err.stderr)}") from err
    except subprocess.TimeoutExpired as err:
        raise ClusterError(
            f"pip {command} must end within {LIMIT_S} s: it did not; look at the package index"
        ) from err


def errors_of(stderr: str) -> str:
    """Return the errors in what pip printed, on one line and without credentials."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = list(_after_error(lines)) or lines[-1:] or ["it said nothing"]
    text = re.sub(r"(?<=://)[^/@\s]+@", "", " ".join(errors))
    return text[:600]


def _after_error(lines: Iterable[str]) -> Iterable[str]:
    """Yield the errors, each with what pip wrote below it."""
    is_error = False
    for line in lines:
        if re.match(r"ERROR: ", line):
            is_error = True
        elif re.match(r"(WARNING|DEPRECATION|Traceback|  File)", line):
            is_error = False
        if is_error:
            yield line.removeprefix("ERROR: ")
