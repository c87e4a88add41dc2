"""`dbx-aml runs`: what was tracked, as a table or one run in full."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from dbx_aml.cli.console import console

if TYPE_CHECKING:
    from dbx_aml.tracking.runs import RunRow

_MOST_METRICS = 4
_tracking_uri = click.option(
    "--tracking-uri", help="MLflow tracking server.  [default: the link's, or MLflow's]"
)
_json = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")


@click.group(invoke_without_command=True)
@click.option("--experiment", help="Its name, or its path in Databricks.  [default: MLflow's]")
@click.option(
    "--max-results",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many runs at most.",
)
@_tracking_uri
@_json
@click.pass_context
def runs(
    ctx: click.Context,
    experiment: str | None,
    max_results: int,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """The newest runs of an experiment, with status, metrics and links."""
    if ctx.invoked_subcommand:
        return
    from dbx_aml.tracking.runs import list_runs

    with ExitStack() as stack:
        rows = list_runs(
            experiment, max_results=max_results, tracking_uri=_tracked(tracking_uri, stack)
        )
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], default=_text, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for name in ("run", "name", "status", "started (UTC)", "seconds", "metrics"):
        table.add_column(name, overflow="fold", justify="right" if name == "seconds" else "left")
    for row in rows:
        metrics = escape(_few(row.metrics))
        table.add_row(_linked(row), escape(row.name), row.status, *_when(row), metrics)
    console(stderr=False).print(table if rows else "no runs")


@runs.command()
@click.argument("run_id")
@_tracking_uri
@_json
def show(run_id: str, tracking_uri: str | None, as_json: bool) -> None:
    """One run: params, metrics with a sparkline, artifacts, its page."""
    from dbx_aml.tracking.runs import show_run

    with ExitStack() as stack:
        shown = show_run(run_id, tracking_uri=_tracked(tracking_uri, stack))
    row: RunRow = shown["run"]
    if as_json:
        click.echo(json.dumps({**shown, "run": asdict(row)}, default=_text, ensure_ascii=False))
        return
    out = console(stderr=False)
    started, seconds = _when(row)
    out.print(f"{row.name}  {row.status}  {started} UTC  {seconds} s", markup=False)
    out.print(row.url or f"run {row.run_id}", markup=False, soft_wrap=True)
    metrics = [
        (key, f"{one['last']:.6g}", str(one["points"]), one["sparkline"])
        for key, one in shown["metrics"].items()
    ]
    artifacts = [(one["path"], _size(one["bytes"])) for one in shown["artifacts"]]
    for title, columns, rows in (
        ("Params", ("name", "value"), shown["params"].items()),
        ("Metrics", ("name", "last", "points", "by step"), metrics),
        ("Tags", ("name", "value"), shown["tags"].items()),
        ("Artifacts", ("path", "size"), artifacts),
    ):
        out.print(_table(title, columns, list(rows)))


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return f"{title}: none"
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _tracked(tracking_uri: str | None, stack: ExitStack) -> str | None:
    """Return the server that is asked; one that no argument names is the link's, connected."""
    from dbx_aml.link.link import Link
    from dbx_aml.tracking.connect import connect

    if tracking_uri or "MLFLOW_TRACKING_URI" in os.environ:
        return tracking_uri
    stack.enter_context(connect(Link.load()))
    return None


def _when(row: RunRow) -> tuple[str, str]:
    started = f"{row.started:%Y-%m-%d %H:%M:%S}" if row.started else ""
    return started, "" if row.seconds is None else f"{row.seconds:.1f}"


def _few(metrics: dict[str, float]) -> str:
    shown = [f"{key}={value:.4g}" for key, value in list(metrics.items())[:_MOST_METRICS]]
    more = len(metrics) - _MOST_METRICS
    return "\n".join(shown + ([f"and {more} more"] if more > 0 else []))


def _linked(row: RunRow) -> str:
    return f"[link={row.url}]{row.run_id}[/link]" if row.url else row.run_id


def _size(size: int | None) -> str:
    from rich.filesize import decimal

    return "" if size is None or size < 0 else decimal(size)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
