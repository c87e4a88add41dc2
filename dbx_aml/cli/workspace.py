"""What the Azure ML workspace has: `dbx-aml workspace`, `datastore`, `compute`, `environment`.

These commands only read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import click

from dbx_aml.cli.options import config_option, json_option, load_link
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_fields, print_json, print_line, print_table

if TYPE_CHECKING:
    from dbx_aml.link.link import Link


@click.group()
def workspace() -> None:
    """Show the Azure ML workspace of the link."""


@workspace.command(name="show")
@config_option
@json_option
def show_workspace(config: str | None, as_json: bool) -> None:
    """Show the workspace as Azure describes it."""
    from dbx_aml.serving.workspace_inventory import describe_workspace

    _print_one(_read("the workspace", describe_workspace, config), as_json)


@click.group()
def datastore() -> None:
    """Look at datastores of the workspace."""


@datastore.command(name="list")
@config_option
@json_option
def list_all_datastores(config: str | None, as_json: bool) -> None:
    """List the datastores."""
    from dbx_aml.serving.workspace_inventory import list_datastores

    columns = [
        Column("name"),
        Column("kind"),
        Column("account"),
        Column("container"),
        Column("is default", is_optional=True),
        Column("credentials", is_optional=True),
    ]
    _print_many(_read("the datastores", list_datastores, config), columns, as_json)


@datastore.command(name="show")
@click.argument("name")
@config_option
@json_option
def show_datastore(name: str, config: str | None, as_json: bool) -> None:
    """Show a datastore, without its secret."""
    from dbx_aml.serving.workspace_inventory import get_datastore

    found = _read("the datastore", lambda link: get_datastore(name, link), config)
    _print_one(found, as_json)


@click.group()
def compute() -> None:
    """Look at computes of the workspace."""


@compute.command(name="list")
@config_option
@json_option
def list_all_computes(config: str | None, as_json: bool) -> None:
    """List the computes."""
    from dbx_aml.serving.workspace_inventory import list_computes

    columns = [
        Column("name"),
        Column("kind"),
        Column("state"),
        Column("vm size"),
        Column("nodes", is_number=True),
        Column("max nodes", is_number=True, is_optional=True),
        Column("priority", is_optional=True),
    ]
    _print_many(_read("the computes", list_computes, config), columns, as_json)


@compute.command(name="show")
@click.argument("name")
@config_option
@json_option
def show_compute(name: str, config: str | None, as_json: bool) -> None:
    """Show a compute."""
    from dbx_aml.serving.workspace_inventory import get_compute

    _print_one(_read("the compute", lambda link: get_compute(name, link), config), as_json)


@click.group()
def environment() -> None:
    """Look at environments of the workspace."""


@environment.command(name="list")
@config_option
@json_option
def list_all_environments(config: str | None, as_json: bool) -> None:
    """List the environments with their newest version."""
    from dbx_aml.serving.workspace_inventory import list_environments

    columns = [Column("name"), Column("version"), Column("is archived", is_optional=True)]
    _print_many(_read("the environments", list_environments, config), columns, as_json)


def _read(noun: str, read: Callable[[Link], Any], config: str | None) -> Any:

    with show_progress(f"Reading {noun}"):
        return read(load_link(config))


def _print_one(item: Any, as_json: bool) -> None:
    if as_json:
        print_json(asdict(item))
        return
    rows = [(name, _cell(value)) for name, value in _labels(item)]
    print_fields([row for row in rows if row[1] not in (None, "")], is_prose=False)


def _print_many(items: Sequence[Any], columns: Sequence[Column], as_json: bool) -> None:
    if as_json:
        print_json([asdict(item) for item in items])
        return
    if not items:
        print_line("nothing is there")
        return
    rows = [dict(_labels(item)) for item in items]
    print_table(columns, [[_cell(row[column.header]) for column in columns] for row in rows])


def _labels(item: Any) -> list[tuple[str, Any]]:
    """Return the fields of an item, each with its name in words."""
    return [(field.name.replace("_", " "), getattr(item, field.name)) for field in fields(item)]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "\n".join(f"{key}={text}" for key, text in value.items())
    return value
