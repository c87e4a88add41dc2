"""Write the outputs of a notebook run: a Jupyter notebook (.ipynb), and a page of it.

The page is one HTML file that needs no network. Its template is `page.html.j2`. What the template
needs and nbformat has no place for is in the metadata of notebook and cells, as `dbx_aml`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.text import plural
from dbx_aml.local.notebook.cells import CellRun, flatten_runs
from dbx_aml.local.notebook.source import Cell

_FOLDER = Path(__file__).parent
_LEXERS = {"python": "ipython3", "sql": "sql", "shell": "bash"}
# The last one is a picture, which has the same check.
_SAFE_LINK = re.compile(
    r"https?://|mailto:|#|data:image/(?:png|jpeg|gif|webp);base64,", re.IGNORECASE
)
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The page cannot know the height of the HTML in a frame: a script in the frame sends it when it
# changes, and when the page asks, because a folded frame has no height.
_FRAME = """<!doctype html><meta charset="utf-8"><style>
:root {{ color-scheme: light dark; font: 14px/1.5 system-ui, sans-serif }}
body {{ display: flow-root; margin: 2px }} table {{ border-collapse: collapse }}
th, td {{ padding: 3px 14px 3px 0; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; min-width: 5em; border: 0 }}
th {{ overflow-wrap: break-word }}
</style><body>{html}<script>
const root = document.documentElement;
const sendHeight = () => parent.postMessage(
  Math.ceil(Math.max(root.getBoundingClientRect().height, document.body.scrollHeight))
    + Math.max(0, innerHeight - root.clientHeight), "*");
new ResizeObserver(sendHeight).observe(root);
addEventListener("message", sendHeight);
addEventListener("load", sendHeight);
</script>"""


def check_page(html: Path) -> None:
    """Refuse a page whose files would replace a notebook.

    Args:
        html: File of the page.

    Raises:
        ArgumentError: The page would replace this notebook, or another .ipynb file beside it.
    """
    file = html.with_suffix(".ipynb")
    # The runner's own files have its metadata.
    is_other = file.is_file() and '"dbx_aml"' not in file.read_text("utf-8", "replace")
    if is_other or html.suffix in (".ipynb", ".py"):
        raise ArgumentError(
            f"page must not replace a notebook: got '{html}', beside which the outputs are written "
            f"to '{file.name}'; name another file that ends in .html"
        )


def write_outputs(
    html: Path,
    notebook: Path,
    cells: Sequence[Cell],
    runs: Sequence[CellRun],
    *,
    started_at: datetime,
    seconds: float,
    widgets: Mapping[str, str],
    exit_value: str | None,
) -> None:
    """Write the page of a notebook run, and beside it the .ipynb file.

    Args:
        html: File of the page.
        notebook: File of the notebook.
        cells: All cells of the notebook.
        runs: Runs of the first cells; after an error or an exit there are fewer runs than cells.
        started_at: Start time in UTC.
        seconds: Wall clock.
        widgets: Parameters passed by the caller.
        exit_value: Argument of `dbutils.notebook.exit`.
    """
    import nbformat
    from jinja2 import Environment

    failed = next((run for run in flatten_runs(runs) if run.failure is not None), None)
    node = nbformat.v4.new_notebook(cells=[_cell_node(run.cell, run) for run in runs])
    if failed is not None:
        node.cells += [_cell_node(cell, None) for cell in cells[len(runs) :]]
    node.metadata = nbformat.from_dict(
        {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
            "dbx_aml": {
                "notebook": notebook.name,
                "state": "succeeded" if failed is None else "failed",
                "started_at": f"{started_at:%Y-%m-%d %H:%M} UTC",
                "seconds": seconds,
                "widgets": dict(widgets),
                "exit_value": exit_value,
                "failure": None if failed is None else _failure(failed),
            },
        }
    )
    html.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, html.with_suffix(".ipynb"))
    environment = Environment(autoescape=True)
    environment.filters |= {
        "code": _code,
        "exit_text": _exit_text,
        "frame": lambda text: _FRAME.format(html=text),
        "markdown": markdown,
        "plural": plural,
        "terminal_text": _terminal_text,
    }
    template = environment.from_string((_FOLDER / "page.html.j2").read_text(encoding="utf-8"))
    style = (_FOLDER / "page.css").read_text(encoding="utf-8") + _code_style()
    page = template.render(nb=node, style=style)
    html.write_text(page, encoding="utf-8")


def _cell_node(cell: Cell, run: CellRun | None) -> Any:
    """Return a cell as nbformat has it; without a run, a cell that did not run."""
    import nbformat

    if cell.kind == "markdown":
        node = nbformat.v4.new_markdown_cell(cell.source.strip("\n"))
    else:
        node = nbformat.v4.new_code_cell(cell.text)
    node.metadata["dbx_aml"] = nbformat.from_dict(
        {
            "notebook": cell.notebook.name,
            "number": cell.number,
            "line": cell.line,
            "kind": cell.kind,
            "magic": cell.magic,
            "title": cell.title,
            "anchor": _anchor(cell),
            "has_run": run is not None,
            "seconds": None if run is None else run.seconds,
            "failure": None if run is None else _failure(run),
            "inner": [] if run is None else [_cell_node(inner.cell, inner) for inner in run.inner],
        }
    )
    if run is None or cell.kind == "markdown":
        return node
    # As in Databricks, the outputs of the included cells are the output of the %run cell.
    runs = flatten_runs(run.inner) if cell.kind == "run" else [run]
    node.outputs = nbformat.from_dict([output for part in runs for output in part.outputs])
    if run.failure is not None:
        error = {name: run.failure[name] for name in ("ename", "evalue", "traceback")}
        node.outputs.append(nbformat.v4.new_output("error", **error))
    return node


def _failure(run: CellRun) -> dict[str, Any] | None:
    if run.failure is None:
        return None
    return {
        "anchor": _anchor(run.cell),
        "location": run.cell.location(run.failure["line"]),
        "line": run.failure["line"],
        "message": f"{run.failure['ename']}: {run.failure['evalue']}".partition("\n")[0],
    }


def _anchor(cell: Cell) -> str:
    return f"{cell.notebook.stem}-{cell.number}"


def _code(source: str, metadata: Any) -> str:
    """Return the highlighted source of a cell, with the line numbers of its file."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    failed_line = (metadata.failure or {}).get("line")
    formatter = HtmlFormatter(
        cssclass="code",
        linenos="inline",
        linenostart=metadata.line,
        hl_lines=[] if failed_line is None else [failed_line - metadata.line + 1],
        wrapcode=True,
    )
    lexer = get_lexer_by_name(_LEXERS.get(metadata.kind, "text"), stripnl=False)
    code = source.removeprefix(metadata.magic)
    html = highlight(code.lstrip(" ") if metadata.magic else code, lexer, formatter)
    mark = f"<b>{metadata.magic}</b> " if metadata.magic else ""
    return re.sub(r'(<span class="linenos">.*?</span>)', rf"\1{mark}", html, count=1)


def _code_style() -> str:
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

    # The page's policy allows inline scripts, which frames need. So outside of the frames no HTML
    # may come from a cell.
    markdown_it = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    markdown_it.validateLink = lambda url: _SAFE_LINK.match(url) is not None  # type: ignore[method-assign]
    return markdown_it


def markdown(text: str) -> str:
    """Return markdown as HTML, HTML in it as text; tables scroll on their own."""
    html = str(_markdown().render(text.strip("\n")))
    return html.replace("<table>", '<div class="scroll"><table>').replace(
        "</table>", "</table></div>"
    )


def _terminal_text(text: str) -> str:
    """Return text without codes of a terminal; of a progress bar, its last state."""
    lines = _TERMINAL_CODES.sub("", text).rstrip("\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def _exit_text(value: str) -> str:
    try:
        return json.dumps(json.loads(value), indent=2, ensure_ascii=False)
    except ValueError:
        return value
