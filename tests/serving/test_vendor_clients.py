"""The vendor's own clients against the same stand-in: it answers as the service does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import dbx_aml
from dbx_aml import Job, Link
from dbx_aml.serving.environment import resolve_environment
from tests.serving.conftest import EXAMPLE, RegisterFunction, small_requirements, times
from tests.support.azureml.service_process import AzureMl

pytestmark = pytest.mark.azureml

REQUEST = {"input_data": {"columns": ["x", "y"], "index": [0], "data": [[1, 3]]}}


def sdk_client(azureml: AzureMl) -> Any:
    """The client of azure-ai-ml for the stand-in's workspace."""
    from azure.ai.ml import MLClient
    from azure.identity import EnvironmentCredential

    names = azureml.workspace
    return MLClient(
        EnvironmentCredential(),
        names.subscription_id,
        names.resource_group,
        names.workspace_name,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mlflows_deployments_client_deploys_a_model_without_code(
    register: RegisterFunction, azureml: AzureMl, tmp_path: Path
) -> None:
    from mlflow.deployments import get_deploy_client

    register(pip_requirements=[*small_requirements(), "azureml-ai-monitoring"])
    config = tmp_path / "deploy.json"
    config.write_text(json.dumps({"instance_type": "Standard_DS3_v2", "instance_count": 1}))
    client: Any = get_deploy_client(azureml.tracking_uri)
    client.create_endpoint("plugin-ep")
    client.create_deployment(
        "blue", "models:/delay/1", endpoint="plugin-ep", config={"deploy-config-file": str(config)}
    )
    answer = client.predict(deployment_name="blue", endpoint="plugin-ep", df=EXAMPLE)
    assert answer.iloc[:, 0].tolist() == [13.0, 24.0]
    client.delete_endpoint("plugin-ep")


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_the_vendors_sdk_deploys_scores_moves_traffic_and_deletes(
    register: RegisterFunction, azureml: AzureMl, tmp_path: Path
) -> None:
    from azure.ai.ml.entities import (
        CodeConfiguration,
        Environment,
        ManagedOnlineDeployment,
        ManagedOnlineEndpoint,
    )
    from mlflow import pyfunc

    register()
    pyfunc.save_model(tmp_path / "m", python_model=times(10), pip_requirements=small_requirements())
    conda_file = tmp_path / "conda.yml"
    conda_file.write_text(resolve_environment(tmp_path / "m").conda_dependencies)
    code = tmp_path / "code"
    code.mkdir()
    shutil.copy(Path(dbx_aml.__file__).parent / "serving" / "score_script.py", code)
    request_file = tmp_path / "request.json"
    request_file.write_text(json.dumps(REQUEST))
    client = sdk_client(azureml)
    endpoint = ManagedOnlineEndpoint(name="sdk-ep", auth_mode="key")
    client.online_endpoints.begin_create_or_update(endpoint).result()
    deployment = ManagedOnlineDeployment(
        name="blue",
        endpoint_name="sdk-ep",
        model="azureml:delay:1",
        instance_type="Standard_DS3_v2",
        instance_count=1,
        environment=Environment(
            name="served", version="1", image="example/base:1", conda_file=str(conda_file)
        ),
        code_configuration=CodeConfiguration(code=str(code), scoring_script="score_script.py"),
    )
    client.online_deployments.begin_create_or_update(deployment).result()
    endpoint = client.online_endpoints.get("sdk-ep")
    endpoint.traffic = {"blue": 100}
    client.online_endpoints.begin_create_or_update(endpoint).result()
    answer = client.online_endpoints.invoke("sdk-ep", request_file=str(request_file))
    assert json.loads(answer) == [13.0]
    assert "POST /score 200" in client.online_deployments.get_logs("blue", "sdk-ep", lines=5)
    client.online_endpoints.begin_delete("sdk-ep").result()
    assert list(client.online_endpoints.list()) == []


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_the_vendors_sdk_submits_streams_reads_and_cancels_a_job(
    azureml_client: Any,
    azureml: AzureMl,
    link: Link,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from azure.ai.ml import command
    from azure.ai.ml.entities import Environment

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("import sys\nprint('alpha is', sys.argv[1])\n")
    client = sdk_client(azureml)

    def submit(name: str) -> Any:
        job = command(
            name=name,
            code=str(tmp_path / "code"),
            command="python train.py ${{inputs.alpha}}",
            inputs={"alpha": 0.5},
            environment=Environment(name="trained", version="1", image="example/base:1"),
            compute="cpu-cluster",
            experiment_name="sdk",
            display_name="ridge",
        )
        return client.jobs.create_or_update(job)

    assert submit("sdk-job").status == "NotStarted"
    client.jobs.stream("sdk-job")
    assert "alpha is 0.5" in capsys.readouterr().out
    assert client.jobs.get("sdk-job").status == "Completed"
    job = Job.load("sdk-job", link=link)
    assert (job.state, job.display_name, job.parameters) == ("Completed", "ridge", {"alpha": "0.5"})
    assert job.log() == "alpha is 0.5\n"

    azureml.job_fault("endless-preparing")
    submit("sdk-second")
    client.jobs.begin_cancel("sdk-second").result()
    assert client.jobs.get("sdk-second").status == "Canceled"
    assert [item.name for item in client.jobs.list()] == ["sdk-second", "sdk-job"]
