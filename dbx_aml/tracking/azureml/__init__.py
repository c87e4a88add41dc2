"""MLflow's stores for Azure ML: azureml-mlflow's, made whole for MLflow 3.

azureml-mlflow goes on talking to the service, with its context and its calls; what it, or the
service, has not is added. `plugin` says how MLflow finds them, `context` whom they ask and as whom,
`http` how a request is tried again. The tracking store is made in layers, each a class on top of
the one before:

    experiments   bounded requests; experiments by path
    runs          runs within the service's limits; what has no room goes into the `overflow`
    links         what a run was given and what it made
    models        logged models, each a `model_document`
    store         background logging (`async_log`); traces, which are left out

Artifacts are in `artifacts`, on top of `artifact_container` and `artifact_blob`; `runs_uri` and
`shared` are two ways to them. The model registry is in `registry`. `run_tags` and `version_tags`
are the tags in which all of this is kept.
"""
