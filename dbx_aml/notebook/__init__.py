"""Run a Databricks source-format notebook on this machine, as a cluster would.

A notebook that runs here runs there, so notebooks can be tested before they are deployed.

    source   the file: its cells, what `%run` brings in, its widgets
    stub     what a cluster adds to the namespace: `dbutils`, `display`
    run      one cell after another

Understood: Python cells, `%md`, `%python`, `%sql` (one statement) and `%run` with a relative
path. Anything else is a `NotebookError` that names it, before the first cell runs.
"""

from dbx_aml.notebook.run import NotebookResult, run_notebook
from dbx_aml.notebook.source import Cell, read_notebook, widget_names

__all__ = ["Cell", "NotebookResult", "read_notebook", "run_notebook", "widget_names"]
