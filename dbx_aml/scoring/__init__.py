"""Step 4, score: a table in, a table out.

Reading order: `job` (the arguments and the flow), `plan` and `binding` (what is decided),
`model` (which model), `guard` (how a worker runs it), `batch` (write once), `stream` (only
what is new), `table` (what a table is), `progress`.
"""
