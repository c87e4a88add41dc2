"""Run a Databricks notebook (source format) on this machine, as a cluster would.

    source              read the file: cells, `%run`
    run                 run a whole notebook in a new process, write its outputs
    process             start the new process, send it settings and cells
    shell               the new process: IPython's shell, SQL and shell cells
    shared_spark        use the Spark engine of the caller in the new process
    dbutils_stub        `dbutils`; with `widgets` and `databricks_paths`
    tables              the table that `display` shows for a data frame
    namespace           the variables of the notebook for the caller
    cells               a cell that has run, with its outputs
    page                an .ipynb file, and one HTML file that loads nothing from the network
    workspace_stub      Spark and MLflow of this machine, for the command

A language that the runner does not know is a `NotebookError` before the first cell runs. A missing
member of `dbutils` is an error when a cell uses the member.
"""
