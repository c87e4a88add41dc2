"""Step 4, score: a table in, a table out.

The modules in the order in which a job runs: `request` (the arguments), `resolve` (one version of
the model and of the input), `bind` with `column_binding` and `model_udf` (the model as a Spark
function), `plan` and `partitions` (how the rows are split), `batch` or `stream` with `output_rows`,
`delta_write` and `delta_table` (each batch is written once), `result`. `guard` runs on the workers.
"""
