"""`dbx-aml new`: example tests for jobs and notebooks."""

from __future__ import annotations

from pathlib import Path

import click

from dbx_aml.cli.tables import print_line
from dbx_aml.testing.starter import write_example_tests


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def new(folder: Path) -> None:
    """Write example tests to FOLDER.

    They test a transformation with chispa, a scoring job on a table of five rows, and a notebook.
    All of them pass. The extra [test] brings pytest, chispa and the local engine.
    """
    for file in write_example_tests(folder):
        print_line(str(file))
    print_line(f"run: pytest {folder}", is_error=True)
