"""`dbx-aml doctor`: what is wrong, before a job finds out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dbx_aml.cli.options import config_option, json_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_json, print_table

if TYPE_CHECKING:
    from dbx_aml.doctor.report import Report

_STYLES = {"failed": "bold red", "warning": "yellow", "ok": "green", "skipped": "dim"}


@click.command()
@config_option
@click.option("--model-uri", help="A model: its requirements, and may it be loaded.")
@click.option("--volume", help="/Volumes/<catalog>/<schema>/<volume>: may it be read and written.")
@json_option
@click.pass_context
def doctor(
    ctx: click.Context,
    config: str | None,
    model_uri: str | None,
    volume: str | None,
    as_json: bool,
) -> None:
    """Say what is wrong before a job finds out; creates nothing.

    Settings, packages, network, sign-in, permissions, this machine: all checks run at once and end
    within five seconds. Exit code 1 where one failed.
    """
    from dbx_aml.doctor.run import run_doctor

    with show_progress("Checking"):
        report = run_doctor(config=config, model_uri=model_uri, volume=volume)
    if as_json:
        print_json(report.as_json())
    else:
        _print_report(report)
    if report.failed:
        ctx.exit(1)


def _print_report(report: Report) -> None:
    from rich.text import Text

    rows = []
    for state, check, seconds, message, fix in report.rows():
        result = Text(message, style="dim" if state == "skipped" else "")
        if fix:
            result.append(f"\n→ {fix}", style="bold")
        rows.append((Text(state, style=_STYLES[state]), check, seconds, result))
    columns = [
        Column("status"),
        Column("check", is_prose=True),
        Column("s", is_number=True, is_optional=True),
        Column("result and fix", is_prose=True),
    ]
    print_table(columns, rows)
    click.echo(report.summary)
