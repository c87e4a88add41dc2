"""`dbx-aml runs`: a table of runs, or everything about a run."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from dbx_aml.cli.options import json_option, max_results_option, tracking_uri_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import (
    Column,
    linked_text,
    print_fields,
    print_json,
    print_line,
    print_table,
)

if TYPE_CHECKING:
    from dbx_aml.tracking.runs import RunRow

_MAX_METRICS = 4


@click.group(invoke_without_command=True)
@click.option("--experiment", help="Name, or path in Databricks.  [default: MLflow's]")
@max_results_option("runs")
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
    """List the newest runs of an experiment.

    Each run has its status, metrics and the URL of its page.
    """
    if ctx.invoked_subcommand:
        return
    from dbx_aml.tracking.runs import list_runs

    with show_progress("Reading runs"), ExitStack() as stack:
        server_uri = _resolve_tracking_uri(tracking_uri, stack)
        rows = list_runs(experiment, max_results=max_results, tracking_uri=server_uri)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        name = repr(experiment) if experiment else "MLflow's default experiment"
        print_line(f"no runs in {name}; choose another with --experiment")
        return
    columns = [
        Column("run id"),
        Column("name"),
        Column("status"),
        Column("started (UTC)", is_optional=True),
        Column("seconds", is_number=True, is_optional=True),
        Column("metrics", is_optional=True),
    ]
    cells = [
        (
            linked_text(row.run_id, row.url),
            row.name,
            row.status,
            *_format_times(row),
            _format_metrics(row.metrics),
        )
        for row in rows
    ]
    print_table(columns, cells)


@runs.command()
@click.argument("run_id")
@tracking_uri_option
@json_option
def show(run_id: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show a run: params, metrics, tags and artifacts.

    Each metric has a sparkline.
    """
    from dbx_aml.tracking.runs import show_run

    with show_progress("Reading the run"), ExitStack() as stack:
        run = show_run(run_id, tracking_uri=_resolve_tracking_uri(tracking_uri, stack))
    row: RunRow = run["run"]
    if as_json:
        print_json({**run, "run": asdict(row)})
        return
    started, seconds = _format_times(row)
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
        (key, _format_metric(metric["last"]), metric["points"], metric["sparkline"])
        for key, metric in run["metrics"].items()
    ]
    artifacts = [(file["path"], _format_size(file["bytes"])) for file in run["artifacts"]]
    value = Column("value", is_prose=True)
    number = partial(Column, is_number=True)
    for title, columns, rows in (
        ("Params", [Column("name"), value], run["params"].items()),
        ("Metrics", [Column("name"), number("last"), number("points"), Column("by step")], metrics),
        ("Tags", [Column("name"), value], run["tags"].items()),
        ("Artifacts", [Column("path"), number("size")], artifacts),
    ):
        if rows:
            print_table(columns, rows, title=f"\n{title}")
        else:
            print_line(f"\n{title}: none")


def _resolve_tracking_uri(tracking_uri: str | None, stack: ExitStack) -> str | None:
    """Return the URI of the option, or connect the link and return None for MLflow's own URI."""
    from dbx_aml.link.link import Link
    from dbx_aml.tracking.connect import connect

    if tracking_uri or "MLFLOW_TRACKING_URI" in os.environ:
        return tracking_uri
    stack.enter_context(connect(Link.load()))
    return None


def _format_times(row: RunRow) -> tuple[str, str]:
    started = f"{row.started:%Y-%m-%d %H:%M:%S}" if row.started else ""
    return started, "" if row.seconds is None else f"{row.seconds:.1f}"


def _format_metric(value: float) -> str:
    """Return a whole number with all its digits, any other one with six."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def _format_metrics(metrics: dict[str, float]) -> str:
    lines = [
        f"{key}={_format_metric(value)}" for key, value in list(metrics.items())[:_MAX_METRICS]
    ]
    hidden = len(metrics) - _MAX_METRICS
    return "\n".join(lines + ([f"and {hidden} more"] if hidden > 0 else []))


def _format_size(size: int | None) -> str:
    from rich.filesize import decimal

    return "" if size is None or size < 0 else decimal(size)
