"""`dbutils.widgets`: the parameters of a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from dbx_aml._common.errors import NotebookError


class Widgets:
    """`dbutils.widgets`, with the argument names of Databricks.

    Args:
        overrides: Values by widget name instead of the defaults, for example {"alpha": "1"}.
    """

    def __init__(self, overrides: Mapping[str, str]) -> None:
        self._overrides = dict(overrides)
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
        """Define a widget that takes any text and offers choices."""
        self._define(name, defaultValue)

    def dropdown(
        self,
        name: str,
        defaultValue: str,
        choices: Sequence[str],
        label: str | None = None,
    ) -> None:
        """Define a widget that takes a single choice."""
        _check(name, [self._define(name, defaultValue)], choices)

    def multiselect(
        self,
        name: str,
        defaultValue: str,
        choices: Sequence[str],
        label: str | None = None,
    ) -> None:
        """Define a widget that takes several choices, separated by commas."""
        value = self._define(name, defaultValue)
        _check(name, value.split(",") if value else [], choices)

    def get(self, name: str) -> str:
        """Return the value of a widget.

        Raises:
            NotebookError: No widget with this name is defined.
        """
        if name not in self._values:
            raise NotebookError(
                f"widget must be defined before it is read: got {name!r}; "
                f"defined are {sorted(self._values)}"
            )
        return self._values[name]

    def getArgument(self, name: str, optional: str | None = None) -> str:
        """Return the value of a widget, or `optional` if undefined; the old name of `get`."""
        if optional is not None and name not in self._values:
            return optional
        return self.get(name)

    def getAll(self) -> dict[str, str]:
        """Return the values of all widgets by name."""
        return dict(self._values)

    def remove(self, name: str) -> None:
        """Remove a widget."""
        self._values.pop(name, None)

    def removeAll(self) -> None:
        """Remove all widgets."""
        self._values.clear()

    @contextmanager
    def overrides(self, values: Mapping[str, str]) -> Iterator[None]:
        """Override defaults in the block, as after `%run ./x $name="value"`."""
        previous, self._overrides = self._overrides, {**self._overrides, **values}
        try:
            yield
        finally:
            self._overrides = previous

    def _define(self, name: str, default: str) -> str:
        self.defined.add(name)
        self._values[name] = self._overrides.get(name, default)
        return self._values[name]


def _check(name: str, values: Iterable[str], choices: Sequence[str]) -> None:
    invalid = [value for value in values if value not in choices]
    if invalid:
        raise NotebookError(f"widget {name!r} must be one of {list(choices)}: got {invalid[0]!r}")
