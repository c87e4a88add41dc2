"""Run a Python wheel task as the platform does: the deployed wheel, in a new environment.

The wheel's requirements come from the environment of the tests, so that a task starts within a
second. Workspace files and volumes are folders.
"""

import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.child_process import clean_environment
from tests.support.databricks.job import TaskFailed
from tests.support.databricks.workspace_file import WorkspaceFiles

# Source: the page of the entry point in the Jobs API: by the package's metadata, else by the name
# of a function in the package. Any SystemExit fails the task, even with
# exit code 0 (MicrosoftDocs/azure-docs issue 116964).
_LAUNCHER = """
import importlib, sys
from importlib import metadata
package, name, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = name
named = [entry for entry in metadata.distribution(package).entry_points if entry.name == name]
function = named[0].load() if named else getattr(importlib.import_module(package), name)
try:
    function()
except SystemExit as err:
    sys.stderr.write(f"SystemExit: {err.code}")
    sys.exit(1)
print("ran", importlib.import_module(package).__file__)
"""


class WheelTasks:
    """A function for `Jobs.run_task` that runs wheel tasks.

    Args:
        files: Workspace files with the wheel.
        folder: Parent of the environments, the workspace files and the volumes.
        jobs: Jobs with the environments of their tasks.
        variables: Additional environment variables of the process.
    """

    def __init__(
        self, files: WorkspaceFiles, folder: Path, jobs: Any, variables: Mapping[str, str]
    ) -> None:
        self._files = files
        self._folder = folder
        self._jobs = jobs
        self._variables = variables

    def __call__(self, task: Mapping[str, Any], values: Mapping[str, str]) -> str:
        """Run the task's command to its end; return its output on stdout.

        Raises:
            TaskFailed: The command failed, or raised SystemExit.
        """
        wheel_task = task["python_wheel_task"]
        python = self._environment(self._wheel(task))
        self._mount()
        filled_arguments = [_filled(entry, values) for entry in wheel_task["parameters"]]
        arguments = [self._local_argument(entry) for entry in filled_arguments]
        process = subprocess.run(
            [python, "-P", "-c", _LAUNCHER, wheel_task["package_name"],
             wheel_task["entry_point"], *arguments],
            cwd=self._folder, capture_output=True, text=True, check=False,
            env={**clean_environment(), **self._variables},
        )  # fmt: skip
        if process.returncode != 0:
            raise TaskFailed(process.stderr[-3000:])
        return process.stdout

    def _wheel(self, task: Mapping[str, Any]) -> str:
        """Return the path of a task's wheel, from its libraries or its environment."""
        if "libraries" in task:
            return str(task["libraries"][0]["whl"])
        specs = [
            entry["spec"]
            for job in self._jobs.jobs.values()
            for entry in job["settings"].get("environments", [])
            if entry["environment_key"] == task["environment_key"]
        ]
        return str(specs[0]["dependencies"][0])

    def _environment(self, wheel: str) -> Path:
        """Return the Python of a new environment with this wheel."""
        content = self._files.content(wheel)
        if content is None:
            raise TaskFailed(f"Library {wheel} does not exist")
        name = wheel.rpartition("/")[2]
        folder = self._folder / "environments" / name.removesuffix(".whl")
        python = folder / "venv" / "bin" / "python"
        if python.exists():
            return python
        folder.mkdir(parents=True)
        file = folder / name
        file.write_bytes(content)
        uv = Path(sysconfig.get_path("scripts")) / "uv"
        subprocess.run(
            [uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"],
            check=True,
        )
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, file],
            check=True,
        )
        (packages,) = (folder / "venv").glob("lib/python*/site-packages")
        # The packages of the tests' environment come after the wheel; editable ones have no effect.
        (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return python

    def _local_argument(self, argument: str) -> str:
        """Return an argument with paths of the platform as paths below the folder."""
        return re.sub(r"=/(Workspace|Volumes)/", rf"={self._folder}/\1/", argument)

    def _mount(self) -> None:
        for path, item in self._files.items.items():
            if item.kind == "FILE":
                file = self._folder / "Workspace" / path.lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(item.content)


def _filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{\{job\.parameters\.(\w+)\}\}", lambda match: values[match[1]], text)
