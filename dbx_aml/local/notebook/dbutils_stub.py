"""`dbutils` as a notebook sees it: `fs`, `jobs`, `library`, `notebook`, `secrets`, `widgets`.

What it lacks is an error that names it.
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
        value: What the notebook ends with, for example '{"rows": 3}'.
    """

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.value = value


class PythonRestart(BaseException):
    """Ends a cell and forgets the names of the notebook."""


class Notebook:
    """`dbutils.notebook`.

    Args:
        run: Runs another notebook: its path, seconds it may take, values of its widgets.
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
        """Run another notebook with names of its own and return what it exits with.

        Args:
            path: Relative to this notebook, or absolute as in the workspace.
            timeout_seconds: 0 for no limit. It is looked at when the notebook has ended.
            arguments: Values of its widgets; one that it does not define changes nothing.

        Raises:
            NotebookError: It failed, or took longer.
        """
        return self._run(path, timeout_seconds, arguments or {})


class Library:
    """`dbutils.library`, for notebooks that install packages."""

    def restartPython(self) -> NoReturn:
        """Forget the names of the notebook; the packages stay as they are loaded."""
        raise PythonRestart


class Secrets:
    """`dbutils.secrets`, from variables DBX_AML_SECRET_<SCOPE>_<KEY>.

    Args:
        hide: Called with each secret that is read, so that nothing shows it.
    """

    def __init__(self, hide: Callable[[str], None]) -> None:
        self._hide = hide

    def get(self, scope: str, key: str) -> str:
        """Return a secret.

        Raises:
            NotebookError: Its variable is not set.
        """
        variable = SECRET_PREFIX + re.sub(r"\W", "_", f"{scope}_{key}").upper()
        value = os.environ.get(variable)
        if value is None:
            raise NotebookError(
                f"secret must be in a variable here: got none for '{scope}/{key}'; set {variable}"
            )
        self._hide(value)
        return value

    def getBytes(self, scope: str, key: str) -> bytes:
        """Return a secret as bytes."""
        return self.get(scope, key).encode()


class TaskValues:
    """`dbutils.jobs.taskValues`: outside of a job nobody is there to be told."""

    def set(self, key: str, value: Any) -> None:
        """Do nothing with a value that later tasks of a job could have read.

        Raises:
            TypeError: It is no JSON.
        """
        json.dumps({key: value})


class Jobs:
    """`dbutils.jobs`."""

    taskValues = TaskValues()


class _Named:
    """One level of `dbutils`: a name that it lacks is an error that says so."""

    def __init__(self, name: str, part: Any) -> None:
        self._name = name
        self._part = part

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(self._part, name):
            return getattr(self._part, name)
        there = sorted(one for one in dir(self._part) if not one.startswith("_"))
        raise AttributeError(f"{self._name}.{name} is not in this runner; it has {there}")


def make_dbutils(*, fs: Files, notebook: Notebook, secrets: Secrets, widgets: Widgets) -> Any:
    """Return the object that a notebook sees as `dbutils`."""
    parts = {
        "fs": fs,
        "jobs": Jobs(),
        "library": Library(),
        "notebook": notebook,
        "secrets": secrets,
        "widgets": widgets,
    }
    named = {name: _Named(f"dbutils.{name}", part) for name, part in parts.items()}
    return _Named("dbutils", SimpleNamespace(**named))


class NoSparkContext:
    """`sc` under Spark Connect, where there is none: using it says so."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"sc.{name} is not there under Spark Connect, as on serverless and standard compute; "
            "use spark and data frames"
        )
