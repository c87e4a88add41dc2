"""`dbx-aml models`: versions of both registries side by side, and their copies."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dbx_aml.cli.options import (
    add_options,
    config_option,
    json_option,
    load_link,
    max_results_option,
)
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
    from dbx_aml.models.registered_models import ModelVersionRow

_REGISTRY_HELP = "'databricks-uc', 'databricks', 'aml', or an MLflow registry URI."

registry_option = click.option(
    "--registry", help=f"{_REGISTRY_HELP}  [default: both registries of the link]"
)


_list_options = add_options(
    registry_option,
    max_results_option("registered models of each registry"),
    config_option,
    json_option,
)


@click.group(invoke_without_command=True)
@_list_options
@click.pass_context
def models(ctx: click.Context, /, **options: Any) -> None:
    """List registered models, and copy versions between registries.

    Without a subcommand it lists the versions, as 'dbx-aml models list' does.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models, name=None, **options)


@models.command(name="list")
@click.argument("name", required=False)
@_list_options
def list_models(
    name: str | None, registry: str | None, max_results: int, config: str | None, as_json: bool
) -> None:
    """List versions of both registries of the link.

    Each version has its aliases, its run, and the place of its copies.
    """
    from dbx_aml.models.registered_models import list_registered_models

    with show_progress("Reading registered models"), ExitStack() as stack:
        _apply_link(config, stack)
        rows = list_registered_models(name, registry=registry, max_results=max_results)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        print_line("no registered models; register one with dbx_aml.register_model")
        return
    columns = [
        Column("model"),
        Column("version", is_number=True),
        Column("registry"),
        Column("aliases"),
        Column("stage", is_optional=True),
        Column("run", is_optional=True),
        Column("copy or source"),
    ]
    cells = [
        (
            row.name,
            linked_text(row.version, row.url),
            row.registry,
            ", ".join(row.aliases),
            row.stage,
            linked_text(row.run_id, row.run_url),
            _copies_text(row),
        )
        for row in rows
    ]
    print_table(columns, cells)


@models.command()
@click.argument("source")
@registry_option
@config_option
@json_option
def show(source: str, registry: str | None, config: str | None, as_json: bool) -> None:
    """Show a version: aliases, lineage, tags and files.

    SOURCE is the URI of a version, for example 'models:/main.ml.delay@champion'.
    """
    from dbx_aml.models.registered_models import show_model_version

    with show_progress("Reading the version"), ExitStack() as stack:
        _apply_link(config, stack)
        version = show_model_version(source, registry=registry)
    row: ModelVersionRow = version["version"]
    if as_json:
        print_json({**version, "version": asdict(row)})
        return
    print_fields(
        [
            ("model", row.name),
            ("version", row.version),
            ("page", row.url),
            ("registry", row.registry),
            ("description", version["description"]),
            ("aliases", ", ".join(row.aliases)),
            ("stage", row.stage),
            ("status", row.status),
            ("created (UTC)", f"{row.created:%Y-%m-%d %H:%M:%S}" if row.created else ""),
            ("run", row.run_id),
            ("run page", row.run_url),
            ("copied from", row.copied_from),
            ("copies", "\n".join(row.copies)),
        ],
        is_prose=False,
    )
    value = Column("value", is_prose=True)
    files = [(file["path"], file["bytes"]) for file in version["files"]]
    for title, columns, rows in (
        ("Lineage", [Column("tag"), value], version["lineage"].items()),
        ("Tags", [Column("tag"), value], version["tags"].items()),
        ("Files", [Column("path"), Column("bytes", is_number=True)], files),
    ):
        if rows:
            print_table(columns, rows, title=f"\n{title}")
        else:
            print_line(f"\n{title}: none")


@models.command()
@click.argument("source")
@click.argument("destination", required=False)
@click.option(
    "--source-registry", help=f"{_REGISTRY_HELP}  [default: the one of the link that has SOURCE]"
)
@click.option(
    "--destination-registry", help=f"{_REGISTRY_HELP}  [default: the other one of the link]"
)
@click.option("--with-aliases", is_flag=True, help="Move the aliases of SOURCE to the copy.")
@config_option
@json_option
def copy(
    source: str,
    destination: str | None,
    source_registry: str | None,
    destination_registry: str | None,
    with_aliases: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """Copy a version to another registry, with its lineage.

    SOURCE is the URI of a version, for example 'models:/main.ml.delay/3'. DESTINATION is the
    registered model of the copy; by default 'main.ml.delay' becomes 'main-ml-delay' in Azure ML.
    A second call finds the copy, and a call after a killed one goes on where that stopped.
    """
    from rich.filesize import decimal

    from dbx_aml.models.copy import copy_model_version

    with show_progress("Reading the version", "MB") as progress, ExitStack() as stack:
        _apply_link(config, stack)

        def report(step: str, done: int, total: int) -> None:
            progress(step, done // 10**6, total // 10**6, decimal(total) if total else "")

        result = copy_model_version(
            source,
            destination,
            source_registry=source_registry,
            destination_registry=destination_registry,
            with_aliases=with_aliases,
            report=report,
        )
    if as_json:
        print_json(asdict(result))
        return
    print_fields(
        [
            ("copy", result.model_uri),
            ("page", result.url),
            ("registry", result.registry),
            ("state", "copied now" if result.is_new else "copied before"),
            ("aliases", ", ".join(result.aliases)),
            ("source", f"{result.source_model_uri} in {result.source_registry}"),
            ("SHA-256 of the files", result.artifacts_sha256),
        ],
        is_prose=False,
    )


@models.command()
@click.argument("source")
@click.argument("alias")
@click.option("--delete", is_flag=True, help="Delete the alias; SOURCE is then a model's name.")
@registry_option
@config_option
@json_option
def alias(
    source: str,
    alias: str,
    delete: bool,
    registry: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Let ALIAS name a version, or delete it.

    SOURCE is the URI of the version, for example 'models:/main.ml.delay/3'.
    """
    from dbx_aml.models.registered_models import delete_model_alias, set_model_alias

    with show_progress("Setting the alias"), ExitStack() as stack:
        _apply_link(config, stack)
        if delete:
            delete_model_alias(source, alias, registry=registry)
        else:
            row = set_model_alias(source, alias, registry=registry)
    if delete:
        result = {"name": source, "alias": alias, "is_deleted": True}
        text = f"alias {alias} of {source} is deleted"
    else:
        result = {**asdict(row), "alias": alias}
        text = f"alias {alias} names version {row.version} of {row.name} in {row.registry}"
    if as_json:
        print_json(result)
    else:
        print_line(text)


def _apply_link(config: str | None, stack: ExitStack) -> None:
    """Make the link the connected one until the command ends; no service is called."""
    from dbx_aml.link.connected_link import connected_link, set_connected_link

    stack.callback(set_connected_link, connected_link())
    set_connected_link(load_link(config))


def _copies_text(row: ModelVersionRow) -> str:
    lines = [f"to {copy}" for copy in row.copies]
    return "\n".join([f"from {row.copied_from}", *lines] if row.copied_from else lines)
