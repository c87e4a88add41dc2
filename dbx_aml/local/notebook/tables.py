"""The table that `display` shows for a data frame: HTML for a page, aligned text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from html import escape
from typing import Any

from dbx_aml._common.errors import NotebookError
from dbx_aml._common.text import one_line, plural

# Rows of a table that the page shows, and rows that a terminal shows.
_MAX_ROWS = 100
_TEXT_ROWS = 10
# Characters of a sentence that a terminal shows; ids, paths and URIs are never cut off.
_SENTENCE_WIDTH = 60
# How the names of numbers begin, in Spark and in pandas.
_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal", "uint", "Int")


def table_formats(value: Any) -> dict[str, str] | None:
    """Return the first rows of a data frame by MIME type; None for any other value.

    Args:
        value: Data frame of Spark or pandas, or the list that `dbutils.fs.ls` returns.

    Raises:
        NotebookError: The value is a streaming data frame, which never ends.
    """
    if getattr(value, "isStreaming", False) is True:
        raise NotebookError(
            "display must be given rows that end: got a stream, which this runner cannot show; "
            "write it to a table with trigger(availableNow=True)"
        )
    if hasattr(value, "toPandas") and hasattr(value, "dtypes"):
        if not value.columns:
            return {"text/plain": "OK"}
        # One row more than the page shows tells whether the table is truncated, without a count.
        rows = value.limit(_MAX_ROWS + 1).collect()
        return _formats(value.columns, [kind for _, kind in value.dtypes], rows)
    if isinstance(value, list) and value and hasattr(value[0], "_fields"):
        kinds = [type(field).__name__ for field in value[0]]
        return _formats(value[0]._fields, kinds, value)
    if hasattr(value, "itertuples"):
        head = value.head(_MAX_ROWS + 1)
        kinds = [str(kind) for kind in head.dtypes]
        return _formats(map(str, value.columns), kinds, head.itertuples(index=False, name=None))
    return None


def _formats(
    names: Iterable[str], kinds: list[str], rows: Iterable[Iterable[Any]]
) -> dict[str, str]:
    columns = list(names)
    texts = [[_text(value) for value in row] for row in rows]
    return {
        "text/html": _html(columns, kinds, texts),
        "text/plain": _aligned_text(columns, texts),
    }


def _html(columns: list[str], kinds: list[str], rows: list[list[str | None]]) -> str:
    classes = [' class="number"' if kind.startswith(_NUMBERS) else "" for kind in kinds]
    head = "".join(
        f"<th{css_class}>{escape(name)}<small>{escape(kind)}</small></th>"
        for name, kind, css_class in zip(columns, kinds, classes, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{css_class}>{'<i>null</i>' if value is None else escape(value)}</td>"
            for value, css_class in zip(row, classes, strict=True)
        )
        + "</tr>"
        for row in rows[:_MAX_ROWS]
    )
    is_truncated = len(rows) > _MAX_ROWS
    caption = f"the first {_MAX_ROWS} rows" if is_truncated else plural(len(rows), "row")
    return (
        f'<figure><div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div><figcaption>{caption}</figcaption></figure>"
    )


def _aligned_text(columns: list[str], rows: list[list[str | None]]) -> str:
    import pandas as pd

    first_rows = [[_terminal_text(value) for value in row] for row in rows[:_TEXT_ROWS]]
    frame = pd.DataFrame(first_rows, columns=columns, dtype=object)
    tail = f"\n(the first {_TEXT_ROWS} rows)" if len(rows) > _TEXT_ROWS else ""
    return f"{frame.to_string(index=False)}{tail}"


def _terminal_text(value: str | None) -> str:
    if value is None:
        return "null"
    return one_line(value, _SENTENCE_WIDTH) if " " in value else value


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
