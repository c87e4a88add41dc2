"""A registered model behind an endpoint: served by Azure ML's own server, moved without a gap."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from dbx_aml import Endpoint, Link, deploy_model
from dbx_aml._common.errors import (
    ArgumentError,
    ModelNotFoundError,
    OperationTimeoutError,
    PermissionDeniedError,
    ServiceError,
    ServingError,
    UnsolvableRequirementsError,
    UntrustedHostError,
)
from dbx_aml.serving import deploy as deploy_module
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.serving.deploy import split_traffic
from tests.models.conftest import linked, register_in
from tests.serving.conftest import EXAMPLE, RegisterFunction, move_identity_to, times
from tests.support.azureml.endpoints import TAKEN_NAME
from tests.support.azureml.service_process import AzureMl

__all__ = ["linked"]

pytestmark = pytest.mark.azureml

ROWS = pd.DataFrame({"x": np.arange(100.0), "y": np.arange(100.0) / 7})


@pytest.mark.slow
def test_a_deployed_model_scores_as_pyfunc_does_and_moves_from_blue_to_green_without_a_gap(
    register: RegisterFunction, link: Link, azureml: AzureMl
) -> None:
    import mlflow.pyfunc

    uri = register(10)
    steps: list[str] = []
    endpoint = deploy_model("delay-ep", uri, link=link, report=steps.append)
    assert endpoint.traffic == {"blue": 100}
    expected = mlflow.pyfunc.load_model(uri).predict(ROWS)
    assert endpoint.score(ROWS) == list(expected)
    assert steps[-2:] == ["Scoring a row with blue", "Moving traffic"]
    blue = endpoint.get_deployment()
    assert (blue.model, blue.tags["dbx_aml.model_version"]) == ("delay:1", "1")
    assert blue.tags["dbx_aml.made_by"].startswith("dbx-aml ")

    # The key is requested once, and again when the endpoint no longer takes it.
    azureml.reset()
    assert [endpoint.score(EXAMPLE) for _ in range(3)] == [[13.0, 24.0]] * 3
    assert len(azureml.requests(path="/listKeys")) == 0
    azureml.fault("status", host="inference", path="/score", status=401, count=1)
    assert endpoint.score(EXAMPLE) == [13.0, 24.0]
    assert len(azureml.requests(path="/listKeys")) == 1
    azureml.fault("status", host="inference", path="/score", status=401, count=2)
    with pytest.raises(ServingError, match="got 401 from"):
        endpoint.score(EXAMPLE)
    assert len(azureml.requests(path="/listKeys")) == 2

    # The same model again is no second deployment.
    azureml.reset()
    assert deploy_model("delay-ep", uri, link=link).traffic == {"blue": 100}
    assert not azureml.requests(path="/deployments/green")

    register(100, alias="champion")
    answers: list[list[float]] = []
    is_over = Event()

    def ask() -> None:
        while not is_over.is_set():
            answers.append(endpoint.score(EXAMPLE))

    client = Thread(target=ask)
    client.start()
    try:
        tenth = deploy_model("delay-ep", "models:/delay@champion", link=link, traffic=10)
        assert tenth.traffic == {"blue": 90, "green": 10}
        assert tenth.score(EXAMPLE, deployment="green") == [103.0, 204.0]
        with pytest.raises(ServingError, match="got blue and green with traffic"):
            deploy_model("delay-ep", uri, instance_count=2, link=link)
        with pytest.raises(ServingError, match=r"'blue' with 90 % .*name another one"):
            deploy_model("delay-ep", uri, deployment="blue", instance_count=2, link=link)
        moved = tenth.set_traffic({"blue": 0, "green": 100})
        before = len(answers)
        moved.delete("blue")
        # The client asks until the old deployment has ended.
        while len(answers) < before + 3 and client.is_alive():
            pass
    finally:
        is_over.set()
        client.join(timeout=30)
    assert [item.name for item in Endpoint.load("delay-ep", link=link).deployments] == ["green"]
    assert answers[-1] == [103.0, 204.0]
    assert {tuple(answer) for answer in answers} <= {(13.0, 24.0), (103.0, 204.0)}

    # What the model refuses is a bare 500: the log has the reason.
    with pytest.raises(ServingError, match=r"got 500 .*x is negative"):
        moved.score(pd.DataFrame({"x": [-1.0], "y": [0.0]}), deployment="green")
    moved.delete()
    assert Endpoint.load_all(link=link) == []


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_with_the_reason_in_its_log_and_is_removed_next_time(
    register: RegisterFunction, link: Link, tmp_path: Path
) -> None:
    broken = register(10, loader_module=None, python_model=_needs_missing_module(tmp_path))
    with pytest.raises(ServingError, match=r"No module named 'no_such_module'.*endpoint logs"):
        deploy_model("delay-ep", broken, link=link)
    failed = Endpoint.load("delay-ep", link=link)
    assert [(item.name, item.state, item.traffic) for item in failed.deployments] == [
        ("blue", "Failed", 0)
    ]
    assert "no_such_module" in failed.logs("blue")
    assert "downloaded" in failed.logs("blue", container="storage-initializer")
    assert deploy_model("delay-ep", register(10), link=link).score(EXAMPLE) == [13.0, 24.0]


@pytest.mark.slow
@pytest.mark.parametrize("auth_mode", ["aml_token", "aad_token"])
def test_a_kubernetes_endpoint_scores_at_the_host_that_azure_names(
    register: RegisterFunction, link: Link, auth_mode: str
) -> None:
    endpoint = deploy_model("delay-ep", register(), compute="k8s", auth_mode=auth_mode, link=link)
    assert endpoint.scoring_uri.startswith("https://inference.k8s.contoso.com/")
    assert (endpoint.compute, endpoint.auth_mode) == ("k8s", auth_mode)
    assert endpoint.score(EXAMPLE) == [13.0, 24.0]
    with pytest.raises(ServingError, match="must be on compute 'managed': got 'k8s'"):
        deploy_model("delay-ep", "models:/delay/1", link=link)


@pytest.mark.slow
def test_a_call_that_is_killed_while_azure_deploys_goes_on_at_the_next_call(
    register: RegisterFunction, link: Link, azureml: AzureMl
) -> None:
    uri = register(10)
    code = (
        "import sys\nfrom dbx_aml import AmlWorkspace, Link, deploy_model\n"
        "link = Link(mode='aml', aml_workspace=AmlWorkspace.from_tracking_uri(sys.argv[1]))\n"
        f"deploy_model('delay-ep', {uri!r}, link=link)\n"
    )
    azureml.reset()
    with azureml.start(code) as process:
        azureml.wait_for(path="/deployments/blue")
        azureml.wait_for(path="mfeOperationsStatus", count=3)
        os.kill(process.pid, signal.SIGKILL)
    before = Endpoint.load("delay-ep", link=link)
    assert before.traffic == {} and len(before.deployments) == 1
    after = deploy_model("delay-ep", uri, link=link)
    assert after.traffic == {"blue": 100}
    puts = [entry for entry in azureml.requests(path="/deployments/") if entry.method == "PUT"]
    assert len(puts) == 1


@pytest.mark.slow
def test_what_an_earlier_call_has_started_ends_before_this_call_changes_it(
    register: RegisterFunction, link: Link
) -> None:
    resources = AmlResources.of_link(link)
    url = resources.url("/onlineEndpoints/delay-ep")
    blue_url = resources.url("/onlineEndpoints/delay-ep/deployments/blue")
    properties = {"authMode": "Key", "traffic": {}}
    resources.client._start("PUT", url, {"location": "westeurope", "properties": properties})

    def deploy(report: Callable[[str], None] = lambda step: None) -> None:
        deploy_model("delay-ep", "models:/delay/1", instance_count=11, link=link, report=report)

    register()
    steps: list[str] = []
    with pytest.raises(ServingError, match="OutOfQuota"):
        deploy(steps.append)
    assert "Waiting for the endpoint delay-ep" in steps
    content = resources.client.get(blue_url)
    resources.client._start("DELETE", blue_url)
    with pytest.raises(ServingError, match="OutOfQuota"):
        deploy()
    resources.client.delete(blue_url)
    resources.client._start("PUT", blue_url, content)

    def let_it_take_traffic(step: str) -> None:
        if step == "Waiting for the deployment blue":
            Endpoint.load("delay-ep", link=link).set_traffic({"blue": 100})

    with pytest.raises(ServingError, match="must not change: got 'blue' with 100 %"):
        deploy(let_it_take_traffic)


@pytest.mark.parametrize("name", ["ab", "1delay", "de--lay", "d" * 33, "delay_ep", "delay-"])
def test_a_name_that_azure_refuses_is_refused_before_any_request(name: str) -> None:
    with pytest.raises(ArgumentError, match="name of the endpoint must be 3 to 32"):
        deploy_model(name, "models:/delay/1", link=Link())
    with pytest.raises(ArgumentError, match="name of the deployment"):
        deploy_model("delay", "models:/delay/1", deployment=name, link=Link())


def test_a_name_of_another_workspace_is_refused_in_azures_words(
    register: RegisterFunction, link: Link
) -> None:
    with pytest.raises(ServiceError, match=r"got 409 Conflict .*already used in region"):
        deploy_model(TAKEN_NAME, register(), link=link)


@pytest.mark.parametrize("uri", ["models:/delay/7", "models:/delay@nobody", "models:/nothing/1"])
def test_a_version_that_no_registry_has_is_named_with_the_places(
    register: RegisterFunction, link: Link, uri: str
) -> None:
    register()
    with pytest.raises(ModelNotFoundError, match=r"which is not in Azure ML workspace mlw-team"):
        deploy_model("delay-ep", uri, link=link, registry="aml")


def test_a_missing_version_is_missing_in_azure_ml_also_where_databricks_has_no_login(
    register: RegisterFunction, link: Link
) -> None:
    register()
    with pytest.raises(ModelNotFoundError, match=r"is not in Azure ML workspace mlw-team \(Unity"):
        deploy_model("delay-ep", "models:/delay/7", link=link)


def test_only_a_registered_version_is_deployed(link: Link) -> None:
    with pytest.raises(ArgumentError, match="must name a registered version"):
        deploy_model("delay-ep", "runs:/4be1/model", link=link)


@pytest.mark.parametrize(
    ("compute", "kind"), [("nothing", "no compute"), ("cpu-cluster", "AmlCompute")]
)
def test_a_compute_that_serves_no_model_is_refused_before_anything_is_made(
    register: RegisterFunction, link: Link, azureml: AzureMl, compute: str, kind: str
) -> None:
    uri = register()
    azureml.reset()
    with pytest.raises(ServingError, match=f"attached Kubernetes cluster: got .* is {kind}"):
        deploy_model("delay-ep", uri, compute=compute, link=link)
    assert {entry.method for entry in azureml.requests(host="management")} == {"GET"}


def test_a_caller_whom_the_link_alone_names_reads_the_model(
    register: RegisterFunction, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = register()
    own_link = move_identity_to(link, monkeypatch)
    with pytest.raises(ServingError, match="which is no compute"):
        deploy_model("delay-ep", uri, compute="gone", link=own_link)


def test_an_unknown_instance_type_and_a_missing_quota_are_told_in_azures_words(
    register: RegisterFunction, link: Link
) -> None:
    uri = register()
    with pytest.raises(ServiceError, match="'Standard_X' is not supported"):
        deploy_model("delay-ep", uri, instance_type="Standard_X", link=link)
    with pytest.raises(ServingError, match="OutOfQuota: Not enough quota for 11 instances"):
        deploy_model("delay-ep", uri, instance_count=11, link=link)


def test_a_caller_without_the_right_to_deploy_reads_the_missing_action(
    register: RegisterFunction, link: Link, azureml: AzureMl
) -> None:
    uri = register()
    azureml.deny("*/onlineEndpoints/write")
    with pytest.raises(
        PermissionDeniedError, match=r"role with the action '.*onlineEndpoints/write'"
    ):
        deploy_model("delay-ep", uri, link=link)


def test_an_operation_at_another_host_gets_no_token(
    register: RegisterFunction, link: Link, azureml: AzureMl
) -> None:
    uri = register()
    azureml.operation_host("collector.example")
    with pytest.raises(UntrustedHostError, match="no token was sent"):
        deploy_model("delay-ep", uri, link=link)
    assert not azureml.requests(host="collector")


def test_a_deployment_that_does_not_end_in_time_goes_on_and_says_how_to_look(
    register: RegisterFunction, link: Link, azureml: AzureMl
) -> None:
    uri = register()
    # The endpoint is there before operations stop to end.
    with pytest.raises(ServingError, match="OutOfQuota"):
        deploy_model("delay-ep", uri, instance_count=11, link=link)
    azureml.endless_operations()
    with pytest.raises(OperationTimeoutError, match="'dbx-aml endpoint show delay-ep'"):
        deploy_model("delay-ep", uri, deployment="green", instance_count=11, link=link, timeout_s=1)


def test_a_throttled_request_is_sent_again(
    register: RegisterFunction, link: Link, azureml: AzureMl
) -> None:
    uri = register()
    azureml.fault("status", status=429, retry_after_s=0, path="onlineEndpoints", count=2)
    with pytest.raises(ServingError, match="OutOfQuota"):
        deploy_model("delay-ep", uri, instance_count=11, link=link)


@pytest.fixture
def delay_in_databricks(
    resolved_requirements: list[str], linked: Link, mlflow_store: str, tmp_path: Path
) -> None:
    """A version of "main.ml.delay" in Unity Catalog."""
    import mlflow.pyfunc

    folder = tmp_path / "model"
    mlflow.pyfunc.save_model(
        folder,
        python_model=times(10),
        input_example=EXAMPLE,
        pip_requirements=resolved_requirements,
    )
    register_in(mlflow.MlflowClient(mlflow_store, "databricks-uc"), "main.ml.delay", folder)


def test_a_version_in_databricks_is_copied_after_everything_is_checked(
    delay_in_databricks: None, linked: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "models:/main.ml.delay@champion"
    with pytest.raises(ServingError, match="which is no compute"):
        deploy_model("delay-ep", uri, compute="gone", link=linked)
    with pytest.raises(ServingError, match="must have azureml-inference-server-http"):
        deploy_model("delay-ep", uri, no_code=True, link=linked)

    def refuse(folder: Path) -> None:
        raise UnsolvableRequirementsError("model requirements must go together")

    monkeypatch.setattr(deploy_module, "resolve_environment", refuse)
    with pytest.raises(UnsolvableRequirementsError):
        deploy_model("delay-ep", uri, link=linked)
    aml_registry = mlflow.MlflowClient(linked.aml_tracking_uri, linked.aml_tracking_uri)
    assert aml_registry.search_registered_models() == []


def test_a_version_in_databricks_is_copied_first_and_the_deployment_names_its_source(
    delay_in_databricks: None, linked: Link
) -> None:
    with pytest.raises(ServingError, match="OutOfQuota"):
        deploy_model("delay-ep", "models:/main.ml.delay@champion", instance_count=11, link=linked)
    deployment = Endpoint.load("delay-ep", link=linked).get_deployment()
    assert deployment.model == "main-ml-delay:1"
    assert deployment.copied_from == "models:/main.ml.delay/1 in Unity Catalog in Databricks"


def test_a_model_without_code_needs_azures_two_packages_in_its_requirements(
    register: RegisterFunction, link: Link
) -> None:
    text = r"extra_pip_requirements=\['azureml-inference-server-http', 'azureml-ai-monitoring'\]"
    with pytest.raises(ServingError, match=text):
        deploy_model("delay-ep", register(), no_code=True, link=link)


def test_a_model_without_signature_is_deployed_with_a_warning(
    register: RegisterFunction, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    uri = register(input_example=None)
    with pytest.raises(ServingError, match="OutOfQuota"):
        deploy_model("delay-ep", uri, instance_count=11, link=link)
    assert "has no signature: each request must have 'index'" in caplog.text


@pytest.mark.parametrize(
    ("shares", "percent", "expected"),
    [
        ({}, 10, {"new": 100}),
        ({}, 0, {}),
        ({"blue": 100}, 10, {"blue": 90, "new": 10}),
        ({"blue": 100}, 100, {"new": 100}),
        ({"blue": 90, "new": 10}, 0, {"blue": 100}),
        ({"a": 34, "b": 33, "c": 33}, 50, {"a": 18, "b": 16, "c": 16, "new": 50}),
        ({"blue": 0, "green": 100}, 20, {"green": 80, "new": 20}),
    ],
)
def test_the_other_deployments_keep_their_proportions_and_the_sum_is_100(
    shares: dict[str, int], percent: int, expected: dict[str, int]
) -> None:
    assert split_traffic(shares, "new", percent) == expected


def _needs_missing_module(folder: Path) -> Any:
    """Return the path of a model from code that imports a module which is nowhere."""
    script = folder / "model.py"
    script.write_text(
        "import mlflow, os\n"
        "if os.environ.get('AZUREML_MODEL_DIR'):\n    import no_such_module\n"
        "class Model(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input: list[float], params=None):\n"
        "        return model_input\n"
        "mlflow.models.set_model(Model())\n"
    )
    return str(script)
