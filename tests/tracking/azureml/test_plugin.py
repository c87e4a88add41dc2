"""MLflow uses this package's stores for Azure ML, whatever else is installed, and never waits."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking._model_registry.utils import _get_store as registry_store
from mlflow.tracking._tracking_service.utils import _get_store as tracking_store

from tests.support.azureml import AzureMl
from tests.support.child_process import clean_environment

pytestmark = pytest.mark.azureml


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "first", ["azureml.mlflow.entry_point_loaders", "dbx_aml.tracking.azureml.plugin"]
)
def test_mlflow_gets_our_stores_whichever_entry_point_it_loads_first(first: str) -> None:
    program = run_python(
        f"""
import {first}
import azureml.mlflow.entry_point_loaders as loaders, dbx_aml.tracking.azureml.plugin as plugin
assert loaders.azureml_store_builder is plugin.tracking_store
assert loaders.azureml_model_registry_builder is plugin.model_registry_store
assert loaders.azureml_artifacts_builder is plugin.artifact_repository
from mlflow.tracking._tracking_service.utils import _tracking_store_registry
assert _tracking_store_registry._registry["azureml"] is plugin.tracking_store
"""
    )
    assert program.returncode == 0, program.stderr


@pytest.mark.slow
def test_mlflow_is_imported_without_azureml_mlflow() -> None:
    program = run_python(
        "import sys; sys.modules['azureml.mlflow'] = None\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "import mlflow; mlflow.set_tracking_uri('sqlite://'); print('fine')"
    )
    assert program.stdout == "fine\n", program.stderr


def test_the_plugin_itself_loads_no_store() -> None:
    program = run_python(
        "import sys, dbx_aml.tracking.azureml.plugin\n"
        "print(sorted(m for m in sys.modules if m == 'mlflow' or m.startswith('dbx_aml')))"
    )
    package = "dbx_aml.tracking.azureml"
    assert program.stdout == f"{['dbx_aml', 'dbx_aml.tracking', package, f'{package}.plugin']}\n"


@pytest.mark.parametrize("scheme", ["azureml", "adbazureml"])
def test_a_uri_alone_leads_to_our_stores_and_opening_them_sends_nothing(
    azureml: AzureMl, azureml_client: MlflowClient, scheme: str
) -> None:
    uri = azureml.tracking_uri.replace("azureml", scheme, 1)
    artifact_uri = f"{azureml.tracking_uri}/experiments/e/runs/r/artifacts"

    assert type(tracking_store(uri)).__name__ == "AmlTrackingStore"
    assert type(registry_store(azureml.tracking_uri)).__name__ == "AmlModelRegistryStore"
    assert type(get_artifact_repository(artifact_uri)).__name__ == "AmlArtifactRepository"
    assert azureml.requests() == []


@pytest.mark.slow
def test_a_client_never_requests_the_clouds_metadata_and_never_opens_a_login(
    azureml: AzureMl,
) -> None:
    program = azureml.run(
        """
import json, os, sys
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
try:
    MlflowClient(sys.argv[1]).search_experiments()
except Exception as error:
    print(type(error).__name__)
os.environ.update(json.loads(sys.argv[2]))
print([experiment.name for experiment in MlflowClient(sys.argv[1] + "?2").search_experiments()])
""",
        _json_of_identity(azureml),
        identity="none",
        skip_metadata=False,
        timeout_s=90,
    )

    assert program.returncode == 0, program.stderr
    error, names = program.stdout.splitlines()[-2:]
    assert "Error" in error or "Exception" in error
    assert "Default" in names
    assert not azureml.requests(path="/metadata/endpoints")
    assert not azureml.requests(path="devicecode")


def _json_of_identity(azureml: AzureMl) -> str:
    import json

    variables = azureml.environment("service-principal", skip_metadata=False)
    return json.dumps({k: text for k, text in variables.items() if k.startswith("AZURE_")})


@pytest.mark.slow
def test_a_job_uses_and_renews_its_own_token(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    experiment_id = azureml_client.create_experiment("job")
    run_id = azureml_client.create_run(experiment_id).info.run_id
    # azureml-mlflow renews a token 95 seconds before its end.
    azureml.token_lifetime(60)

    program = azureml.run(
        """
import mlflow
with mlflow.start_run() as run:
    mlflow.log_metric("m", 1)
    mlflow.log_text("hello", "a.txt")
print(run.info.run_id)
""",
        identity="none",
        environment={
            "MLFLOW_TRACKING_URI": azureml.tracking_uri,
            "MLFLOW_TRACKING_TOKEN": azureml.token(),
            "MLFLOW_EXPERIMENT_ID": experiment_id,
            "MLFLOW_RUN_ID": run_id,
        },
    )

    assert program.stdout.split()[-1:] == [run_id], program.stderr
    assert azureml.requests(path=f"/experimentids/{experiment_id}/runs/{run_id}/token")


def test_artifacts_need_no_global_tracking_uri_of_azure_ml(
    azureml: AzureMl, azureml_client: MlflowClient, mlflow_store: str
) -> None:
    assert mlflow.get_tracking_uri() == mlflow_store
    client = MlflowClient(azureml.tracking_uri, azureml.tracking_uri)
    run_id = client.create_run(client.create_experiment("elsewhere")).info.run_id

    client.log_text(run_id, "hello", "notes/a.txt")

    assert [info.path for info in client.list_artifacts(run_id, "notes")] == ["notes/a.txt"]
    assert Path(client.download_artifacts(run_id, "notes/a.txt")).read_text() == "hello"
