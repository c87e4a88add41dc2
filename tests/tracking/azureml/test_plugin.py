"""MLflow uses this package's stores for Azure ML, whatever else is installed, and never waits."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.azureml import AzureMl
from tests.support.azureml.program import found_by
from tests.support.child_process import clean_environment

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

_OURS = "AmlTrackingStore"


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "first", ["azureml.mlflow.entry_point_loaders", "dbx_aml.tracking.azureml.plugin"]
)
def test_the_stores_are_ours_whichever_entry_point_mlflow_loads_first(first: str) -> None:
    done = _run(
        f"""
import {first}
import azureml.mlflow.entry_point_loaders as theirs, dbx_aml.tracking.azureml.plugin as ours
assert theirs.azureml_store_builder is ours.tracking_store
assert theirs.azureml_model_registry_builder is ours.model_registry_store
assert theirs.azureml_artifacts_builder is ours.artifact_repository
from mlflow.tracking._tracking_service.utils import _tracking_store_registry
assert _tracking_store_registry._registry["azureml"] is ours.tracking_store
"""
    )
    assert done.returncode == 0, done.stderr


def test_mlflow_is_imported_where_azureml_mlflow_is_missing() -> None:
    done = _run(
        "import sys; sys.modules['azureml.mlflow'] = None\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "import mlflow; mlflow.set_tracking_uri('sqlite://'); print('fine')"
    )
    assert done.stdout == "fine\n", done.stderr


def test_the_plugin_itself_loads_no_store() -> None:
    done = _run(
        "import sys, dbx_aml.tracking.azureml.plugin\n"
        "print(sorted(m for m in sys.modules if m == 'mlflow' or m.startswith('dbx_aml')))"
    )
    package = "dbx_aml.tracking.azureml"
    assert done.stdout == f"{['dbx_aml', 'dbx_aml.tracking', package, f'{package}.plugin']}\n"


def test_a_program_that_only_sets_the_uri_gets_our_stores_and_one_may_have_the_plain_ones(
    azureml: AzureMl,
) -> None:
    code = """
        from mlflow.tracking._model_registry.utils import _get_store
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        uri = sys.argv[1] + "/experiments/e/runs/r/artifacts"
        found["store"] = type(client._tracking_client.store).__name__
        found["registry"] = type(_get_store()).__name__
        found["artifacts"] = type(get_artifact_repository(uri)).__name__
        found["dual"] = type(
            MlflowClient(sys.argv[1].replace("azureml", "adbazureml", 1))._tracking_client.store
        ).__name__ if "dbx_aml" in sys.modules and sys.modules["dbx_aml"] else ""
    """
    ours = found_by(azureml, code, plain=False)
    plain = found_by(azureml, code)

    assert ours == {
        "store": _OURS,
        "registry": "AmlModelRegistryStore",
        "artifacts": "AmlArtifactRepository",
        "dual": _OURS,
    }
    assert plain == {
        "store": "AzureMLRestStore",
        "registry": "AzureMLflowModelRegistry",
        "artifacts": "AzureMLflowArtifactRepository",
        "dual": "",
    }
    # Building a store asks nothing.
    assert azureml.requests() == []


def test_the_cloud_is_not_asked_for_and_nobody_is_asked_to_log_in(azureml: AzureMl) -> None:
    named = found_by(
        azureml,
        "found['names'] = [e.name for e in client.search_experiments()]",
        plain=False,
        skip_metadata=False,
    )
    nobody = found_by(
        azureml,
        "found['error'] = error_of(client.search_experiments)",
        plain=False,
        identity="none",
        timeout_s=90,
    )

    assert "Default" in named["names"]
    assert not azureml.requests(path="/metadata/endpoints")
    assert nobody["error"][0] != ""
    assert not azureml.requests(path="devicecode")


def test_a_job_uses_and_renews_its_own_token(azureml: AzureMl) -> None:
    made = found_by(
        azureml,
        """
        experiment = client.create_experiment("job")
        found["ids"] = [experiment, client.create_run(experiment).info.run_id]
        """,
        plain=False,
    )
    experiment_id, run_id = made["ids"]
    azureml.token_lifetime(60)

    found = found_by(
        azureml,
        """
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 1)
            mlflow.log_text("hello", "a.txt")
        found["run_id"] = run.info.run_id
        """,
        plain=False,
        identity="none",
        environment={
            "MLFLOW_TRACKING_URI": azureml.tracking_uri,
            "MLFLOW_TRACKING_TOKEN": azureml.token(),
            "MLFLOW_EXPERIMENT_ID": experiment_id,
            "MLFLOW_RUN_ID": run_id,
        },
    )

    assert found["run_id"] == run_id
    assert azureml.requests(path=f"/experimentids/{experiment_id}/runs/{run_id}/token")


def test_artifacts_need_no_global_tracking_uri_of_azure_ml(
    azureml: AzureMl, tmp_path: Path
) -> None:
    found = found_by(
        azureml,
        """
        mlflow.set_tracking_uri("file://" + sys.argv[2])
        azure = MlflowClient(sys.argv[1], sys.argv[1])
        run = azure.create_run(azure.create_experiment("elsewhere"))
        azure.log_text(run.info.run_id, "hello", "notes/a.txt")
        found["listed"] = [f.path for f in azure.list_artifacts(run.info.run_id, "notes")]
        found["file"] = open(azure.download_artifacts(run.info.run_id, "notes/a.txt")).read()
        """,
        str(tmp_path / "mlruns"),
        plain=False,
        environment={"MLFLOW_ALLOW_FILE_STORE": "true"},
    )

    assert found == {"listed": ["notes/a.txt"], "file": "hello"}
