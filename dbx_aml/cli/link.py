"""`dbx-aml link`: write, show and check the settings that link Databricks with Azure ML."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbx_aml._common.errors import LinkError
from dbx_aml.cli.options import add_options, config_option, json_option, load_link
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_json, print_line, print_table
from dbx_aml.link.config_file import CONFIG_NAME
from dbx_aml.link.secret_reference import SecretRef

if TYPE_CHECKING:
    from dbx_aml.link.link import Link


def _secret_reference(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Refuse the text of a secret as wrong usage, without repeating it."""
    try:
        return None if value is None else str(SecretRef.parse(value))
    except LinkError as err:
        message = str(err)
    raise click.BadParameter(message, ctx, option)


_OPTIONS = [
    click.option(
        "--mode",
        type=click.Choice(["databricks", "aml", "dual"]),
        help="Service that tracks; dual for both.",
    ),
    click.option(
        "--registry",
        type=click.Choice(["databricks-uc", "databricks", "aml"]),
        help="Service that registers models.",
    ),
    click.option("--experiment", help="Databricks path or Azure ML name."),
    click.option("--aml-workspace", help="ARM id or tracking URI of the Azure ML workspace."),
    click.option("--subscription-id", help="Subscription of the Azure ML workspace."),
    click.option("--resource-group", help="Resource group of the Azure ML workspace."),
    click.option("--workspace-name", help="Name of the Azure ML workspace."),
    click.option("--region", help="Region of the workspace, for example westeurope."),
    click.option("--cloud", help="AzureCloud, AzureChinaCloud or AzureUSGovernment."),
    click.option(
        "--databricks-tracking-uri", help="databricks://PROFILE, or a URI that replaces Databricks."
    ),
    click.option(
        "--aml-tracking-uri", help="URI of a private endpoint, or one that replaces Azure ML."
    ),
    click.option("--tenant-id", help="Tenant of the service principal."),
    click.option("--client-id", help="Id of the service principal or managed identity."),
    click.option(
        "--client-secret",
        callback=_secret_reference,
        help="Reference to the secret: SCOPE/KEY or env:VARIABLE.",
    ),
    click.option("--service-credential", help="Name of a Unity Catalog service credential."),
    click.option(
        "--retry-timeout-s", type=float, help="Longest time for one request with its retries."
    ),
]


@click.group()
def link() -> None:
    """The settings that link Databricks with an Azure ML workspace."""


@link.command("set")
@add_options(*_OPTIONS)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path(CONFIG_NAME),
    show_default=True,
    help="File to write, or its folder. Settings that are not given stay as they are.",
)
def set_link(config: Path, **values: Any) -> None:
    """Write config.json with the given settings.

    Azure ML's own tools and clusters read the same file.
    """
    from dbx_aml.link.link import Link

    if not any(value is not None for value in values.values()):
        raise click.UsageError("Give at least one value, for example --mode aml.")
    file = config if config.suffix == ".json" else config / CONFIG_NAME
    settings = Link.from_file(file if file.exists() else None, **values)
    print_line(f"{settings.save(file)}: mode {settings.mode}, registry {settings.registry}")


@link.command()
@config_option
@json_option
def show(config: str | None, as_json: bool) -> None:
    """Show each setting with its origin, and the credentials."""
    from dbx_aml.azure.credentials import get_credential

    settings = load_link(config)
    values = _setting_values(settings)
    origins = {name: settings.origins.get(name, "default") for name in values}
    sources = get_credential(settings).describe_sources()
    if as_json:
        print_json(
            {
                "values": {
                    name: {"value": value, "origin": origins[name]}
                    for name, value in values.items()
                },
                "credential": [
                    {
                        "source": source.name,
                        "reason": source.reason,
                        "selected": source.is_selected,
                    }
                    for source in sources
                ],
            }
        )
        return
    print_table(
        [Column("name"), Column("value"), Column("origin")],
        [
            (name, None if value is None else str(value), origins[name])
            for name, value in values.items()
        ],
        title="Link",
    )
    print_table(
        [Column(""), Column("source"), Column("reason", is_prose=True)],
        [("→" if source.is_selected else "", source.name, source.reason) for source in sources],
        title="\nCredential: the first configured source is used",
    )


@link.command()
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, config: str | None, as_json: bool) -> None:
    """Check credentials, hosts, workspace and permissions.

    Nothing is created. The exit code is 1 if a check failed.
    """
    from dbx_aml.cli.doctor import print_report
    from dbx_aml.doctor.run import check_link

    settings = load_link(config)
    with show_progress("Checking"):
        report = check_link(settings)
    print_report(ctx, report, as_json=as_json)


def _setting_values(settings: Link) -> dict[str, Any]:
    """Return the link's values by name, with the workspace's names in place of the workspace."""
    values: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "origins":
            continue
        if field.name != "aml_workspace":
            values[field.name] = str(value) if isinstance(value, SecretRef) else value
        elif value is not None:
            values |= {**value.names, "region": value.region, "cloud": value.cloud}
    return values
