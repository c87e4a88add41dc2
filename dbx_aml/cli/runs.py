"""`dbx-aml runs`: what was tracked, as a table or one run in full."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from dbx_aml.cli.options import json_option, tracking_uri_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_fields, print_json, print_table

if TYPE_CHECKING:
    from rich.text import Text

    from dbx_aml.tracking.runs import RunRow

_MOST_METRICS = 4


@click.group(invoke_without_command=True)
@click.option("--experiment", help="Its name, or its path in Databricks.  [default: MLflow's]")
@click.option(
    "--max-results",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many runs at most.",
)
@tracking_uri_option
@json_option
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

    with show_progress("Reading runs"), ExitStack() as stack:
        rows = list_runs(
            experiment, max_results=max_results, tracking_uri=_tracked(tracking_uri, stack)
        )
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        click.echo("no runs")
        return
    columns = [
        Column("run id"),
        Column("name"),
        Column("status"),
        Column("started (UTC)", is_optional=True),
        Column("seconds", is_number=True, is_optional=True),
        Column("metrics", is_optional=True),
    ]
    table = [
        (_linked_id(row), row.name, row.status, *_when(row), _few(row.metrics)) for row in rows
    ]
    print_table(columns, table)


@runs.command()
@click.argument("run_id")
@tracking_uri_option
@json_option
def show(run_id: str, tracking_uri: str | None, as_json: bool) -> None:
    """One run: params, metrics with a sparkline, artifacts, its page."""
    from dbx_aml.tracking.runs import show_run

    with show_progress("Reading the run"), ExitStack() as stack:
        shown = show_run(run_id, tracking_uri=_tracked(tracking_uri, stack))
    row: RunRow = shown["run"]
    if as_json:
        print_json({**shown, "run": asdict(row)})
        return
    started, seconds = _when(row)
    print_fields(
        [
            ("run id", row.run_id),
            ("name", row.name),
            ("status", row.status),
            ("started (UTC)", started),
            ("seconds", seconds),
            ("page", row.url),
        ]
    )
    metrics = [
        (key, f"{one['last']:.6g}", one["points"], one["sparkline"])
        for key, one in shown["metrics"].items()
    ]
    artifacts = [(one["path"], _size(one["bytes"])) for one in shown["artifacts"]]
    value = Column("value", is_prose=True)
    number = partial(Column, is_number=True)
    for title, columns, rows in (
        ("Params", [Column("name"), value], shown["params"].items()),
        ("Metrics", [Column("name"), number("last"), number("points"), Column("by step")], metrics),
        ("Tags", [Column("name"), value], shown["tags"].items()),
        ("Artifacts", [Column("path"), number("size")], artifacts),
    ):
        if rows:
            print_table(columns, rows, title=f"\n{title}")
        else:
            click.echo(f"\n{title}: none")


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


def _linked_id(row: RunRow) -> Text:
    from rich.text import Text

    return Text(row.run_id, style=f"link {row.url}" if row.url else "")


def _size(size: int | None) -> str:
    from rich.filesize import decimal

    return "" if size is None or size < 0 else decimal(size)
