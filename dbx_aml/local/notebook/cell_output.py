"""Output of a cell: text, table, picture or HTML, each with a text form for a terminal."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dbx_aml._common.errors import NotebookError
from dbx_aml._common.text import one_line

# Rows of a table that the page shows, and rows that a terminal shows.
_MAX_ROWS = 100
_TEXT_ROWS = 10
# Characters of a sentence that a terminal shows; ids, paths and URIs are never cut off.
_SENTENCE_WIDTH = 60
# How the names of numbers begin, in Spark and in pandas.
_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal", "uint", "Int")


@dataclass(frozen=True)
class Text:
    """Printed text.

    Args:
        text: Text with its line ends.
        is_error: Whether the text went to standard error.
    """

    text: str
    is_error: bool = False


@dataclass(frozen=True, kw_only=True)
class Html:
    """HTML for the page, and text for a terminal.

    Args:
        html: HTML that the page shows in a separate frame.
        text: Text that a terminal shows instead.
    """

    html: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A PNG picture."""

    png: bytes

    @property
    def text(self) -> str:
        """Return the size in pixels, as text."""
        width, height = struct.unpack(">II", self.png[16:24])
        return f"(a picture, {width} x {height})"

    @property
    def url(self) -> str:
        """Return the picture as a data URL, which needs no network."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The first rows of a data frame, as text; None stands for a null.

    Args:
        columns: Names of the columns.
        types: Types of the columns, for example "double".
        rows: First rows of the data frame.
        is_truncated: Whether the data frame has more rows.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    is_truncated: bool

    @property
    def text(self) -> str:
        """Return the first few rows, aligned."""
        import pandas as pd

        rows = [[_terminal_text(value) for value in row] for row in self.rows[:_TEXT_ROWS]]
        frame = pd.DataFrame(rows, columns=list(self.columns), dtype=object)
        has_more_rows = self.is_truncated or len(self.rows) > _TEXT_ROWS
        tail = f"\n(the first {_TEXT_ROWS} rows)" if has_more_rows else ""
        return f"{frame.to_string(index=False)}{tail}"

    def is_number(self, column: int) -> bool:
        """Return whether the column with this index has numbers."""
        return self.types[column].startswith(_NUMBERS)


Output = Text | Html | Picture | Table


def _terminal_text(value: str | None) -> str:
    if value is None:
        return "null"
    return one_line(value, _SENTENCE_WIDTH) if " " in value else value


def to_output(value: Any) -> Output:
    """Return the output of `display(value)`: a table, a picture, or the value's representation.

    Raises:
        NotebookError: The value is a streaming data frame, which never ends.
    """
    if getattr(value, "isStreaming", False) is True:
        raise NotebookError(
            "display must be given rows that end: got a stream, which this runner cannot show; "
            "write it to a table with trigger(availableNow=True)"
        )
    if hasattr(value, "toPandas") and hasattr(value, "dtypes"):
        # One row more than the page shows tells whether the table is truncated, without a count.
        rows = value.limit(_MAX_ROWS + 1).collect()
        if not value.columns:
            return Text("OK\n")
        return _table(value.columns, [kind for _, kind in value.dtypes], rows)
    if isinstance(value, list) and value and hasattr(value[0], "_fields"):
        # The list of named tuples that dbutils.fs.ls returns.
        kinds = [type(field).__name__ for field in value[0]]
        return _table(value[0]._fields, kinds, value)
    if hasattr(value, "itertuples"):
        head = value.head(_MAX_ROWS + 1)
        kinds = [str(kind) for kind in head.dtypes]
        return _table(map(str, value.columns), kinds, head.itertuples(index=False, name=None))
    if hasattr(value, "savefig"):
        return picture(value)
    return repr_output(value)


def repr_output(value: Any) -> Output:
    """Return a value as HTML if it has `_repr_html_`, else as `str`."""
    html = None if isinstance(value, type) else getattr(value, "_repr_html_", lambda: None)()
    return Text(f"{value}\n") if html is None else Html(html=html, text=str(value))


def picture(figure: Any) -> Picture:
    """Return a matplotlib figure as a picture, twice as sharp as its size says."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=144, bbox_inches="tight")
    return Picture(out.getvalue())


def _table(columns: Iterable[str], types: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    texts = [tuple(_text(value) for value in row) for row in rows]
    return Table(
        columns=tuple(columns),
        types=tuple(types),
        rows=tuple(texts[:_MAX_ROWS]),
        is_truncated=len(texts) > _MAX_ROWS,
    )


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if hasattr(value, "asDict"):
        return json.dumps(value.asDict(recursive=True), default=str, ensure_ascii=False)
    return str(value)
