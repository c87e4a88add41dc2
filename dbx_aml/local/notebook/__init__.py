"""Run a Databricks source-format notebook on this machine, as a cluster would.

A notebook that runs here runs there, so notebooks can be tested before they are deployed.

    source    the file: its cells, what `%run` brings in, its widgets
    run       the whole notebook, and the page of it
    session   one cell after another, in one namespace
    execute   one cell: Python, SQL, shell, pip
    stub      `dbutils`; its parts in `widgets` and `files`
    output    what a cell shows: text, a table, a picture, HTML
    record    all of it in order, without secrets
    machine   Spark and MLflow of this machine, for the command
    page      one HTML file that needs no network

A magic that is not understood is a `NotebookError` that names it, before the first cell runs; a
part of `dbutils` that is not there is one when it is used.
"""

from dbx_aml.local.notebook.cell_run import CellRun
from dbx_aml.local.notebook.run import NotebookResult, check_notebook, run_notebook
from dbx_aml.local.notebook.source import Cell, read_notebook, widget_names

__all__ = [
    "Cell",
    "CellRun",
    "NotebookResult",
    "check_notebook",
    "read_notebook",
    "run_notebook",
    "widget_names",
]
