"""The variables of a notebook at its end, for the process that has started the notebook.

A data frame of Spark stays in the engine, as a global temporary view. Any other value is pickled.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from secrets import token_hex
from types import ModuleType
from typing import Any, Literal, NamedTuple

from dbx_aml._common.errors import NotebookError
from dbx_aml._common.text import one_line


class PackedValue(NamedTuple):
    """A variable on its way to another process.

    Args:
        form: Form of the content.
        content: Name of the view, bytes of the pickle, or the reason why the value has no pickle.
    """

    form: Literal["view", "pickle", "unreadable"]
    content: Any


def pack_namespace(variables: Mapping[str, Any]) -> dict[str, PackedValue]:
    """Return variables for another process, without modules and without private names."""
    return {
        name: _pack_value(value)
        for name, value in variables.items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }


def _pack_value(value: Any) -> PackedValue:
    import cloudpickle

    try:
        if hasattr(value, "createGlobalTempView"):
            view = f"notebook_{token_hex(8)}"
            value.createGlobalTempView(view)
            return PackedValue("view", view)
        return PackedValue("pickle", cloudpickle.dumps(value))
    except Exception as err:  # noqa: BLE001 - every class may fail in its own way
        return PackedValue("unreadable", f"a {type(value).__name__}: {one_line(err, 160)}")


class Namespace(Mapping[str, Any]):
    """Variables of a notebook by name.

    Args:
        packed_values: Variables from `pack_namespace`.
        spark: Session of the engine that the notebook used.
    """

    def __init__(
        self, packed_values: Mapping[str, PackedValue] | None = None, spark: Any = None
    ) -> None:
        self._packed_values = dict(packed_values or {})
        self._spark = spark

    def __getitem__(self, name: str) -> Any:
        """Return a new copy of a variable; of a data frame, a frame of this process's session.

        Raises:
            KeyError: The notebook has no such variable.
            NotebookError: The value has no pickle.
        """
        form, content = self._packed_values[name]
        if form == "unreadable":
            raise NotebookError(
                f"a notebook's variable must be picklable: got {name!r}, {content}; "
                "let the notebook return it by dbutils.notebook.exit, or write it to a table"
            )
        if form == "view":
            return self._spark.table(f"global_temp.{content}")
        return pickle.loads(content)

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed_values)

    def __len__(self) -> int:
        return len(self._packed_values)

    def close(self) -> None:
        """Drop the views; data frames of the notebook cannot be read afterwards."""
        for form, content in self._packed_values.values():
            if form == "view":
                self._spark.catalog.dropGlobalTempView(content)
