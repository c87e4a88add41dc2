"""Step 6, monitor: drift and quality of a scored table or of an endpoint, written into tables.

The modules in the order in which a job runs: `thresholds`, `baseline` and `bins` (the rows that all
windows are compared with), `windows` and `collected_windows` (which batches or days are new),
`profile` and `column_numbers` (one pass for all columns and windows), `quarantine`, `quality` (the
labels), `distances` (two vectors of counts), `drift` (two profiles), `metric_tables` (the tables),
`page`, `monitoring_run` (the run in MLflow). `monitor_table` calls them.
"""
