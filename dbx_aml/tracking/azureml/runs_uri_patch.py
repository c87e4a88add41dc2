"""`runs:/<run>/<path>` on Azure ML: a logged model lies in its run, so nothing is read twice.

MLflow 3 keeps logged models apart from runs. For each path of a run it therefore searches the
whole experiment for a model of that name, and lists or downloads that as well. Our store puts a
model where MLflow 2 did, into the run, so this would list each file twice, download each model
twice, and search thousands of runs for it.
"""

from typing import Any

from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

_METHOD = "_get_logged_model_artifact_repo"


def keep_runs_uri_simple() -> None:
    """Let `runs:/` look for a model elsewhere only where the run does not hold it; done once."""
    # MLflow 2 has no such look-up.
    original = getattr(RunsArtifactRepository, _METHOD, None)
    if original is None or getattr(original, "of_dbx_aml", False):
        return

    def repository_of_model(self: Any, run_id: str, name: str) -> Any:
        from dbx_aml.tracking.azureml.artifact_repository import AmlArtifactRepository
        from dbx_aml.tracking.azureml.store import AmlTrackingStore

        if not isinstance(self.repo, AmlArtifactRepository):
            return original(self, run_id, name)
        elsewhere = AmlTrackingStore.of(self.repo.artifact_uri).folder_of_model(run_id, name)
        if elsewhere in (None, name):
            return None
        root = self.repo.artifact_uri.split("/artifacts")[0]
        return AmlArtifactRepository(f"{root}/artifacts/{elsewhere}")

    repository_of_model.of_dbx_aml = True  # type: ignore[attr-defined]
    setattr(RunsArtifactRepository, _METHOD, repository_of_model)
