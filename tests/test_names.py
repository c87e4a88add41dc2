"""A thing has the same name in Python, on the command, as widget and as job parameter.

`test_bundle.py` compares the parameters of the jobs with the options of the command.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import dbx_aml
from dbx_aml.cli.main import main
from dbx_aml.link.workspace import AmlWorkspace
from dbx_aml.local.notebook.source import read_notebook
from tests.support.notebook import widget_names

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# Options of the command that choose the settings file and the form of the output.
COMMAND_ONLY = {"config", "json"}


def option_names(*path: str) -> set[str]:
    """Return the long options of a subcommand, written as in Python."""
    command: Any = main
    for name in path:
        command = command.commands[name]
    options = [option for option in command.params if isinstance(option, click.Option)]
    return {option.opts[-1].removeprefix("--").replace("-", "_") for option in options}


def argument_names(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


def widgets_of(notebook: str) -> set[str]:
    return widget_names(read_notebook(NOTEBOOKS / notebook))


def test_score_has_the_same_names_in_python_on_the_command_and_as_widgets() -> None:
    # A session and a callback exist in Python only.
    arguments = argument_names(dbx_aml.score_table) - {"spark", "progress"}

    assert option_names("score") - COMMAND_ONLY == arguments
    # The notebook always writes, no schedule scores a batch again, and a replay is a view of it.
    assert widgets_of("04_score.py") - {"replay"} == arguments - {"dry_run", "rescore"}


def test_link_has_the_same_names_in_python_on_the_command_and_as_widgets() -> None:
    fields = {field.name for field in dataclasses.fields(dbx_aml.Link)} - {"origins"}
    workspace_fields = {field.name for field in dataclasses.fields(AmlWorkspace)}

    options = option_names("link", "set") - COMMAND_ONLY
    assert options >= fields
    assert options - fields <= workspace_fields
    widgets = widgets_of("01_link.py")
    assert {"mode", "registry", "experiment"} < widgets
    assert widgets <= fields | {"config"}


def test_register_has_the_same_names_in_python_and_as_widgets() -> None:
    assert widgets_of("03_register.py") == argument_names(dbx_aml.register_model) - {
        "tags",
        "registry",
    }


@pytest.mark.parametrize("subcommand", ["status", "verify"])
def test_mirror_names_its_two_servers_alike_in_each_subcommand(subcommand: str) -> None:
    servers = {"config", "source_tracking_uri", "destination_tracking_uri"}

    assert servers <= option_names("mirror")
    assert servers <= option_names("mirror", subcommand)
