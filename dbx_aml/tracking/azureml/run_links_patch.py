"""A patch of the links that MLflow prints when a run ends: a run of Azure ML is in the studio.

Without the patch MLflow prints the API's host, which has no pages.
"""

import sys
from typing import Any

from mlflow import environment_variables
from mlflow.tracking._tracking_service.client import TrackingServiceClient
from mlflow.utils.databricks_utils import is_in_databricks_notebook

from dbx_aml.models.pages import experiment_url, run_url

_METHOD = "_log_url"


def patch_run_links() -> None:
    """Let MLflow print the studio's pages for the runs of Azure ML; patch once."""
    # Another version of MLflow may print its links elsewhere.
    original = getattr(TrackingServiceClient, _METHOD, None)
    if original is None or getattr(original, "is_dbx_aml_patch", False):
        return

    def log_url(self: TrackingServiceClient, run_id: str) -> None:
        from dbx_aml.tracking.azureml.service_context import workspace_uri_of
        from dbx_aml.tracking.azureml.store import AmlTrackingStore

        store: Any = self.store
        if not isinstance(store, AmlTrackingStore):
            original(self, run_id)
            return
        # MLflow 2 has no such variable.
        quiet = getattr(environment_variables, "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", None)
        if is_in_databricks_notebook() or (quiet and quiet.get()):
            return
        info = store.get_run(run_id).info
        uri = workspace_uri_of(store.service_context)
        page, experiment_page = (
            run_url(run_id, tracking_uri=uri),
            experiment_url(info.experiment_id, tracking_uri=uri),
        )
        sys.stdout.write(f"🏃 View run {info.run_name} at: {page}\n")
        sys.stdout.write(f"🧪 View experiment at: {experiment_page}\n")

    log_url.is_dbx_aml_patch = True  # type: ignore[attr-defined]
    setattr(TrackingServiceClient, _METHOD, log_url)
