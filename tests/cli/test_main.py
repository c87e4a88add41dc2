"""Help of every command."""

import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from dbx_aml._common.errors import ArgumentError, RunError
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


URI = "https://ana:s3cret@mlflow.example\x1b[2J"
SHOWN = r"https://***@mlflow.example\x1b[2J"


@pytest.mark.parametrize(
    ("error", "code"),
    [(RunError(f"got {URI}"), 1), (ArgumentError(f"got {URI}"), 2), (click.UsageError(URI), 2)],
)
def test_an_error_is_shown_without_secrets_and_control_codes(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setitem(main.commands, "fail", click.Command("fail", callback=fail))
    finished = CliRunner().invoke(main, ["fail"])
    assert finished.exit_code == code
    assert SHOWN in finished.stderr
    assert "s3cret" not in finished.output


def test_a_traceback_is_shown_without_secrets_and_control_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    CliRunner().invoke(main, ["link"])
    sys.excepthook(ValueError, ValueError(URI), None)
    assert capsys.readouterr().err == f"ValueError: {SHOWN}\n"
