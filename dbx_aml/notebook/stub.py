"""What a cluster adds to a notebook's names: `dbutils` and `display`.

This stub is the one place of the package that knows `dbutils`; it has what notebooks need to
take parameters and to end with a value.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from dbx_aml.errors import NotebookError

_SHOWN_ROWS = 10
_CELL_WIDTH = 60


class NotebookExit(BaseException):
    """Stops a notebook. Not an Exception, or a notebook's own `except Exception` would eat it.

    Args:
        value: What the notebook ends with, for example '{"rows": 3}'.
    """

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.value = value


class Notebook:
    """`dbutils.notebook`."""

    def exit(self, value: str = "") -> NoReturn:
        """End the notebook, however deep in its calls, with this value."""
        raise NotebookExit(str(value))


class Widgets:
    """`dbutils.widgets`, with the argument names of Databricks.

    Args:
        given: Values by widget name that win over the defaults, for example {"alpha": "1"}.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._values: dict[str, str] = {}
        self.defined: set[str] = set()

    def text(self, name: str, defaultValue: str, label: str | None = None) -> None:
        """Define a widget that takes any text."""
        self._define(name, defaultValue)

    def combobox(
        self,
        name: str,
        defaultValue: str,
        choices: Sequence[str],
        label: str | None = None,
    ) -> None:
        """Define a widget that takes any text and proposes some."""
        self._define(name, defaultValue)

    def dropdown(
        self,
        name: str,
        defaultValue: str,
        choices: Sequence[str],
        label: str | None = None,
    ) -> None:
        """Define a widget that takes one of its choices."""
        _check(name, [self._define(name, defaultValue)], choices)

    def multiselect(
        self,
        name: str,
        defaultValue: str,
        choices: Sequence[str],
        label: str | None = None,
    ) -> None:
        """Define a widget that takes some of its choices, separated by commas."""
        value = self._define(name, defaultValue)
        _check(name, value.split(",") if value else [], choices)

    def get(self, name: str) -> str:
        """Return the value of a widget that is defined.

        Raises:
            NotebookError: It is not.
        """
        if name not in self._values:
            raise NotebookError(
                f"widget must be defined before it is read: got {name!r}; "
                f"defined are {sorted(self._values)}"
            )
        return self._values[name]

    def getAll(self) -> dict[str, str]:
        """Return the values of all widgets by name."""
        return dict(self._values)

    def remove(self, name: str) -> None:
        """Forget a widget."""
        self._values.pop(name, None)

    def removeAll(self) -> None:
        """Forget all widgets."""
        self._values.clear()

    def _define(self, name: str, default: str) -> str:
        self.defined.add(name)
        self._values[name] = self._given.get(name, default)
        return self._values[name]


def _check(name: str, values: Iterable[str], choices: Sequence[str]) -> None:
    wrong = [value for value in values if value not in choices]
    if wrong:
        raise NotebookError(f"widget {name!r} must be one of {list(choices)}: got {wrong[0]!r}")


@dataclass(frozen=True)
class Dbutils:
    """`dbutils`: anything it lacks is an AttributeError that names it."""

    widgets: Widgets
    notebook: Notebook


def display(value: Any) -> None:
    """Print a small table of a Spark or pandas DataFrame; anything else as it prints itself."""
    shown, more = value, False
    if hasattr(value, "toPandas"):
        # One row more than is shown tells whether there are more, without a count.
        shown = value.limit(_SHOWN_ROWS + 1).toPandas()
    if hasattr(shown, "to_string"):
        more = len(shown) > _SHOWN_ROWS
        shown = _as_text(shown.head(_SHOWN_ROWS))
    tail = f"\n(the first {_SHOWN_ROWS} rows)" if more else ""
    sys.stdout.write(f"{shown}{tail}\n")


def _as_text(rows: Any) -> str:
    if not hasattr(rows, "columns"):
        return str(rows.to_string())
    return str(rows.to_string(index=False, max_colwidth=_CELL_WIDTH))
