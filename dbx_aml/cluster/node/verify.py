"""The process of the proof: it starts while pip works, so that a node waits less."""

import logging
import subprocess
import sys
from typing import Self

from dbx_aml._common.errors import ClusterError

log = logging.getLogger(__name__)

LIMIT_S = 180
# Packages of the runtime that MLflow and the plugin import, which takes most of the proof's time.
# MLflow itself looks for plugins when it is imported, so that has to wait.
_EARLY = (
    "pandas",
    "requests",
    "pydantic",
    "opentelemetry.sdk.trace",
    "azure.identity",
    "azure.storage.blob",
)
_CODE = """
import importlib, runpy, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        pass
if sys.stdin.readline():
    importlib.invalidate_caches()
    runpy.run_module("dbx_aml.cluster.node.plugin_proof", run_name="__main__")
"""


class Prover:
    """A process that imports what the runtime brought, and proves the rest once it is told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", _CODE, *_EARLY],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def go(self) -> None:
        """Let it prove what was added; returns at once."""
        if self._process.stdin is not None and self._process.poll() is None:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()

    def wait(self) -> None:
        """Wait for what it finds.

        Raises:
            ClusterError: What was added does not work.
        """
        try:
            _, said = self._process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"the proof of what was added must end within {LIMIT_S} s: it did not; "
                "see the script's log"
            ) from None
        if self._process.returncode:
            said = said.strip() or "it said nothing"
            log.warning("%s", said)
            raise ClusterError(
                f"what was added must work: got {said.splitlines()[-1]!r}; see the script's log"
            )
