"""Endpoints: traffic that fits, keys that go to inference hosts alone, logs that name the cause."""

from typing import Any

import pytest
from azure.core.credentials import AccessToken
from requests import Response

from dbx_aml import AmlWorkspace, Endpoint, Link
from dbx_aml._common.errors import ArgumentError, ServingError, UntrustedHostError
from dbx_aml.serving import endpoints as endpoints_module
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.serving.endpoints import Deployment

WORKSPACE = AmlWorkspace(
    subscription_id="8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42",
    resource_group="rg-ml",
    workspace_name="mlw-team",
    region="westeurope",
)


def endpoint_with(traffic: dict[str, int], **fields: Any) -> Endpoint:
    """An endpoint that asks no service."""
    deployments = [
        Deployment(
            endpoint="delay",
            name=name,
            state="Succeeded",
            traffic=share,
            model="delay:1",
            copied_from="",
            compute="managed",
            instance_type="",
            instance_count=1,
        )
        for name, share in traffic.items()
    ]
    values: dict[str, Any] = {
        "name": "delay",
        "state": "Succeeded",
        "auth_mode": "key",
        "compute": "managed",
        "scoring_uri": "https://delay.westeurope.inference.ml.azure.com/score",
        "page": "",
        "traffic": traffic,
        "deployments": tuple(deployments),
        "tags": {},
        "resources": AmlResources(Link(aml_workspace=WORKSPACE)),
        **fields,
    }
    return Endpoint(**values)


@pytest.mark.parametrize(
    ("change", "total"), [({"green": 10}, 110), ({"blue": 50}, 50), ({"blue": -1}, -1)]
)
def test_traffic_whose_sum_is_not_100_is_refused_with_the_sum(
    change: dict[str, int], total: int
) -> None:
    with pytest.raises(ArgumentError, match=f"the sum {total}"):
        endpoint_with({"blue": 100, "green": 0}).set_traffic(change)


def test_a_deployment_that_does_not_exist_is_named_with_those_that_do() -> None:
    endpoint = endpoint_with({"blue": 100, "green": 0})
    with pytest.raises(ServingError, match=r"got 'red'; use one of \['blue', 'green'\]"):
        endpoint.set_traffic({"red": 100})
    with pytest.raises(ServingError, match="got 'red'"):
        endpoint.score([[1]], deployment="red")


def test_without_a_name_the_deployment_with_most_traffic_is_meant() -> None:
    assert endpoint_with({"blue": 30, "green": 70}).get_deployment().name == "green"
    assert endpoint_with({"blue": 0}).get_deployment().name == "blue"
    with pytest.raises(ServingError, match="must have a deployment with traffic"):
        endpoint_with({"blue": 0, "green": 0}).get_deployment()


def test_a_deployment_with_traffic_is_not_deleted() -> None:
    with pytest.raises(ServingError, match=r"must have no traffic .*got 30 % for 'blue'"):
        endpoint_with({"blue": 30, "green": 70}).delete("blue")


@pytest.mark.parametrize(
    "uri",
    [
        "https://collector.example/score",
        "http://delay.westeurope.inference.ml.azure.com/score",
        "https://inference.ml.azure.com.collector.example/score",
        "https://delay.westeurope.inference.ml.azure.us/score",
    ],
)
def test_the_key_goes_to_an_inference_host_of_the_cloud_alone(uri: str) -> None:
    # A request for the key would fail without a credential.
    with pytest.raises(UntrustedHostError, match="inference hosts"):
        endpoint_with({"blue": 100}, scoring_uri=uri).score([[1]])


@pytest.mark.parametrize(
    ("suffix", "scope"),
    [
        ("api.azureml.ms", "https://ml.azure.com/.default"),
        ("api.ml.azure.cn", "https://ml.azure.cn/.default"),
        ("api.ml.azure.us", "https://ml.azure.us/.default"),
    ],
)
def test_a_token_of_entra_is_for_azure_ml_of_the_cloud(
    monkeypatch: pytest.MonkeyPatch, suffix: str, scope: str
) -> None:
    sent: list[str] = []

    class FakeCredential:
        def get_token(self, *scopes: str) -> AccessToken:
            return AccessToken(f"token for {scopes[0]}", 0)

    def send(method: str, url: str, policy: Any, headers: dict[str, str], data: bytes) -> Response:
        sent.append(headers["Authorization"])
        response = Response()
        response.status_code, response._content = 200, b"[1.5]"
        return response

    monkeypatch.setattr(AmlResources, "credential", FakeCredential())
    monkeypatch.setattr(endpoints_module, "send", send)
    workspace = AmlWorkspace.from_tracking_uri(
        f"azureml://region1.{suffix}/mlflow/v1.0{WORKSPACE.arm_id}"
    )
    endpoint = endpoint_with(
        {"blue": 100},
        auth_mode="aad_token",
        scoring_uri=f"https://delay.region1.{workspace.hosts.inference}/score",
        resources=AmlResources(Link(aml_workspace=workspace)),
    )
    assert endpoint.score([[1]]) == [1.5]
    assert sent == [f"Bearer token for {scope}"]
