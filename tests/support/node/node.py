"""One node: a folder in the place of `/`, the init script run in it, and what is there after."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
class Outcome:
    """What the script said."""

    code: int
    stdout: str
    lines: list[str]

    @property
    def last(self) -> str:
        """The last line."""
        return self.lines[-1].removeprefix("dbx-aml: ")


class Node:
    """A fresh node.

    Args:
        root: Its folder; made here.
        runtime: The virtual environment to start from; its files are linked, not copied.
        version: Databricks Runtime that it says it has.
    """

    def __init__(self, root: Path, runtime: Path, version: str = "18.0") -> None:
        self.root = root
        self.home = root / "databricks"
        shutil.copytree(
            runtime, self.home / "python", symlinks=True, copy_function=os.link, dirs_exist_ok=False
        )
        (self.home / "spark" / "conf").mkdir(parents=True)
        self.spark_env.write_text("export SPARK_LOCAL_DIRS=/local_disk0\n")
        (self.home / "DBR_VERSION").write_text(f"{version}\n")
        self.script = root / "dbx_aml_init.sh"
        self.script.write_text(read_init_script(), encoding="utf-8")
        self.before = self.versions()
        self.files_before = self.files()

    @property
    def spark_env(self) -> Path:
        """Spark's own file of exports."""
        return self.home / "spark" / "conf" / "spark-env.sh"

    @property
    def marker_file(self) -> Path:
        """The marker's."""
        return self.home / "dbx_aml" / "marker.json"

    @property
    def marker(self) -> NodeMarker:
        """What the script says it did."""
        marker = read_marker(self.marker_file)
        assert marker is not None
        return marker

    def command(self, prefix: tuple[str, ...] = ()) -> list[str]:
        """Return the words that run the script."""
        return [*prefix, "bash", str(self.script)]

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables that an init script has, and these."""
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
    ) -> Outcome:
        """Run the script.

        Args:
            variables: Of the cluster; by default those of a link.
            prefix: A command that runs it, for example one that takes the network away.
        """
        done = subprocess.run(
            self.command(prefix),
            env=self.environment(variables),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr.splitlines())

    def versions(self) -> dict[str, str]:
        """Return name and version of each package, by its own metadata."""
        names = (one.name.removesuffix(".dist-info") for one in self._place.glob("*.dist-info"))
        return {name.rpartition("-")[0].lower(): name.rpartition("-")[2] for name in names}

    def files(self) -> dict[str, tuple[int, int]]:
        """Return size and time of each file of a package, but for compiled ones."""
        return {
            str(file.relative_to(self._place)): (file.stat().st_size, file.stat().st_mtime_ns)
            for file in self._place.rglob("*")
            if file.is_file() and file.suffix != ".pyc"
        }

    @property
    def _place(self) -> Path:
        return site_packages(self.home / "python")

    @property
    def added(self) -> dict[str, str]:
        """Version by name of what is there now and was not; nothing else may have changed."""
        now, files = self.versions(), self.files()
        assert {name: now.get(name) for name in self.before} == self.before
        assert {name: files.get(name) for name in self.files_before} == self.files_before
        return {name: version for name, version in now.items() if name not in self.before}

    def is_as_before(self) -> bool:
        """Tell whether packages, and each file of them, are what they were at first."""
        return self.files() == self.files_before
