"""`dbx-aml doctor`: what is wrong, before a job finds out."""

from __future__ import annotations

import json

import click

from dbx_aml.cli.console import console


@click.command()
@click.option("--config", help="A config.json or its folder.  [default: as found]")
@click.option("--model-uri", help="A model: its requirements, and may it be loaded.")
@click.option("--volume", help="/Volumes/<catalog>/<schema>/<volume>: may it be read and written.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
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

    report = run_doctor(config=config, model_uri=model_uri, volume=volume)
    if as_json:
        click.echo(json.dumps(report.as_json(), ensure_ascii=False))
    else:
        out = console(stderr=False)
        out.print(report.table())
        out.print(report.summary)
    if report.failed:
        ctx.exit(1)
