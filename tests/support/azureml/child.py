"""Child processes that end with their parent, however it ends."""

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_WAIT_S = 120.0
# What would turn a client, or the MLflow server, from the stand-in to something else.
_FOREIGN = ("AZURE", "ARM_", "IDENTITY_", "IMDS_", "MSI_", "MLFLOW_", "_MLFLOW", "DATABRICKS_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def clean_environment() -> dict[str, str]:
    """Return this process's environment less what concerns Azure, MLflow and proxies."""
    return {
        name: text
        for name, text in os.environ.items()
        if not name.upper().startswith(_FOREIGN) and name.lower() not in _PROXIES
    }


def start_child(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that the kernel kills when this thread's process is gone.

    Args:
        command: Program and arguments.
        log: File for both of its streams.
        environment: All of its environment.
        folder: Its current folder.
        pass_fds: File descriptors that it keeps.
    """
    with log.open("wb") as stream:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            pass_fds=pass_fds,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    # For an orderly end, and for systems whose kernel does not do it.
    atexit.register(child.kill)
    return child


def wait_for(child: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    """Wait until `ready` says so.

    Raises:
        RuntimeError: The process ended, or took too long; the end of its log is in the message.
    """
    deadline = time.monotonic() + _WAIT_S
    while not ready():
        if child.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{child.args!r} did not start; it said: {said}")
        time.sleep(0.02)


def _die_with_parent() -> None:
    # Ctrl-C in a terminal goes to the whole group; only the parent has to hear it.
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
