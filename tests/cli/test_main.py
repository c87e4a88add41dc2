"""Help of every command."""

from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from dbx_aml.cli.main import main


def command_paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, subcommand in command.commands.items():
            yield from command_paths(subcommand, (*path, name))


PATHS = list(command_paths(main))


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_fits_80_columns_and_cuts_no_sentence(path: tuple[str, ...]) -> None:
    assert len(PATHS) > 15

    finished = CliRunner().invoke(main, [*path, "--help"], terminal_width=80)

    assert finished.exit_code == 0
    _, *lines = finished.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...")]
