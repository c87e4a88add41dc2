"""What a cell shows, as pieces of HTML: code, markdown, text, tables, pictures, errors."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from typing import Any

from dbx_aml.local.notebook.cell_output import Html, Output, Picture, Table, Text
from dbx_aml.local.notebook.cell_run import Failure
from dbx_aml.local.notebook.source import Cell

_LEXERS = {"python": "python", "sql": "sql", "shell": "bash"}
_MAGICS = {"sql": "%sql", "shell": "%sh", "pip": "%pip", "run": "%run"}
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# What displayHTML got cannot know how high its frame should be: it says so itself.
_FRAME = """<!doctype html><meta charset="utf-8"><style>
:root {{ color-scheme: light dark; font: 14px/1.5 system-ui, sans-serif }}
body {{ margin: 2px }} table {{ border-collapse: collapse }}
th, td {{ padding: 3px 14px 3px 0; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; min-width: 5em }}
</style><body>{html}<script>
new ResizeObserver(() => parent.postMessage(document.documentElement.offsetHeight, "*"))
  .observe(document.documentElement)
</script>"""


def code(cell: Cell, line: int | None = None) -> str:
    """Return a cell's text, highlighted, with the line numbers of its file.

    Args:
        cell: Any but markdown.
        line: One to mark, as a number in the file.
    """
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    marked = [] if line is None else [line - cell.line + 1]
    formatter = HtmlFormatter(
        cssclass="code", linenos="inline", linenostart=cell.line, hl_lines=marked, wrapcode=True
    )
    lexer = get_lexer_by_name(_LEXERS.get(cell.kind, "text"), stripnl=False)
    magic = f"<b>{_MAGICS[cell.kind]}</b> " if cell.kind in _MAGICS else ""
    html = highlight(cell.source, lexer, formatter)
    return re.sub(r'(<span class="linenos">.*?</span>)', rf"\1{magic}", html, count=1)


def code_style() -> str:
    """Return the colours of highlighted code, for light and for dark."""
    from pygments.formatters import HtmlFormatter

    rules = {
        scheme: "\n".join(
            line
            for line in HtmlFormatter(style=style).get_style_defs(".code").splitlines()
            if re.match(r"\.code \.(?!hll|err|linenos)", line)
        )
        for scheme, style in (("light", "default"), ("dark", "github-dark"))
    }
    return "\n".join(
        f"@media (prefers-color-scheme: {scheme}) {{\n{lines}\n}}"
        for scheme, lines in rules.items()
    )


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def markdown(text: str) -> str:
    """Return markdown as HTML; tables scroll on their own."""
    html = str(_markdown().render(text.strip("\n")))
    return html.replace("<table>", '<div class="scroll"><table>').replace(
        "</table>", "</table></div>"
    )


def output(shown: Output) -> str:
    """Return what a cell showed."""
    if isinstance(shown, Text):
        lines = _TERMINAL_CODES.sub("", shown.text).rstrip("\n").split("\n")
        # Of a progress bar, its last state.
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
        kind = "text stderr" if shown.is_error else "text"
        return f'<pre class="{kind}">{escape(text)}</pre>' if text.strip() else ""
    if isinstance(shown, Picture):
        return f'<img src="{shown.url}" alt="{escape(shown.text)}">'
    if isinstance(shown, Html):
        frame = escape(_FRAME.format(html=shown.html))
        return f'<iframe sandbox="allow-scripts" srcdoc="{frame}" title="HTML"></iframe>'
    return _table(shown)


def failure(wrong: Failure, cell: Cell) -> str:
    """Return why a cell failed: what and where, and the traceback for who wants it."""
    return (
        f'<div class="failure"><p><strong>{escape(wrong.kind)}</strong> '
        f"in {escape(cell.where(wrong.line))}</p>"
        f"<pre>{escape(wrong.message)}</pre>"
        f"<details><summary>Traceback</summary><pre>{escape(wrong.trace)}</pre></details></div>"
    )


def _table(table: Table) -> str:
    number = [' class="number"' if table.is_number(i) else "" for i in range(len(table.columns))]
    head = "".join(
        f"<th{mark}>{escape(name)}<small>{escape(kind)}</small></th>"
        for name, kind, mark in zip(table.columns, table.types, number, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{mark}>{'<i>null</i>' if one is None else escape(one)}</td>"
            for one, mark in zip(row, number, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    count = len(table.rows)
    said = f"the first {count} rows" if table.has_more else f"{count} row{'s' * (count != 1)}"
    return (
        f'<figure><div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div><figcaption>{said}</figcaption></figure>"
    )
