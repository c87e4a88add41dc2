"""Programs that are run to their end, with a deadline, and processes that still run."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dbx_aml._common.errors import ProgramError
from dbx_aml._common.redact import redact
from dbx_aml._common.text import one_line

_PIPE_TIMEOUT_S = 1.0


def is_process_running(process_id: int) -> bool:
    """Return whether a process of this id runs on this machine, also one of another user."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def run_program(
    arguments: Sequence[str],
    timeout_s: float,
    *,
    environment: Mapping[str, str] | None = None,
    input_text: str = "",
    has_own_group: bool = True,
) -> str:
    """Return what a program writes to its standard output.

    By default the program gets a new process group. At the deadline the whole group is
    killed, so that no process that it started stays behind.

    Args:
        arguments: Program and its arguments.
        timeout_s: Longest time that the program may take.
        environment: All environment variables of the program; by default this process's.
        input_text: Text for the program's standard input.
        has_own_group: Whether the program gets its own process group. Without it, a signal to the
            caller's group ends the program too, and at the deadline only the program is killed.

    Raises:
        ProgramError: The program cannot start, ended with another status than 0, or did not end
            in time. The message has the last line of its standard error, without secrets.
    """
    name = Path(arguments[0]).name
    try:
        program = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if environment is None else dict(environment),
            text=True,
            errors="replace",
            start_new_session=has_own_group,
        )
    except OSError as err:
        raise ProgramError(
            f"program must start: got {name!r}, {err.strerror}; install it, or correct the PATH"
        ) from err
    with program:
        try:
            output, stderr = program.communicate(input_text, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill(program, has_own_group)
            stderr = _rest_of_stderr(program)
            raise ProgramError(
                f"{name} must end within {timeout_s:g} s: it did not{_last_line(stderr)}; "
                "try again later",
                stderr=stderr,
            ) from None
        except BaseException:
            _kill(program, has_own_group)
            raise
    if program.returncode:
        raise ProgramError(
            f"{name} must succeed: it ended with status {program.returncode}{_last_line(stderr)}",
            exit_code=program.returncode,
            stderr=stderr,
        )
    return output


def _kill(program: subprocess.Popen[str], has_own_group: bool) -> None:
    if not has_own_group:
        program.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)


def _rest_of_stderr(program: subprocess.Popen[str]) -> str:
    """Return what a killed program has written; a process that it left may keep the pipes open."""
    try:
        return program.communicate(timeout=_PIPE_TIMEOUT_S)[1]
    except subprocess.TimeoutExpired as err:
        return (err.stderr or b"").decode(errors="replace")


def _last_line(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    return f", its last error is {one_line(redact(lines[-1]), 300)!r}" if lines else ""
