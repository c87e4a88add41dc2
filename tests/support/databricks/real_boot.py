"""Init scripts that really run when a cluster of the stand-in comes up, on a throw-away node."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.databricks.volume import Volumes
from tests.support.node.node import Node


class RealNodes:
    """New nodes with a Python of their own, which read the stand-in's volumes.

    Args:
        volumes: Put on each node's disk, below its root.
        runtime: Virtual environment that each node starts from.
    """

    def __init__(self, volumes: Volumes, runtime: Path) -> None:
        self._volumes = volumes
        self._runtime = runtime
        self.said: list[str] = []

    def run_script(self, path: str, text: bytes, variables: Mapping[str, str], root: Path) -> int:
        """Run a script of ours on a new node; see `Boot.run_script`."""
        # A restart brings new containers.
        shutil.rmtree(root)
        node = Node(root, self._runtime, version="17.3")
        for name, content in self._volumes.files.items():
            file = root / name.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        node.script.write_text(text.decode().replace("/Volumes/", f"{root}/Volumes/"))
        outcome = node.run(variables)
        self.said = outcome.lines
        return outcome.code
