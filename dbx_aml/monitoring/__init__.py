"""Step 6, monitor: drift of a scored table, written into tables.

The modules in the order in which a job runs: `windows` (which batches or days are new), `bins` (the
columns and their bins), `profile` and `column_numbers` (one pass for all columns and windows),
`distances` (two vectors of counts), `drift` (two profiles), `baseline` and `metric_tables` (the
tables), `monitor_table`.
"""
