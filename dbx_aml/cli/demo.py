"""`dbx-aml demo`: the whole flow on this machine."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write into.  [default: .dbx_aml/demo]",
)
def demo(root: Path | None) -> None:
    """Train, register and score on the flights of 2013, on this machine."""
    from dbx_aml.local.demo import run_demo

    run_demo(root)
