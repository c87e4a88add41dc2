"""Real init scripts: each start of a cluster runs them on a new throw-away node."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.databricks.volume import Volumes
from tests.support.node.node import Node


class RealNodes:
    """Nodes with their own Python, which see the files of the stand-in's volumes.

    Attributes:
        script_output: Output of the last init script, line by line.
    """

    def __init__(self, volumes: Volumes, runtime: Path) -> None:
        self._volumes = volumes
        self._runtime = runtime
        self.script_output: list[str] = []

    def run_script(self, path: str, text: bytes, variables: Mapping[str, str], root: Path) -> int:
        """Run an init script on a new node and return its exit code; see `Boot.run_script`."""
        # A restarted cluster gets new containers.
        shutil.rmtree(root)
        node = Node(root, self._runtime, version="17.3")
        for name, content in self._volumes.files.items():
            file = root / name.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        node.script.write_text(text.decode().replace("/Volumes/", f"{root}/Volumes/"))
        result = node.run(variables)
        self.script_output = result.lines
        return result.exit_code
