"""What `dbx-aml mirror` shows: how far it is, and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_json, print_table

if TYPE_CHECKING:
    from mlflow.entities import Run

    from dbx_aml.tracking.mirror.mirror_run import Outcome
    from dbx_aml.tracking.mirror.mirror_runs import Progress
    from dbx_aml.tracking.mirror.server import Side


@contextmanager
def mirror_progress() -> Iterator[Callable[[Progress], None]]:
    """Show how many runs are mirrored, and how much of them was written."""
    from rich.filesize import decimal

    with show_progress("Mirroring", "runs") as report:

        def show(progress: Progress) -> None:
            amounts = f"{progress.points:,} points, {decimal(progress.bytes)}"
            report("Mirroring", progress.done, progress.runs, amounts)

        yield show


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
        print_json({"dry_run": True, "runs": rows})
        return
    title = f"Dry run, nothing was written: {src.workspace} → {dst.workspace}"
    columns = [
        Column("run id"),
        Column("name"),
        Column("status", is_optional=True),
        Column("params", is_number=True, is_optional=True),
        Column("metrics", is_number=True, is_optional=True),
    ]
    if rows:
        print_table(columns, [tuple(row.values()) for row in rows], title=title)
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
        print_json({"counts": counts, "runs": rows})
        return
    columns = [
        Column("run id"),
        Column("name"),
        Column("status"),
        Column("points", is_number=True, is_optional=True),
        Column("bytes", is_number=True, is_optional=True),
        Column("reason", is_prose=True),
    ]
    changed_runs = [
        (one.run_id, one.name, one.state, one.points, one.bytes, one.reason)
        for one in outcomes
        if one.state != "same"
    ]
    if changed_runs:
        print_table(columns, changed_runs, title=f"{src.workspace} → {dst.workspace}")
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    click.echo(said or "nothing to mirror")


def format_age(seconds: float) -> str:
    """Return how long ago something was, for example "3 h"."""
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
