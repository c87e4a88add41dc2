"""What a cell shows: text, a table, a picture, HTML; each with a text form for a terminal."""

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

# Rows that are kept of a table, and of those the ones that a terminal shows.
_MOST_ROWS = 100
_TEXT_ROWS = 10
_CELL_WIDTH = 60
# How the names of numbers begin, in Spark and in pandas.
_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal", "uint", "Int")


@dataclass(frozen=True)
class Text:
    """What was printed.

    Args:
        text: As it was written, line ends included.
        is_error: It went to standard error.
    """

    text: str
    is_error: bool = False


@dataclass(frozen=True, kw_only=True)
class Html:
    """A piece of HTML.

    Args:
        html: Shown in a frame of its own.
        text: What a terminal shows instead.
    """

    html: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A PNG picture."""

    png: bytes

    @property
    def text(self) -> str:
        """Say how large it is, in pixels."""
        width, height = struct.unpack(">II", self.png[16:24])
        return f"(a picture, {width} x {height})"

    @property
    def url(self) -> str:
        """Return it as a URL that needs no network."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The first rows of a data frame, as text; None stands for a null.

    Args:
        columns: Their names.
        types: Their types, for example "double".
        rows: As many as are kept.
        has_more: There are more rows than that.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    has_more: bool

    @property
    def text(self) -> str:
        """Return the first few rows, aligned."""
        import pandas as pd

        shown = [["null" if one is None else one for one in row] for row in self.rows[:_TEXT_ROWS]]
        frame = pd.DataFrame(shown, columns=list(self.columns), dtype=object)
        more = self.has_more or len(self.rows) > _TEXT_ROWS
        tail = f"\n(the first {_TEXT_ROWS} rows)" if more else ""
        return f"{frame.to_string(index=False, max_colwidth=_CELL_WIDTH)}{tail}"

    def is_number(self, column: int) -> bool:
        """Return whether a column has numbers."""
        return self.types[column].startswith(_NUMBERS)


Output = Text | Html | Picture | Table


def shown_as(value: Any) -> Output:
    """Return what `display` shows of a value: a data frame, a figure, or as it shows itself.

    Raises:
        NotebookError: It is a stream, which never ends.
    """
    if getattr(value, "isStreaming", False) is True:
        raise NotebookError(
            "display must be given rows that end: got a stream, which this runner cannot show; "
            "write it to a table with trigger(availableNow=True)"
        )
    if hasattr(value, "toPandas") and hasattr(value, "dtypes"):
        # One row more than is kept tells whether there are more, without a count.
        rows = value.limit(_MOST_ROWS + 1).collect()
        if not value.columns:
            return Text("OK\n")
        return _table(value.columns, [kind for _, kind in value.dtypes], rows)
    if isinstance(value, list) and value and hasattr(value[0], "_fields"):
        # What dbutils.fs.ls returns.
        kinds = [type(one).__name__ for one in value[0]]
        return _table(value[0]._fields, kinds, value)
    if hasattr(value, "itertuples"):
        head = value.head(_MOST_ROWS + 1)
        kinds = [str(kind) for kind in head.dtypes]
        return _table(map(str, value.columns), kinds, head.itertuples(index=False, name=None))
    if hasattr(value, "savefig"):
        return picture(value)
    return itself(value)


def itself(value: Any) -> Output:
    """Return a value as it shows itself: as HTML if it can, else as `str`."""
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
        rows=tuple(texts[:_MOST_ROWS]),
        has_more=len(texts) > _MOST_ROWS,
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
