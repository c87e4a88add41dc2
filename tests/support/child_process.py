"""Child processes that end with their parent, however the parent ends."""

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
_START_TIMEOUT_S = 120.0
# Variables that would lead a client, or the MLflow server, to a real service.
_CLOUD_VARIABLES = ("AZURE", "ARM_", "IDENTITY_", "IMDS_", "MSI_", "MLFLOW_", "_MLFLOW")
_CLOUD_VARIABLES += ("DATABRICKS_",)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def clean_environment() -> dict[str, str]:
    """Return this process's environment without variables of Azure, MLflow and proxies."""
    return {
        name: text
        for name, text in os.environ.items()
        if not name.upper().startswith(_CLOUD_VARIABLES) and name.lower() not in _PROXIES
    }


def proxy_variables(proxy: str, authority: Path) -> dict[str, str]:
    """Return the variables that lead the clients of a process to a stand-in.

    Args:
        proxy: URL of the proxy that leads to the stand-in.
        authority: Certificate that clients have to trust, PEM.
    """
    variables = {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "127.0.0.1,localhost"}
    return {
        **variables,
        **{name.upper(): text for name, text in variables.items()},
        "REQUESTS_CA_BUNDLE": str(authority),
        "SSL_CERT_FILE": str(authority),
        # It would ask a host that is not the service's.
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def start_child(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that the kernel kills when the process of this thread ends."""
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
    # For an orderly end, and for systems whose kernel does not kill it.
    atexit.register(child.kill)
    return child


def wait_for(child: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    """Poll until `is_ready` returns True.

    Raises:
        RuntimeError: The process ended, or took too long; the message holds the end of its log.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not is_ready():
        if child.poll() is not None or time.monotonic() > deadline:
            log_end = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{child.args!r} did not start; its log ends with: {log_end}")
        time.sleep(0.02)


def _die_with_parent() -> None:
    # Ctrl-C in a terminal goes to the whole process group; only the parent has to receive it.
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
