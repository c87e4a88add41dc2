"""`dbutils` as a notebook sees it: `fs`, `jobs`, `library`, `notebook`, `secrets`, `widgets`.

Any other member of `dbutils` raises an error with the member's name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NoReturn

from dbx_aml._common.errors import NotebookError
from dbx_aml.local.notebook.databricks_paths import Files
from dbx_aml.local.notebook.widgets import Widgets

SECRET_PREFIX = "DBX_AML_SECRET_"


class NotebookExit(BaseException):
    """Stops a notebook. Not an Exception, or a notebook's own `except Exception` would eat it.

    Args:
        value: Exit value of the notebook, for example '{"rows": 3}'.
    """

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.value = value


class PythonRestart(BaseException):
    """Ends a cell and the notebook's process; a new process runs the next cells."""


class Notebook:
    """`dbutils.notebook`.

    Args:
        run: Function that runs another notebook, given path, timeout in seconds and widget values.
    """

    def __init__(self, run: Callable[[str, float, Mapping[str, str]], str]) -> None:
        self._run = run

    def exit(self, value: str = "") -> NoReturn:
        """End the notebook, however deep in its calls, with this value."""
        raise NotebookExit(str(value))

    def run(
        self,
        path: str,
        timeout_seconds: float = 0,
        arguments: Mapping[str, str] | None = None,
    ) -> str:
        """Run another notebook in a process of its own and return its exit value.

        Args:
            path: Path relative to this notebook, or absolute as in the workspace.
            timeout_seconds: Seconds after which the notebook is stopped; 0 for no limit.
            arguments: Values by widget name; the notebook reads them without a widget, too.

        Raises:
            NotebookError: The notebook failed, or took longer than the timeout.
        """
        return self._run(path, timeout_seconds, arguments or {})


class Library:
    """`dbutils.library`, for notebooks that install packages."""

    def restartPython(self) -> NoReturn:
        """Run the next cells in a new process; widgets keep their values."""
        raise PythonRestart


class Secrets:
    """`dbutils.secrets`, from variables DBX_AML_SECRET_<SCOPE>_<KEY>.

    Args:
        redact_value: Callback that redacts a secret in all later output.
    """

    def __init__(self, redact_value: Callable[[str], None]) -> None:
        self._redact_value = redact_value

    def get(self, scope: str, key: str) -> str:
        """Return a secret.

        Raises:
            NotebookError: The variable of the secret is not set.
        """
        variable = SECRET_PREFIX + re.sub(r"\W", "_", f"{scope}_{key}").upper()
        value = os.environ.get(variable)
        if value is None:
            raise NotebookError(
                f"secret must be in a variable here: got none for '{scope}/{key}'; set {variable}"
            )
        self._redact_value(value)
        return value

    def getBytes(self, scope: str, key: str) -> bytes:
        """Return a secret as bytes."""
        return self.get(scope, key).encode()


class TaskValues:
    """`dbutils.jobs.taskValues`: outside of a job no other task reads a value."""

    def set(self, key: str, value: Any) -> None:
        """Check that later tasks of a job could read a value, and discard the value.

        Raises:
            TypeError: The value is not JSON serializable.
        """
        json.dumps({key: value})

    def get(self, taskKey: str, key: str, default: Any = None, debugValue: Any = None) -> Any:
        """Return `debugValue`, as Databricks does outside of a job.

        Raises:
            TypeError: There is no debugValue.
        """
        if debugValue is None:
            raise TypeError(
                "Must pass debugValue when calling get outside of a job context. "
                "debugValue cannot be None."
            )
        return debugValue


class Jobs:
    """`dbutils.jobs`."""

    taskValues = TaskValues()


class _DbutilsNamespace:
    """A level of `dbutils` that lists its members in the error for a missing member."""

    def __init__(self, name: str, members: Any) -> None:
        self._name = name
        self._members = members

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(self._members, name):
            return getattr(self._members, name)
        known = sorted(member for member in dir(self._members) if not member.startswith("_"))
        raise AttributeError(f"{self._name}.{name} is not in this runner; it has {known}")


def make_dbutils(*, fs: Files, notebook: Notebook, secrets: Secrets, widgets: Widgets) -> Any:
    """Return the `dbutils` object of a notebook."""
    namespaces = {
        "fs": fs,
        "jobs": Jobs(),
        "library": Library(),
        "notebook": notebook,
        "secrets": secrets,
        "widgets": widgets,
    }
    levels = {
        name: _DbutilsNamespace(f"dbutils.{name}", members) for name, members in namespaces.items()
    }
    return _DbutilsNamespace("dbutils", SimpleNamespace(**levels))


class NoSparkContext:
    """`sc` under Spark Connect: each use raises an error, because Connect has no SparkContext."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"sc.{name} is missing under Spark Connect, as on serverless and standard compute; "
            "use spark and data frames"
        )
