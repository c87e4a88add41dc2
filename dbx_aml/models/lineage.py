"""Tags that say where a run, a logged model or a model version came from.

Every module that writes or reads lineage uses these names: registering a model, the model registry
in Azure ML, the mirror.
"""

# Of a mirrored run, a mirrored logged model or a registered version.
SOURCE_RUN_ID = "dbx_aml.source_run_id"

# Of a model version.
SOURCE_MODEL_URI = "dbx_aml.source_model_uri"
SIGNATURE = "dbx_aml.signature"
ARTIFACTS_SHA256 = "dbx_aml.artifacts_sha256"
LOGGED_MODEL_ID = "dbx_aml.logged_model_id"

# Of a mirrored logged model.
SOURCE_LOGGED_MODEL_ID = "dbx_aml.source_logged_model_id"

# Of a mirrored run.
SOURCE_EXPERIMENT = "dbx_aml.source_experiment"
SOURCE_WORKSPACE = "dbx_aml.source_workspace"
SOURCE_URL = "dbx_aml.source_url"
SOURCE_USER = "dbx_aml.source_user"
SOURCE_PARENT_RUN_ID = "dbx_aml.source_parent_run_id"
SOURCE_LIFECYCLE_STAGE = "dbx_aml.source_lifecycle_stage"
