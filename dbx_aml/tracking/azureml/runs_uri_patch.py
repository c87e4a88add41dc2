"""A patch of MLflow's `runs:/<run>/<path>`: on Azure ML a logged model lies in its run.

MLflow 3 keeps logged models apart from runs. For each path of a run, MLflow therefore searches the
whole experiment for a model of that name, and lists or downloads that model as well. The store of
this package puts a model into its run, as MLflow 2 did. Without the patch MLflow would list each
file twice, download each model twice, and search thousands of runs for it.
"""

from typing import Any

from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

_METHOD = "_get_logged_model_artifact_repo"


def patch_runs_uri() -> None:
    """Let `runs:/` search for a model only where the run does not hold it; patch once."""
    # MLflow 2 has no such search.
    original = getattr(RunsArtifactRepository, _METHOD, None)
    if original is None or getattr(original, "is_dbx_aml_patch", False):
        return

    def logged_model_repository(self: Any, run_id: str, name: str) -> Any:
        from dbx_aml.tracking.azureml.artifact_repository import AmlArtifactRepository
        from dbx_aml.tracking.azureml.service_context import workspace_uri_of
        from dbx_aml.tracking.azureml.store import AmlTrackingStore

        if not isinstance(self.repo, AmlArtifactRepository):
            return original(self, run_id, name)
        folder = AmlTrackingStore(self.repo.context).folder_of_model(run_id, name)
        if folder in (None, name):
            return None
        root = self.repo.artifact_uri.split("/artifacts")[0]
        uri = workspace_uri_of(self.repo.context)
        return AmlArtifactRepository(f"{root}/artifacts/{folder}", tracking_uri=uri)

    logged_model_repository.is_dbx_aml_patch = True  # type: ignore[attr-defined]
    setattr(RunsArtifactRepository, _METHOD, logged_model_repository)
