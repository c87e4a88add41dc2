"""Step 2, track: where MLflow's calls go.

`connect` applies a link and gives a `connection`; `check` proves a link step by step, with what
`service` and `databricks` answer. `azureml` has MLflow's stores for Azure ML. `marker` puts each
run of a link in mode "dual" into the queue that `mirror` works off. `runs` looks at runs.
"""
