"""MLflow's stores for Azure ML: the stores of azureml-mlflow, with the calls that MLflow 3 needs.

azureml-mlflow still speaks to the service, with its own context and its own calls. These modules
add the calls that azureml-mlflow or the service lacks. `plugin` registers the stores with MLflow,
`service_context` gives them workspace and credential, `mlflow_calls` sends their requests and
retries them. The tracking store is built in layers; each layer is a subclass of the layer above:

    experiment_store     bounded requests; experiments by path
    run_store            runs within the service's limits; the rest goes into `run_overflow`
    run_inputs_store     inputs and outputs of runs
    logged_model_store   logged models; each model is a `logged_model_document`, the values of
                         its metrics are `logged_model_values`; `logged_model_search` finds models
    store                background logging (`async_logging`); traces, which are left out

`artifact_repository` lists and copies artifacts, on top of `artifact_container` and `blob_upload`;
`runs_uri_patch` and `shared_registry_artifacts` are two further ways to artifacts. The model
registry is `registry_store`. `search_filter` splits the filters of searches. `tag_documents` and
`model_version_tags` hold the tags in which these stores keep their data.
"""
