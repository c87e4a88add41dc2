"""Calls of uv, which resolves and installs packages for another Python than this one."""

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Sequence

from dbx_aml._common.errors import ProgramError
from dbx_aml._common.programs import run_program
from dbx_aml._common.text import install_command, one_line

# Operating system of Azure ML's images and of the oldest supported runtime; wheels for it run on
# newer ones, too.
LINUX = "x86_64-manylinux_2_28"
# Marks that uv draws in front of the lines of an error.
_MARKS = re.compile(r"^\s*(?:error:|cause:|×|├─▶|╰─▶|│)|^\s+", re.MULTILINE)


def run_uv(arguments: Sequence[str], timeout_s: float, *, input_text: str = "") -> str:
    """Return what uv writes to its standard output.

    Args:
        arguments: Arguments of uv, for example ("pip", "compile", "-").
        timeout_s: Longest time that uv may take.
        input_text: Text for uv's standard input.

    Raises:
        ProgramError: uv is not installed, failed or did not end in time.
    """
    return run_program(
        [*_uv_command(), *arguments],
        timeout_s,
        environment=index_variables(),
        input_text=input_text,
    )


def compile_requirements(
    python: str,
    arguments: Sequence[str],
    timeout_s: float,
    *,
    input_text: str,
    platform: str = LINUX,
) -> str:
    """Return the pins that meet requirements, as uv writes them; nothing is installed.

    Args:
        python: Minor version of Python, for example "3.12".
        arguments: Further arguments of `uv pip compile`, for example ("--generate-hashes",).
        timeout_s: Longest time that uv may take.
        input_text: Requirements, one a line.
        platform: Platform of the packages, as uv names it; "" for the one of this machine.

    Raises:
        ProgramError: As of `run_uv`; uv fails with exit code 1 if no set of packages fits.
    """
    command = (
        *("pip", "compile", "-", "--quiet", "--no-header", "--no-annotate"),
        *("--python-version", python),
        *(("--python-platform", platform) if platform else ()),
        # With the version and the platform given, uv needs no matching interpreter. Without one it
        # would try each interpreter of the machine.
        *("--python", sys.executable),
        *arguments,
    )
    return run_uv(command, timeout_s, input_text=input_text)


def index_variables() -> dict[str, str]:
    """Return this process's variables, with which uv asks the package index that pip asks."""
    variables = dict(os.environ)
    if "PIP_INDEX_URL" in variables:
        variables.setdefault("UV_DEFAULT_INDEX", variables["PIP_INDEX_URL"])
    return variables


def uv_error_line(error: ProgramError) -> str:
    """Return the reason that uv gives for its failure, on one line."""
    return one_line(_MARKS.sub("", error.stderr) or error, 600)


def _uv_command() -> list[str]:
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-P", "-m", "uv"]
    program = shutil.which("uv")
    if program is None:
        raise ProgramError(
            f"uv must be installed: it is not on the PATH; run: {install_command('serve')}"
        )
    return [program]
