"""`dbutils.widgets`: the parameters of a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from dbx_aml._common.errors import NotebookError


class Widgets:
    """`dbutils.widgets`, with the argument names of Databricks.

    Args:
        given: Values by widget name that win over the defaults, for example {"alpha": "1"}.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = dict(given)
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

    def getArgument(self, name: str, optional: str | None = None) -> str:
        """Return the value of a widget, or `optional` where there is none; an old name of `get`."""
        if optional is not None and name not in self._values:
            return optional
        return self.get(name)

    def getAll(self) -> dict[str, str]:
        """Return the values of all widgets by name."""
        return dict(self._values)

    def remove(self, name: str) -> None:
        """Forget a widget."""
        self._values.pop(name, None)

    def removeAll(self) -> None:
        """Forget all widgets."""
        self._values.clear()

    @contextmanager
    def given(self, values: Mapping[str, str]) -> Iterator[None]:
        """Let these values win over defaults in the block, as after `%run ./x $name="value"`."""
        before, self._given = self._given, {**self._given, **values}
        try:
            yield
        finally:
            self._given = before

    def _define(self, name: str, default: str) -> str:
        self.defined.add(name)
        self._values[name] = self._given.get(name, default)
        return self._values[name]


def _check(name: str, values: Iterable[str], choices: Sequence[str]) -> None:
    wrong = [value for value in values if value not in choices]
    if wrong:
        raise NotebookError(f"widget {name!r} must be one of {list(choices)}: got {wrong[0]!r}")
