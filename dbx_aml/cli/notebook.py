"""`dbx-aml notebook run`: a Databricks notebook on this machine, as a cluster would run it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dbx_aml.local.notebook.cell_run import CellRun


def _values(ctx: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE.", ctx, option)
        values[name] = value
    return values


@click.group()
def notebook() -> None:
    """Databricks notebooks on this machine."""


@notebook.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-w", "--widget", "widgets", multiple=True, metavar="NAME=VALUE", callback=_values,
    help="Value of a widget; may be given many times.",
)  # fmt: skip
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with each cell and what it showed.",
)  # fmt: skip
@click.option("--run-pip-cells", is_flag=True, help="Run %pip cells, into this Python's packages.")
def run(path: Path, widgets: dict[str, str], html: Path | None, run_pip_cells: bool) -> None:
    """Run the notebook PATH (source format) cell by cell; the last line is its exit value.

    A cluster's paths (/Workspace, /Volumes, dbfs:/) are folders in .dbx_aml/files, its secrets
    the variables DBX_AML_SECRET_<SCOPE>_<KEY>. Where no link says another, this machine's MLflow
    store stands for Databricks.
    """
    from dbx_aml.local.notebook.run import check_notebook, run_notebook
    from dbx_aml.local.notebook.workspace_stub import local_workspace

    # While cells run, what is printed belongs to them.
    stderr = sys.stderr

    def say(run: CellRun) -> None:
        place = f"{run.cell.notebook.name}: cell {run.cell.number} of {run.of}"
        took = "" if run.seconds is None else f": {run.seconds:.1f} s"
        click.echo(place + took, file=stderr)

    check_notebook(path, widgets)  # before Spark starts
    try:
        with local_workspace() as spark:
            done = run_notebook(
                path, widgets, spark=spark, html=html, run_pip_cells=run_pip_cells, on_cell=say
            )
    finally:
        if html is not None and html.exists():
            click.echo(f"page: {html}", err=True)
    if done.exit_value is not None:
        click.echo(done.exit_value)
    click.echo(f"{path.name} ran to its end in {done.seconds:.1f} s", err=True)
