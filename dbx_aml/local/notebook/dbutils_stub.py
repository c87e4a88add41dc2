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
    """Ends a cell and clears the namespace of the notebook."""


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
        """Run another notebook in a new namespace and return its exit value.

        Args:
            path: Path relative to this notebook, or absolute as in the workspace.
            timeout_seconds: Seconds, checked when the notebook has ended; 0 for no limit.
            arguments: Values by widget name; names of undefined widgets are ignored.

        Raises:
            NotebookError: The notebook failed, or took longer than the timeout.
        """
        return self._run(path, timeout_seconds, arguments or {})


class Library:
    """`dbutils.library`, for notebooks that install packages."""

    def restartPython(self) -> NoReturn:
        """Clear the namespace of the notebook; imported packages stay imported."""
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
