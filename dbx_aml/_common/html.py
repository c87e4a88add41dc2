"""Tables in HTML, as a notebook shows them for an object's `_repr_html_`."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from dbx_aml._common.redact import redact

_CELL_STYLE = "text-align: left; white-space: pre-wrap"


class StyledCell(NamedTuple):
    """A cell that differs from the others.

    Args:
        text: Text of the cell.
        style: CSS declarations, for example "color: #d1242f; font-weight: 600".
    """

    text: str
    style: str


def html_table(rows: Iterable[Sequence[str | StyledCell]], columns: Sequence[str] = ()) -> str:
    """Return a table in HTML without secrets; a cell whose text is an https URL becomes a link.

    Args:
        rows: Cells of each row.
        columns: Names of the columns. Without names the first cell of each row is its heading.
    """
    head = "".join(_cell("th", name) for name in columns)
    lines = [f"<tr>{head}</tr>"] if columns else []
    for row in rows:
        tags = ("td" if columns or number else "th" for number in range(len(row)))
        cells = "".join(_cell(tag, cell) for tag, cell in zip(tags, row, strict=True))
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cell(tag: str, cell: str | StyledCell) -> str:
    text, style = cell if isinstance(cell, StyledCell) else (cell, "")
    style = f"{_CELL_STYLE}; {style}" if style else _CELL_STYLE
    text = redact(text)
    content = escape(text)
    if text.startswith("https://"):
        content = f'<a href="{content}">{content}</a>'
    return f'<{tag} style="{escape(style)}">{content}</{tag}>'
