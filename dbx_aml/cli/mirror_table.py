"""What `dbx-aml mirror` shows: how far it is, and tables."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dbx_aml.cli.console import console

if TYPE_CHECKING:
    from mlflow.entities import Run

    from dbx_aml.tracking.mirror.mirror_run import Outcome
    from dbx_aml.tracking.mirror.mirror_runs import Progress
    from dbx_aml.tracking.mirror.server import Side

_LINE_EVERY_S = 10.0


@contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """Show how far it is: on a terminal as a bar with the time left, else a line now and then."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(now: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_EVERY_S:
                last = time.monotonic()
                click.echo(f"{now.done} of {now.runs} runs, {_amounts(now)}", err=True)

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("runs"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[amounts]}"),
        TimeRemainingColumn(),
        console=console(),
        transient=True,
    )
    with bar:
        task = bar.add_task("runs", total=None, amounts="")

        def show(now: Progress) -> None:
            bar.update(task, completed=now.done, total=now.runs, amounts=_amounts(now))

        yield show


def _amounts(now: Progress) -> str:
    from rich.filesize import decimal

    return f"{now.points:,} points, {decimal(now.bytes)}"


def print_plan(src: Side, dst: Side, runs: list[Run], *, as_json: bool) -> None:
    """Print which runs would be mirrored."""
    from dbx_aml.tracking.mirror import pending_runs as queue

    rows = [
        {
            "run_id": run.info.run_id,
            "name": run.info.run_name or "",
            "status": run.info.status,
            "params": len(run.data.params),
            "metrics": len(run.data.metrics),
        }
        for run in runs
        if not queue.is_same(run)
    ]
    if as_json:
        click.echo(json.dumps({"dry_run": True, "runs": rows}, ensure_ascii=False))
        return
    title = f"Dry run, nothing was written: {src.workspace} → {dst.workspace}"
    if rows:
        print_table(title, tuple(rows[0]), [tuple(map(str, row.values())) for row in rows])
    else:
        click.echo("nothing to mirror")


def print_outcomes(src: Side, dst: Side, outcomes: list[Outcome], *, as_json: bool) -> None:
    """Print what became of each run; those at which nothing was to do only as a count."""
    counts = Counter(one.state for one in outcomes)
    if as_json:
        rows = [
            {name: value for name, value in vars(one).items() if name != "error"}
            for one in outcomes
        ]
        click.echo(json.dumps({"counts": counts, "runs": rows}, ensure_ascii=False))
        return
    rows_shown = [
        (one.run_id, one.name, one.state, f"{one.points:,}", f"{one.bytes:,}", one.reason)
        for one in outcomes
        if one.state != "same"
    ]
    if rows_shown:
        columns = ("run", "name", "is", "points", "bytes", "because")
        print_table(f"{src.workspace} → {dst.workspace}", columns, rows_shown)
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    click.echo(said or "nothing to mirror")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; its cells are text, no markup."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console(stderr=False).print(table)


def span(seconds: float) -> str:
    """Return how long ago something was, for example "3 h"."""
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
