"""`dbx-aml link`: which Azure ML workspace, who tracks, who registers; show it, prove it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbx_aml._common.errors import LinkError
from dbx_aml.cli.options import add_options, config_option, json_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_json, print_table

if TYPE_CHECKING:
    from dbx_aml.link.link import Link


def _reference(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Refuse a secret's text as wrong usage, without repeating it."""
    from dbx_aml.link.secret_reference import SecretRef

    try:
        return None if value is None else str(SecretRef.parse(value))
    except LinkError as err:
        message = str(err)
    raise click.BadParameter(message, ctx, option)


_MODES = click.Choice(["databricks", "aml", "dual"])
_REGISTRIES = click.Choice(["databricks-uc", "databricks", "aml"])
_OPTIONS = [
    click.option("--mode", type=_MODES, help="Who tracks."),
    click.option("--registry", type=_REGISTRIES, help="Who registers."),
    click.option("--experiment", help="A Databricks path or an Azure ML name."),
    click.option("--aml-workspace", help="Its ARM id or its tracking URI."),
    click.option("--subscription-id", help="Of the Azure ML workspace."),
    click.option("--resource-group", help="Of the Azure ML workspace."),
    click.option("--workspace-name", help="Of the Azure ML workspace."),
    click.option("--region", help="Of the Azure ML workspace, for example westeurope."),
    click.option("--cloud", help="AzureCloud, AzureChinaCloud or AzureUSGovernment."),
    click.option("--databricks-tracking-uri", help="Or any MLflow URI in its place."),
    click.option("--aml-tracking-uri", help="Of a private link; or any MLflow URI in its place."),
    click.option("--tenant-id", help="Of the service principal."),
    click.option("--client-id", help="Of the service principal or the managed identity."),
    click.option(
        "--client-secret", callback=_reference, help="A reference: SCOPE/KEY or env:VARIABLE."
    ),
    click.option("--service-credential", help="Name of one of Unity Catalog."),
    click.option(
        "--retry-timeout-s", type=float, help="Seconds for which 429 and 503 are tried again."
    ),
]


@click.group()
def link() -> None:
    """The Azure ML workspace that goes with this machine, and who tracks."""


@link.command("set")
@add_options(*_OPTIONS)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("config.json"),
    show_default=True,
    help="File to write, or its folder. The file keeps its other values.",
)
def set_(config: Path, **values: Any) -> None:
    """Write config.json, for this project, Azure ML's own tools, and a cluster."""
    from dbx_aml.link.config_file import CONFIG_NAME
    from dbx_aml.link.link import Link

    if not any(value is not None for value in values.values()):
        raise click.UsageError("Give at least one value, for example --mode aml.")
    file = config if config.suffix == ".json" else config / CONFIG_NAME
    made = Link.from_file(file if file.exists() else None, **values)
    click.echo(f"{made.save(file)} says: mode {made.mode}, registry {made.registry}")


@link.command()
@config_option
@json_option
def show(config: str | None, as_json: bool) -> None:
    """Show every value and who gave it: an argument, a variable, a file, or nobody."""
    from dbx_aml.azure.credentials import credential
    from dbx_aml.link.link import Link

    found = Link.load(config=config)
    rows = {name: (value, found.origins.get(name, "default")) for name, value in _values(found)}
    described = credential(found).describe()
    sources = [(one.name, one.why, one.is_chosen) for one in described]
    if as_json:
        values = {name: {"value": value, "origin": who} for name, (value, who) in rows.items()}
        chosen = [
            {"source": name, "why": why, "is_chosen": is_chosen} for name, why, is_chosen in sources
        ]
        print_json({"values": values, "credential": chosen})
        return
    print_table(
        [Column("name"), Column("value"), Column("origin")],
        [(name, None if value is None else str(value), who) for name, (value, who) in rows.items()],
        title="Link",
    )
    print_table(
        [Column(""), Column("source"), Column("reason", is_prose=True)],
        [("→" if is_chosen else "", name, why) for name, why, is_chosen in sources],
        title="\nCredential: the first source that is set up",
    )


@link.command()
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, config: str | None, as_json: bool) -> None:
    """Check credentials, hosts, workspace and permissions of the link, within five seconds.

    Nothing is created. The exit code is 1 if a check failed.
    """
    from dbx_aml.cli.doctor import print_report
    from dbx_aml.doctor.run import check_link
    from dbx_aml.link.link import Link

    settings = Link.load(config=config)
    with show_progress("Checking"):
        report = check_link(settings)
    print_report(ctx, report, as_json=as_json)


def _values(found: Link) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name in found.__dataclass_fields__:
        value = getattr(found, name)
        if name == "origins":
            continue
        if name == "aml_workspace":
            parts = {} if value is None else {**value.parts, "region": value.region}
            rows += [*parts.items(), *([("cloud", value.cloud)] if parts else [])]
        else:
            rows.append((name, str(value) if name == "client_secret" and value else value))
    return rows
