"""`dbutils.widgets`: the parameters of a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dbx_aml._common.errors import NotebookError


class Widgets:
    """`dbutils.widgets`, with the argument names of Databricks.

    Args:
        parameters: Values by name that the notebook's caller passes, for example {"alpha": "1"}.
            A parameter is readable without a widget, and goes before a widget's default.
        values: Values of the widgets that exist at the start.

    Attributes:
        overrides: Parameters of the running cell, for example of `%run ./x $name="value"`.
        values: Values of the widgets that exist, by name.

    Raises:
        NotebookError: A parameter is not a text.
    """

    def __init__(self, parameters: Mapping[str, str], values: Mapping[str, str]) -> None:
        for name, value in parameters.items():
            _check_text(f"parameter {name!r}", value)
        self._parameters = dict(parameters)
        self.values = dict(values)
        self.overrides: Mapping[str, str] = {}

    def text(self, name: str, defaultValue: str, label: str | None = None) -> None:
        """Define a widget that takes any text."""
        self._define(name, defaultValue)

    def combobox(
        self, name: str, defaultValue: str, choices: Sequence[str], label: str | None = None
    ) -> None:
        """Define a widget that takes any text and offers choices."""
        self._define(name, defaultValue)

    def dropdown(
        self, name: str, defaultValue: str, choices: Sequence[str], label: str | None = None
    ) -> None:
        """Define a widget that takes a single choice."""
        _check(name, [self._define(name, defaultValue)], choices)

    def multiselect(
        self, name: str, defaultValue: str, choices: Sequence[str], label: str | None = None
    ) -> None:
        """Define a widget that takes several choices, separated by commas."""
        value = self._define(name, defaultValue)
        _check(name, value.split(",") if value else [], choices)

    def get(self, name: str) -> str:
        """Return the value of a widget, or of a parameter without a widget.

        Raises:
            NotebookError: There is neither a widget nor a parameter with this name.
        """
        values = self.getAll()
        if name not in values:
            raise NotebookError(
                f"widget must be defined before it is read: got {name!r}; "
                f"defined are {sorted(values)}"
            )
        return values[name]

    def getArgument(self, name: str, optional: str | None = None) -> str:
        """Return the value of a widget, or `optional` if undefined; the old name of `get`."""
        value = self.getAll().get(name, optional)
        return self.get(name) if value is None else value

    def getAll(self) -> dict[str, str]:
        """Return the values of all widgets, and of parameters without a widget, by name."""
        return {**self._parameters, **self.overrides, **self.values}

    def remove(self, name: str) -> None:
        """Remove a widget, and the parameter of its name."""
        self.values.pop(name, None)
        self._parameters.pop(name, None)

    def removeAll(self) -> None:
        """Remove all widgets, and the parameters of their names."""
        for name in list(self.values):
            self.remove(name)

    def _define(self, name: str, default: str) -> str:
        """Return the value of a widget; a widget that exists keeps its value."""
        _check_text(f"default of widget {name!r}", default)
        value = {**self._parameters, **self.overrides}.get(name, default)
        return self.values.setdefault(name, value)


def _check_text(thing: str, value: object) -> None:
    if not isinstance(value, str):
        raise NotebookError(f"{thing} must be a text: got {value!r}; use {str(value)!r}")


def _check(name: str, values: Iterable[str], choices: Sequence[str]) -> None:
    invalid = [value for value in values if value not in choices]
    if invalid:
        raise NotebookError(f"widget {name!r} must be one of {list(choices)}: got {invalid[0]!r}")
