"""`dbx-aml doctor`: name each problem before a job fails."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dbx_aml._common.text import plural
from dbx_aml.cli.options import config_option, json_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_json, print_line, print_table

if TYPE_CHECKING:
    from dbx_aml.doctor.report import DoctorReport

_STYLES = {"failed": "bold red", "warning": "yellow", "ok": "green", "skipped": "dim"}


@click.command()
@config_option
@click.option("--model-uri", help="A model to check: its requirements and permissions.")
@click.option("--volume", help="A volume to check: /Volumes/<catalog>/<schema>/<volume>.")
@click.option(
    "--path", type=click.Path(exists=True, path_type=Path), metavar="FOLDER",
    help="Only read notebooks and code below FOLDER, and list what is retired there.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="With --path: exit with 1 if anything is listed.")
@json_option
@click.pass_context
def doctor(
    ctx: click.Context,
    config: str | None,
    model_uri: str | None,
    volume: str | None,
    path: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Name each problem before a job fails; create nothing.

    Settings, packages, network, sign-in, permissions and this machine: all checks run at once and
    end within five seconds. The exit code is 1 if a check failed.

    With --path nothing of this is checked. The files below the folder are read for what
    Microsoft, Databricks and MLflow have retired; each line is listed with its replacement.
    """
    if path is not None:
        if config or model_uri or volume:
            raise click.UsageError("--path reads files only: leave the other options out.")
        _print_retired(ctx, path, strict=strict, as_json=as_json)
        return
    if strict:
        raise click.UsageError("--strict needs --path.")
    from dbx_aml.doctor.run import run_doctor

    with show_progress("Checking"):
        report = run_doctor(config=config, model_uri=model_uri, volume=volume)
    print_report(ctx, report, as_json=as_json)


def _print_retired(ctx: click.Context, path: Path, *, strict: bool, as_json: bool) -> None:
    from dbx_aml.doctor.retired import find_files, find_retired

    files = find_files(path)
    uses = [use for file in files for use in find_retired(file)]
    if as_json:
        rows = [{**asdict(use), "file": str(use.file)} for use in uses]
        print_json({"files": len(files), "retired": rows})
    elif uses:
        columns = [
            Column("place"),
            Column("text", is_optional=True),
            Column("retired", is_prose=True),
            Column("replacement", is_prose=True),
        ]
        print_table(columns, [(u.location, u.text, u.retired, u.replacement) for u in uses])
    if not as_json:
        print_line(f"{plural(len(uses), 'retired use')} in {plural(len(files), 'file')}")
    if uses and strict:
        ctx.exit(1)


def print_report(ctx: click.Context, report: DoctorReport, *, as_json: bool) -> None:
    """Print a report as a table or as JSON; exit with 1 if a check failed."""
    if as_json:
        print_json(report.to_dict())
    else:
        _print_table(report)
    if not report.is_ok:
        ctx.exit(1)


def _print_table(report: DoctorReport) -> None:
    from rich.text import Text

    rows = []
    for result in report.results:
        text = Text(result.message, style="dim" if result.status == "skipped" else "")
        if result.fix:
            text.append(f"\n→ {result.fix}", style="bold")
        status = Text(result.status, style=_STYLES[result.status])
        rows.append((status, result.check, result.seconds, text))
    columns = [
        Column("status"),
        Column("check", is_prose=True),
        Column("seconds", is_number=True, is_optional=True),
        Column("result and fix", is_prose=True),
    ]
    print_table(columns, rows)
    print_line(report.summary)
