"""HTML of a cell and of its outputs: code, Markdown, text, tables, pictures, errors."""

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
# The last one is a picture, which has the same check.
_SAFE_LINK = re.compile(
    r"https?://|mailto:|#|data:image/(?:png|jpeg|gif|webp);base64,", re.IGNORECASE
)
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The page cannot know the height of the HTML in a frame: a script in the frame sends it.
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
    """Return the highlighted source of a cell, with the line numbers of its file.

    Args:
        cell: Cell of any kind but markdown.
        line: Line number in the file, for a line to highlight.
    """
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    highlighted = [] if line is None else [line - cell.line + 1]
    formatter = HtmlFormatter(
        cssclass="code",
        linenos="inline",
        linenostart=cell.line,
        hl_lines=highlighted,
        wrapcode=True,
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


def _is_safe_link(url: str) -> bool:
    return _SAFE_LINK.match(url) is not None


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    # The page's policy allows inline scripts, which frames need. So outside of the frames no HTML
    # may come from a cell.
    markdown_it = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    markdown_it.validateLink = _is_safe_link  # type: ignore[method-assign]
    return markdown_it


def markdown(text: str) -> str:
    """Return markdown as HTML, HTML in it as text; tables scroll on their own."""
    html = str(_markdown().render(text.strip("\n")))
    return html.replace("<table>", '<div class="scroll"><table>').replace(
        "</table>", "</table></div>"
    )


def output(cell_output: Output) -> str:
    """Return an output of a cell as HTML."""
    if isinstance(cell_output, Text):
        lines = _TERMINAL_CODES.sub("", cell_output.text).rstrip("\n").split("\n")
        # Of a progress bar, its last state.
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
        kind = "text stderr" if cell_output.is_error else "text"
        return f'<pre class="{kind}">{escape(text)}</pre>' if text.strip() else ""
    if isinstance(cell_output, Picture):
        return f'<img src="{cell_output.url}" alt="{escape(cell_output.text)}">'
    if isinstance(cell_output, Html):
        frame = escape(_FRAME.format(html=cell_output.html))
        return f'<iframe sandbox="allow-scripts" srcdoc="{frame}" title="HTML"></iframe>'
    return _table(cell_output)


def failure(error: Failure, cell: Cell) -> str:
    """Return the error of a cell: class, location, message, and a folded traceback."""
    return (
        f'<div class="failure"><p><strong>{escape(error.kind)}</strong> '
        f"in {escape(cell.location(error.line))}</p>"
        f"<pre>{escape(error.message)}</pre>"
        f"<details><summary>Traceback</summary><pre>{escape(error.trace)}</pre></details></div>"
    )


def _table(table: Table) -> str:
    css_classes = [
        ' class="number"' if table.is_number(i) else "" for i in range(len(table.columns))
    ]
    head = "".join(
        f"<th{css_class}>{escape(name)}<small>{escape(kind)}</small></th>"
        for name, kind, css_class in zip(table.columns, table.types, css_classes, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{css_class}>{'<i>null</i>' if value is None else escape(value)}</td>"
            for value, css_class in zip(row, css_classes, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    count = len(table.rows)
    caption = (
        f"the first {count} rows" if table.is_truncated else f"{count} row{'s' * (count != 1)}"
    )
    return (
        f'<figure><div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div><figcaption>{caption}</figcaption></figure>"
    )
