"""Run a Databricks notebook (source format) on this machine, as a cluster would.

    source              read the file: cells, `%run`, widgets
    run                 run a whole notebook, write its page
    session             run the cells in order, in one namespace
    execute             run one cell: Python, SQL, shell, pip
    dbutils_stub        `dbutils`; with `widgets` and `databricks_paths`
    cell_output         output of a cell: text, table, picture, HTML
    cell_run            outputs of all cells in order, without secrets
    workspace_stub      Spark and MLflow of this machine, for the command
    page                one HTML file that loads nothing from the network

A magic that the runner does not know is a `NotebookError` before the first cell runs. A missing
member of `dbutils` is an error when a cell uses the member.
"""
