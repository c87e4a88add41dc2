"""`dbx-aml notebook run`: a Databricks notebook on this machine, as a cluster would run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dbx_aml.cli.tables import print_line

if TYPE_CHECKING:
    from dbx_aml.local.notebook.cells import CellRun


def _parse_widgets(
    ctx: click.Context, option: click.Parameter, assignments: tuple[str, ...]
) -> dict[str, str]:
    values = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{assignment!r} is not NAME=VALUE.", ctx, option)
        values[name] = value
    return values


@click.group()
def notebook() -> None:
    """Databricks notebooks on this machine."""


@notebook.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-w", "--widget", "widgets", multiple=True, metavar="NAME=VALUE", callback=_parse_widgets,
    help="Value of a widget; repeat the option for several widgets.",
)  # fmt: skip
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path),
    help="Write an HTML page with all cells and their outputs, and beside it the same as .ipynb.",
)  # fmt: skip
@click.option(
    "--run-pip-cells", is_flag=True, help="Run %pip cells, which change this Python's packages."
)
def run(path: Path, widgets: dict[str, str], html: Path | None, run_pip_cells: bool) -> None:
    """Run the notebook PATH (source format) cell by cell.

    The last line on stdout is the exit value of the notebook.

    Paths of a cluster (/Workspace, /Volumes, dbfs:/) are folders in .dbx_aml/files. Secrets are
    read from variables DBX_AML_SECRET_<SCOPE>_<KEY>. Without settings of a link, this machine's
    MLflow store stands for Databricks.
    """
    from dbx_aml.local.notebook.run import run_notebook
    from dbx_aml.local.notebook.source import read_notebook
    from dbx_aml.local.notebook.workspace_stub import local_workspace

    def print_progress(run: CellRun) -> None:
        progress = f"{run.cell.notebook.name}: cell {run.cell.number} of {run.cell_count}"
        seconds = "" if run.seconds is None else f": {run.seconds:.1f} s"
        print_line(progress + seconds, is_error=True)

    read_notebook(path)  # wrong usage is an error before Spark starts
    try:
        with local_workspace() as spark:
            result = run_notebook(
                path,
                widgets,
                spark=spark,
                html=html,
                run_pip_cells=run_pip_cells,
                on_cell=print_progress,
            )
    finally:
        if html is not None and html.exists():
            print_line(f"page: {html}", is_error=True)
    if result.exit_value is not None:
        print_line(result.exit_value)
    print_line(f"{path.name} ran to its end in {result.seconds:.1f} s", is_error=True)
