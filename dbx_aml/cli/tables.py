"""Everything that the command prints: lines, JSON, and tables.

Names of runs, tags and errors are shown as text: brackets are no markup, control
codes do not reach the terminal, secrets are replaced. Numbers, ids, URLs, paths and column heads
are whole at every width.

A table that is too wide for the terminal first leaves out its optional columns. If only a few rows
are too wide, their long cells are whole and the cells after them stand on the next line. Else the
table becomes one small block of lines for each row. Only prose is wrapped, and only between words.
In a pipe each row is one line, no line is wrapped and no column is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TextIO

import click

from dbx_aml._common.redact import environment_secrets, redact
from dbx_aml._common.text import CONTROL_CODES, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_CODE_NAME = r"\\(?:r|x[0-9a-f]{2}|u[0-9a-f]{4})"
_GAP = 2
_MIN_PROSE_WIDTH = 24


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        header: Text above the column, for example "rows scored".
        is_number: The cells are numbers: they end at the right edge.
        is_prose: The cells are sentences: they may be wrapped between words.
        is_optional: A terminal that is too narrow may leave the column out, the last one first.
    """

    header: str
    is_number: bool = False
    is_prose: bool = False
    is_optional: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "header", printable(self.header))


def stdout_console() -> Console:
    """Return a console on stdout that colours nothing by itself."""
    from rich.console import Console

    return Console(highlight=False)


def print_line(
    text: str, *, is_error: bool = False, file: TextIO | None = None, color: str | None = None
) -> None:
    """Print a text on stdout.

    Args:
        text: Text without markup.
        is_error: Whether to print on stderr instead.
        file: Another stream.
        color: Colour of the text on a terminal, for example "green".
    """
    click.secho(printable(text), file=file, err=is_error, fg=color)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON on stdout; a time is written in ISO 8601.

    NaN and the infinities, which JSON lacks, are texts, as in MLflow's REST API.
    """
    texts = json.loads(json.dumps(value, default=_json_text), parse_constant=str)
    plain = _redact_texts(texts, environment_secrets())
    line = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    # JSON itself escapes only the control codes below the blank.
    click.echo(CONTROL_CODES.sub(lambda match: f"\\u{ord(match[0]):04x}", line))


def shown_fields(item: Any) -> dict[str, Any]:
    """Return the fields of a dataclass object that its `repr` shows, by name."""
    return {shown.name: getattr(item, shown.name) for shown in fields(item) if shown.repr}


def print_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    console: Console | None = None,
) -> None:
    """Print rows below their column heads.

    Args:
        columns: Columns from left to right.
        rows: A row has a cell for each column: a text (no markup), a number, None for nothing,
            or a `rich.text.Text`, which has its own colours.
        title: Line above the table; "" for none.
        console: Console to print on; default stdout.
    """
    console = console or stdout_console()
    cells = [[_to_text(value) for value in row] for row in rows]
    # The terminal gets the table in one write.
    with console:
        _print_title(title, console)
        _print_rows(columns, cells, console)


def _print_rows(
    columns: Sequence[Column], cells: Sequence[Sequence[Text]], console: Console
) -> None:
    if not console.file.isatty():
        columns, cells = _with_urls(columns, cells)
        cells = [[_on_one_line(cell) for cell in row] for row in cells]
        _print_columns(columns, cells, _natural_widths(columns, cells), console)
        return
    shown = list(range(len(columns)))
    while True:
        shown_columns = [columns[index] for index in shown]
        shown_cells = [[row[index] for index in shown] for row in cells]
        widths = _fitting_widths(shown_columns, shown_cells, console.width)
        optional = [index for index in shown if columns[index].is_optional]
        if widths is None and not optional:
            widths = _widths_of_most_rows(shown_columns, shown_cells, console.width)
        if widths is not None:
            _print_columns(shown_columns, shown_cells, widths, console)
            return
        if not optional:
            break
        shown.remove(optional[-1])
    for number, row in enumerate(cells):
        if number:
            console.print()
        _print_block(columns, row, console)


def linked_text(text: str, url: str | None) -> Text:
    """Return a cell that links to a page; in a pipe the URL is in a column of its own."""
    from rich.style import Style
    from rich.text import Text

    return Text(text, style=Style(link=printable(url)) if url else "")


def _with_urls(
    columns: Sequence[Column], cells: Sequence[Sequence[Text]]
) -> tuple[list[Column], list[list[Text]]]:
    """Add a column with the URLs for each column whose cells link to pages."""
    from rich.text import Text

    urls = [[getattr(cell.style, "link", None) or "" for cell in row] for row in cells]
    linked = [index for index in range(len(columns)) if any(row[index] for row in urls)]
    url_columns = [Column(f"{columns[index].header} page") for index in linked]
    return [*columns, *url_columns], [
        [*row, *(Text(row_urls[index]) for index in linked)]
        for row, row_urls in zip(cells, urls, strict=True)
    ]


def print_fields(
    fields: Iterable[tuple[str, Any]],
    *,
    title: str = "",
    is_prose: bool = True,
    console: Console | None = None,
) -> None:
    """Print names and values, one below the other; values of None or "" are left out.

    Args:
        fields: Names and values; a value may be what a cell of `print_table` may be.
        title: Line above; "" for none.
        is_prose: The values are sentences, which may be wrapped between words. Paths and commands
            are not wrapped, so that they can be copied.
        console: Console to print on; default stdout.
    """
    console = console or stdout_console()
    texts = [(Column(name, is_prose=is_prose), _to_text(value)) for name, value in fields]
    texts = [(column, text) for column, text in texts if text.plain]
    with console:
        _print_title(title, console)
        _print_block([column for column, _ in texts], [text for _, text in texts], console)


def _to_text(value: Any) -> Text:
    from rich.text import Text

    if isinstance(value, Text):
        text = _printable_text(value.plain)
        return value if text.plain == value.plain else text
    if value is None:
        return Text()
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, float):
        return Text(f"{value:,.1f}")
    return _printable_text(str(value))


def _printable_text(text: str) -> Text:
    """Return a printable text; a terminal shows the names of control codes in reverse."""
    from rich.text import Text

    shown = Text(printable(text))
    if shown.plain != text:
        shown.highlight_regex(_CODE_NAME, "reverse")
    return shown


def _redact_texts(value: Any, secrets: set[str]) -> Any:
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, list):
        return [_redact_texts(item, secrets) for item in value]
    if isinstance(value, dict):
        return {redact(name, secrets): _redact_texts(item, secrets) for name, item in value.items()}
    return value


def _json_text(value: Any) -> str:
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


def _on_one_line(cell: Text) -> Text:
    from rich.text import Text

    return Text(" ").join(cell.split("\n"))


def _print_title(title: str, console: Console) -> None:
    from rich.text import Text

    if title:
        console.print(Text(printable(title), style="bold"), soft_wrap=True)


def _longest(texts: Iterable[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def _natural_widths(columns: Sequence[Column], cells: Sequence[Sequence[Text]]) -> list[int]:
    """Return for each column the width at which no line of it is wrapped."""
    return [
        _longest([column.header, *(line for row in cells for line in row[index].plain.split("\n"))])
        for index, column in enumerate(columns)
    ]


def _fitting_widths(
    columns: Sequence[Column], cells: Sequence[Sequence[Text]], total: int
) -> list[int] | None:
    """Return the width of each column, None where the table does not fit.

    A head of several words may be wrapped, and prose: down to its longest word, but not to less
    than a readable width. In the last column a longer word goes beyond the edge.
    """
    natural = _natural_widths(columns, cells)
    least = []
    for index, column in enumerate(columns):
        plain = [row[index].plain for row in cells]
        head = _longest(column.header.split())
        if column.is_prose:
            is_last = index == len(columns) - 1
            words = 0 if is_last else _longest(word for text in plain for word in text.split())
            least.append(max(head, words, min(natural[index], _MIN_PROSE_WIDTH)))
        else:
            least.append(max(head, _longest(line for text in plain for line in text.split("\n"))))
    spare = total - sum(least) - _GAP * (len(columns) - 1)
    if spare < 0:
        return None
    widths = list(least)
    for index, column in enumerate(columns):
        if not column.is_prose:
            widths[index] += min(spare, natural[index] - least[index])
            spare -= widths[index] - least[index]
    # Each prose column gets its share of the spare width.
    lacking = {
        index: natural[index] - least[index]
        for index, column in enumerate(columns)
        if column.is_prose
    }
    for index, missing in lacking.items():
        widths[index] += min(missing, spare * missing // max(sum(lacking.values()), 1))
    return widths


def _widths_of_most_rows(
    columns: Sequence[Column], cells: Sequence[Sequence[Text]], total: int
) -> list[int] | None:
    """Return widths that fit two of three rows or more, None where there are none."""
    rows = sorted(cells, key=lambda row: sum(cell.cell_len for cell in row))
    for count in range(len(rows) - 1, (2 * len(rows) - 1) // 3, -1):
        widths = _fitting_widths(columns, rows[:count], total)
        if widths is not None:
            return widths
    return None


def _wrapped(text: Text, width: int) -> list[Text]:
    """Return the lines of a text; a word that is longer than the width stays whole."""
    from rich.cells import cell_len

    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        offsets: list[int] = []
        used = 0
        for word in re.finditer(r"\S+\s*", line.plain):
            if used and used + cell_len(word[0].rstrip()) > width:
                offsets.append(word.start())
                used = 0
            used += cell_len(word[0])
        lines += line.divide(offsets)
    return lines


def _print_columns(
    columns: Sequence[Column],
    cells: Sequence[Sequence[Text]],
    widths: Sequence[int],
    console: Console,
) -> None:
    from rich.text import Text

    heads = [Text(column.header, style="bold") for column in columns]
    for row in [heads, *cells]:
        wrapped = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, wrapped))):
            line = Text()
            for index, (lines, width) in enumerate(zip(wrapped, widths, strict=True)):
                cell = lines[number].copy() if number < len(lines) else Text()
                cell.rstrip()
                start = sum(widths[:index]) + _GAP * index
                if cell.plain and line.cell_len > start - (_GAP if index else 0):
                    line.rstrip()
                    console.print(line, soft_wrap=True)
                    line = Text(" " * (start - _GAP))
                missing = width - cell.cell_len
                if columns[index].is_number:
                    cell.pad_left(missing)
                else:
                    cell.pad_right(missing)
                line.append(" " * _GAP if index else "").append_text(cell)
            line.rstrip()
            console.print(line, soft_wrap=True)


def _print_block(columns: Sequence[Column], row: Sequence[Text], console: Console) -> None:
    """Print a row as lines of a column's head and the cell; empty cells are left out."""
    from rich.text import Text

    head_width = _longest(column.header for column in columns)
    width = max(console.width - head_width - _GAP, _MIN_PROSE_WIDTH)
    for column, cell in zip(columns, row, strict=True):
        if not cell.plain:
            continue
        is_wrapped = column.is_prose and console.file.isatty()
        lines = _wrapped(cell, width) if is_wrapped else list(cell.split("\n", allow_blank=True))
        for number, text in enumerate(lines):
            line = Text(column.header if number == 0 else "", style="bold")
            line.pad_right(head_width + _GAP - line.cell_len)
            line = Text().append_text(line).append_text(text)
            line.rstrip()
            console.print(line, soft_wrap=True)


def table_with_version(table: str, version: int | None) -> str:
    """Return a table with its version, if it has one, for example "flights at version 7"."""
    return table if version is None else f"{table} at version {version}"
