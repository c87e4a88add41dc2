"""Options that several commands have: each has one name and one help text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dbx_aml.link.link import Link

# A function, or the command that click has made of it.
_Command = TypeVar("_Command", bound=Callable[..., Any] | click.Command)
Option = Callable[[Any], Any]

config_option = click.option(
    "--config", help="A config.json, or the folder of one.  [default: as found]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
tracking_uri_option = click.option(
    "--tracking-uri", help="MLflow tracking server.  [default: the link's, or MLflow's]"
)
registry_uri_option = click.option(
    "--registry-uri", help="MLflow model registry.  [default: the link's, or MLflow's]"
)
profile_option = click.option(
    "--profile", help="Section of .databrickscfg.  [default: as databricks-sdk finds it]"
)
wheelhouse_option = click.option(
    "--wheelhouse",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Local folder that 'dbx-aml cluster wheelhouse' filled.  [required]",
)
on_failure_option = click.option(
    "--on-failure",
    type=click.Choice(["continue", "stop"]),
    default="continue",
    show_default=True,
    help="Whether a cluster starts if its init script failed.",
)
init_timeout_option = click.option(
    "--init-timeout-s",
    type=click.IntRange(10, 3600),
    default=300,
    show_default=True,
    help="Longest time of the init script in seconds, whatever hangs.",
)


def load_link(config: str | None) -> Link:
    """Return the link of `config_option`; its import takes time that --help must not cost."""
    from dbx_aml.link.link import Link

    return Link.load(config=config)


def max_results_option(noun: str) -> Option:
    """Return the option for the largest number of rows, for example of "runs"."""
    return click.option(
        "--max-results",
        type=click.IntRange(1, 1000),
        default=20,
        show_default=True,
        help=f"Largest number of {noun}.",
    )


def add_options(*options: Option) -> Callable[[_Command], _Command]:
    """Return a decorator that adds options to a command, in the order of its help text."""

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add
