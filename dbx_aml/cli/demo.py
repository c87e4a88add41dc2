"""`dbx-aml demo`: the whole flow on this machine, on real flights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dbx_aml.cli.tables import Column, print_fields, print_line, print_table

if TYPE_CHECKING:
    from dbx_aml.local.demo import DemoResult


@click.command()
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for tables, models and pages.  [default: .dbx_aml/demo]",
)
def demo(root: Path | None) -> None:
    """Train, register and score flights on this machine."""
    from dbx_aml.local.demo import run_demo

    _print_result(run_demo(root))


def _print_result(result: DemoResult) -> None:
    columns = [
        Column("step"),
        Column("rows read", is_number=True),
        Column("rows scored", is_number=True),
        Column("rows quarantined", is_number=True),
        Column("seconds", is_number=True),
        Column("model version", is_number=True),
        Column("batch id", is_optional=True),
    ]
    rows = [
        (
            step.name,
            step.rows_read,
            step.rows_scored,
            step.rows_quarantined,
            step.seconds,
            step.model_version,
            step.batch_id,
        )
        for step in result.steps
    ]
    print_table(columns, rows, title="\nSteps")
    print_fields(result.locations.items(), title="\nLocations", is_prose=False)
    print_line(f"\nEvery step did what its title says, in {result.seconds:.0f} s.")
