"""One HTML file with every cell of a notebook and what it showed; it needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

from dbx_aml.local.notebook import page_cells as fragment
from dbx_aml.local.notebook.cell_run import CellRun
from dbx_aml.local.notebook.source import Cell

_STYLE = Path(__file__).with_name("page.css")
# Nothing that a cell shows can fetch anything, or send anything away.
_POLICY = (
    "default-src 'none'; img-src data:; font-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
_SCRIPT = """
addEventListener("message", (event) => {
  for (const frame of document.querySelectorAll("iframe"))
    if (frame.contentWindow === event.source) frame.style.height = Number(event.data) + "px";
});
"""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A notebook that was run.

    Args:
        notebook: The file.
        cells: All of its cells.
        runs: Those that ran, from the first on.
        began: When, in UTC.
        seconds: Wall clock.
        widgets: The values that it was given.
        exit_value: What it gave to `dbutils.notebook.exit`.
    """

    notebook: Path
    cells: Sequence[Cell]
    runs: Sequence[CellRun]
    began: datetime
    seconds: float
    widgets: Mapping[str, str]
    exit_value: str | None

    def write(self, file: Path) -> None:
        """Write the page."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.html(), encoding="utf-8")

    def html(self) -> str:
        """Return the page."""
        style = _STYLE.read_text(encoding="utf-8") + fragment.code_style()
        body = [self._head(), *map(_run, self.runs)]
        body += [_waiting(cell) for cell in self.cells[len(self.runs) :] if self._wrong]
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.notebook.name)}</title>\n<style>\n{style}\n</style>\n"
            # Before the first frame, which may speak while the rest is still being read.
            f"<script>{_SCRIPT}</script>\n</head>\n"
            f"<body>\n<main>\n{''.join(body)}{self._foot()}</main>\n</body>\n</html>\n"
        )

    @property
    def _wrong(self) -> CellRun | None:
        return next((run for run in _every(self.runs) if run.failure is not None), None)

    def _head(self) -> str:
        wrong = self._wrong
        state = "succeeded" if wrong is None else "failed"
        facts = [f"{self.began:%Y-%m-%d %H:%M} UTC", _seconds(self.seconds)]
        said = "".join(f"<span>{fact}</span>" for fact in facts)
        head = (
            f'<header><h1>{escape(self.notebook.name)}</h1><span class="state {state}">{state}'
            f"</span>{said}</header>"
        )
        if wrong is not None and wrong.failure is not None:
            place = wrong.cell.where(wrong.failure.line)
            what = f"{wrong.failure.kind}: {wrong.failure.message}".partition("\n")[0]
            head += (
                f'<p class="banner"><a href="#{_anchor(wrong)}">{escape(place)}</a> {escape(what)}'
                "</p>"
            )
        if self.widgets:
            rows = "".join(
                f"<dt>{escape(name)}</dt><dd>{escape(value) or '<i>empty</i>'}</dd>"
                for name, value in self.widgets.items()
            )
            head += f'<section class="values"><h2>Widgets</h2><dl>{rows}</dl></section>'
        return head

    def _foot(self) -> str:
        if self.exit_value is None:
            return ""
        try:
            text = json.dumps(json.loads(self.exit_value), indent=2, ensure_ascii=False)
        except ValueError:
            text = self.exit_value
        return f'<section class="exit"><h2>Exit value</h2><pre>{escape(text)}</pre></section>'


def _run(run: CellRun) -> str:
    cell = run.cell
    if cell.kind == "markdown":
        return f'<section class="markdown">{fragment.markdown(cell.source)}</section>\n'
    shown = "".join(map(fragment.output, run.outputs))
    line = None
    if run.failure is not None:
        shown += fragment.failure(run.failure, cell)
        line = run.failure.line
    if cell.kind == "run":
        # What the cells of that notebook show belongs here, as in Databricks.
        shown = "".join(fragment.output(one) for each in _every(run.inner) for one in each.outputs)
    inner = "" if not run.inner else _inner(run.inner)
    mark = " failed" if run.failure is not None else ""
    return (
        f'<section class="cell{mark}" id="{_anchor(run)}">{_bar(cell, run.seconds)}'
        f"{fragment.code(cell, line)}{inner}"
        + (f'<div class="shown">{shown}</div>' if shown else "")
        + "</section>\n"
    )


def _inner(runs: Sequence[CellRun]) -> str:
    names = ", ".join(dict.fromkeys(run.cell.notebook.name for run in runs))
    is_open = " open" if any(run.failure for run in _every(runs)) else ""
    seconds = sum(run.seconds or 0 for run in runs)
    return (
        f"<details{is_open}><summary>{len(runs)} cells of {escape(names)}, {_seconds(seconds)}"
        f'</summary><div class="inner">{"".join(map(_run, runs))}</div></details>'
    )


def _waiting(cell: Cell) -> str:
    if cell.kind == "markdown":
        return f'<section class="markdown waiting">{fragment.markdown(cell.source)}</section>\n'
    return f'<section class="cell waiting">{_bar(cell, None)}{fragment.code(cell)}</section>\n'


def _bar(cell: Cell, seconds: float | None) -> str:
    took = "not run" if seconds is None else _seconds(seconds) if seconds >= 0.05 else ""
    title = f"<b>{escape(cell.title)}</b>" if cell.title else ""
    return (
        f'<div class="bar"><span>cell {cell.number}</span>{title}<span class="took">{took}</span>'
        "</div>"
    )


def _every(runs: Sequence[CellRun]) -> Iterator[CellRun]:
    for run in runs:
        yield run
        yield from _every(run.inner)


def _anchor(run: CellRun) -> str:
    return escape(f"{run.cell.notebook.stem}-{run.cell.number}", quote=True)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"
