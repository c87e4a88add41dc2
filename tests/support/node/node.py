"""A node: a folder in place of `/` in which the init script runs."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dbx_aml.cluster.init_script import read_init_script
from dbx_aml.cluster.node.marker import NodeMarker, read_marker
from tests.support.node.runtime import site_packages

LINK = {
    "DBX_AML_MODE": "aml",
    "DBX_AML_SUBSCRIPTION_ID": "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42",
    "DBX_AML_RESOURCE_GROUP": "rg-ml",
    "DBX_AML_WORKSPACE_NAME": "mlw-team",
    "DBX_AML_REGION": "westeurope",
}


@dataclass(frozen=True)
class ScriptResult:
    """Exit code and output of one run of the init script."""

    exit_code: int
    stdout: str
    lines: list[str]

    @property
    def last_line(self) -> str:
        """The last message."""
        return self.lines[-1].removeprefix("dbx-aml: ")


class Node:
    """A new node.

    Args:
        root: Folder of the node; it is created.
        runtime: Virtual environment to start from; its files are linked, not copied.
        version: Version of the Databricks Runtime.
    """

    def __init__(self, root: Path, runtime: Path, version: str = "18.0") -> None:
        self.root = root
        self.home = root / "databricks"
        shutil.copytree(runtime, self.home / "python", symlinks=True, copy_function=os.link)
        (self.home / "spark" / "conf").mkdir(parents=True)
        self.spark_env.write_text("export SPARK_LOCAL_DIRS=/local_disk0\n")
        (self.home / "DBR_VERSION").write_text(f"{version}\n")
        self.script = root / "dbx_aml_init.sh"
        self.script.write_text(read_init_script(), encoding="utf-8")
        self.record_runtime()

    def record_runtime(self) -> None:
        """Take the packages that are installed now as the runtime's."""
        self.runtime_versions = self.versions()
        self.runtime_files = self.files()

    def copy(self, root: Path) -> Self:
        """Return a copy of the node in another folder; its files are linked."""
        node = object.__new__(type(self))
        shutil.copytree(self.root, root, symlinks=True, copy_function=os.link)
        node.root, node.home, node.script = root, root / "databricks", root / self.script.name
        node.runtime_versions, node.runtime_files = self.runtime_versions, self.runtime_files
        for file in (node.spark_env, node.script):
            # Tests write to these files, which must not change the original.
            text = file.read_text(encoding="utf-8")
            file.unlink()
            file.write_text(text, encoding="utf-8")
        return node

    @property
    def spark_env(self) -> Path:
        """Spark's file of environment variables."""
        return self.home / "spark" / "conf" / "spark-env.sh"

    @property
    def marker_path(self) -> Path:
        """File of the marker."""
        return self.home / "dbx_aml" / "marker.json"

    @property
    def marker(self) -> NodeMarker:
        """The marker of the last run."""
        marker = read_marker(self.marker_path)
        assert marker is not None
        return marker

    def command(self, prefix: tuple[str, ...] = ()) -> list[str]:
        """Return the command line that runs the script."""
        return [*prefix, "bash", str(self.script)]

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of an init script with variables of the cluster."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "TEST_DBX_AML_ROOT": str(self.root),
            "TEST_DBX_AML_ATTEMPTS": "1",
            "TEST_DBX_AML_BACKOFF_S": "0",
            "DB_IS_DRIVER": "TRUE",
            **(LINK if variables is None else variables),
        }

    def run(
        self, variables: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> ScriptResult:
        """Run the script.

        Args:
            variables: Variables of the cluster; by default `LINK`.
            prefix: Command that runs the script, for example without a network.
        """
        process = subprocess.run(
            self.command(prefix),
            env=self.environment(variables),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return ScriptResult(process.returncode, process.stdout, process.stderr.splitlines())

    def versions(self) -> dict[str, str]:
        """Return version by name of each package, from the names of the metadata folders."""
        folders = self._site_packages.glob("*.dist-info")
        names = (folder.name.removesuffix(".dist-info") for folder in folders)
        return {name.rpartition("-")[0].lower(): name.rpartition("-")[2] for name in names}

    def files(self) -> dict[str, tuple[int, int]]:
        """Return size and time of each file of a package, except compiled files."""
        return {
            str(file.relative_to(self._site_packages)): (
                file.stat().st_size,
                file.stat().st_mtime_ns,
            )
            for file in self._site_packages.rglob("*")
            if file.is_file() and file.suffix != ".pyc"
        }

    @property
    def _site_packages(self) -> Path:
        return site_packages(self.home / "python")

    @property
    def added_packages(self) -> dict[str, str]:
        """Version by name of each added package; asserts that the runtime's are unchanged."""
        versions, files = self.versions(), self.files()
        assert {name: versions.get(name) for name in self.runtime_versions} == self.runtime_versions
        assert {name: files.get(name) for name in self.runtime_files} == self.runtime_files
        added = versions.keys() - self.runtime_versions.keys()
        return {name: version for name, version in versions.items() if name in added}

    def has_only_runtime_packages(self) -> bool:
        """Tell whether each file of a package is as the runtime has it, and no other exists."""
        return self.files() == self.runtime_files
