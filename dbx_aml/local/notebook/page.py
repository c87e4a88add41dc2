"""The page of a notebook run: an HTML file with all cells and outputs that needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

from dbx_aml._common.text import plural
from dbx_aml.local.notebook import page_cells
from dbx_aml.local.notebook.cell_run import CellRun
from dbx_aml.local.notebook.source import Cell

_STYLE = Path(__file__).with_name("page.css")
# The output of a cell can neither load nor send anything over the network.
_POLICY = (
    "default-src 'none'; img-src data:; font-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
_SCRIPT = """
addEventListener("message", (event) => {
  for (const frame of document.querySelectorAll("iframe"))
    if (frame.contentWindow === event.source) frame.style.height = Number(event.data) + "px";
});
"""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The page of a notebook run.

    Args:
        notebook: File of the notebook.
        cells: All cells of the notebook.
        runs: Runs of the first cells; after an error or an exit there are fewer runs than cells.
        started_at: Start time in UTC.
        seconds: Wall clock.
        widgets: Widget values passed by the caller.
        exit_value: Argument of `dbutils.notebook.exit`.
    """

    notebook: Path
    cells: Sequence[Cell]
    runs: Sequence[CellRun]
    started_at: datetime
    seconds: float
    widgets: Mapping[str, str]
    exit_value: str | None

    def write(self, file: Path) -> None:
        """Write the page."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.html(), encoding="utf-8")

    def html(self) -> str:
        """Return the page."""
        style = _STYLE.read_text(encoding="utf-8") + page_cells.code_style()
        body = [self._head(), *map(_run, self.runs)]
        body += [_skipped_cell(cell) for cell in self.cells[len(self.runs) :] if self._failed_run]
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.notebook.name)}</title>\n<style>\n{style}\n</style>\n"
            # Before the first frame, which may send its height before the page is complete.
            f"<script>{_SCRIPT}</script>\n</head>\n"
            f"<body>\n<main>\n{''.join(body)}{self._foot()}</main>\n</body>\n</html>\n"
        )

    @property
    def _failed_run(self) -> CellRun | None:
        return next((run for run in _flatten(self.runs) if run.failure is not None), None)

    def _head(self) -> str:
        failed = self._failed_run
        state = "succeeded" if failed is None else "failed"
        times = [f"{self.started_at:%Y-%m-%d %H:%M} UTC", _seconds(self.seconds)]
        spans = "".join(f"<span>{time}</span>" for time in times)
        head = (
            f'<header><h1>{escape(self.notebook.name)}</h1><span class="state {state}">{state}'
            f"</span>{spans}</header>"
        )
        if failed is not None and failed.failure is not None:
            location = failed.cell.location(failed.failure.line)
            error = f"{failed.failure.kind}: {failed.failure.message}".partition("\n")[0]
            head += (
                f'<p class="banner"><a href="#{_anchor(failed)}">{escape(location)}</a> '
                f"{escape(error)}</p>"
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
        return f'<section class="markdown">{page_cells.markdown(cell.source)}</section>\n'
    output = "".join(map(page_cells.output, run.outputs))
    line = None
    if run.failure is not None:
        output += page_cells.failure(run.failure, cell)
        line = run.failure.line
    if cell.kind == "run":
        # As in Databricks, the outputs of the included cells are the output of the %run cell.
        outputs = [output for inner_run in _flatten(run.inner) for output in inner_run.outputs]
        output = "".join(map(page_cells.output, outputs))
    inner = "" if not run.inner else _inner(run.inner)
    css_class = " failed" if run.failure is not None else ""
    return (
        f'<section class="cell{css_class}" id="{_anchor(run)}">{_cell_header(cell, run.seconds)}'
        f"{page_cells.code(cell, line)}{inner}"
        + (f'<div class="shown">{output}</div>' if output else "")
        + "</section>\n"
    )


def _inner(runs: Sequence[CellRun]) -> str:
    names = ", ".join(dict.fromkeys(run.cell.notebook.name for run in runs))
    is_open = " open" if any(run.failure for run in _flatten(runs)) else ""
    seconds = sum(run.seconds or 0 for run in runs)
    return (
        f"<details{is_open}><summary>{plural(len(runs), 'cell')} of {escape(names)}, "
        f"{_seconds(seconds)}"
        f'</summary><div class="inner">{"".join(map(_run, runs))}</div></details>'
    )


def _skipped_cell(cell: Cell) -> str:
    if cell.kind == "markdown":
        return f'<section class="markdown waiting">{page_cells.markdown(cell.source)}</section>\n'
    header, code = _cell_header(cell, None), page_cells.code(cell)
    return f'<section class="cell waiting">{header}{code}</section>\n'


def _cell_header(cell: Cell, seconds: float | None) -> str:
    took = "not run" if seconds is None else _seconds(seconds) if seconds >= 0.05 else ""
    title = f"<b>{escape(cell.title)}</b>" if cell.title else ""
    return (
        f'<div class="bar"><span>cell {cell.number}</span>{title}<span class="took">{took}</span>'
        "</div>"
    )


def _flatten(runs: Sequence[CellRun]) -> Iterator[CellRun]:
    for run in runs:
        yield run
        yield from _flatten(run.inner)


def _anchor(run: CellRun) -> str:
    return escape(f"{run.cell.notebook.stem}-{run.cell.number}", quote=True)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"
