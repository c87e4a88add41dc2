"""Azure ML's YAML files: supported fields become arguments, all others are refused by name."""

from pathlib import Path
from typing import Any

import pytest

from dbx_aml._common.errors import ArgumentError
from dbx_aml.serving.yaml_file import read_deployment_file

DEPLOYMENT = """
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: green
endpoint_name: delay
model: azureml:delay-model:3
instance_type: Standard_F4s_v2
instance_count: 2
app_insights_enabled: true
environment_variables: {LEVEL: 3}
request_settings:
  request_timeout_ms: 90500
  max_concurrent_requests_per_instance: 4
  max_queue_wait_ms: 500
data_collector:
  collections:
    model_inputs: {enabled: 'True'}
    model_outputs: {enabled: 'False'}
  sampling_rate: 0.5
  rolling_rate: hour
tags: {team: flights}
"""


def read(folder: Path, text: str, endpoint: str = "delay") -> dict[str, Any]:
    file = folder / "file.yml"
    file.write_text(text, encoding="utf-8")
    return read_deployment_file(file, endpoint)


def test_a_deployment_becomes_the_arguments_of_deploy_model(tmp_path: Path) -> None:
    assert read(tmp_path, DEPLOYMENT) == {
        "deployment": "green",
        "model_uri": "models:/delay-model/3",
        "registry": "aml",
        "instance_type": "Standard_F4s_v2",
        "instance_count": 2,
        "app_insights_enabled": True,
        "environment_variables": {"LEVEL": "3"},
        "tags": {"team": "flights"},
        "request_settings": {
            "requestTimeout": "PT90.5S",
            "maxConcurrentRequestsPerInstance": 4,
            "maxQueueWait": "PT0.5S",
        },
        "data_collector": {
            "collections": {
                "model_inputs": {"dataCollectionMode": "Enabled", "samplingRate": 0.5},
                "model_outputs": {"dataCollectionMode": "Disabled", "samplingRate": 0.5},
            },
            "rollingRate": "Hour",
        },
    }


def test_an_endpoint_gives_its_compute_and_the_secret_of_its_callers(tmp_path: Path) -> None:
    text = "name: delay\nauth_mode: aad_token\ncompute: azureml:k8s\n"
    assert read(tmp_path, text) == {"auth_mode": "aad_token", "compute": "k8s"}


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("liveness_probe: {period: 10}", "liveness_probe"),
        ("scale_settings: {type: default}", "scale_settings"),
        ("environment: azureml:env:1", "environment"),
        ("code_configuration: {code: src}", "code_configuration"),
        ("model_mount_path: /var", "model_mount_path"),
    ],
)
def test_a_field_that_is_not_supported_is_refused_by_its_name(
    tmp_path: Path, line: str, field: str
) -> None:
    with pytest.raises(ArgumentError, match=f"field '{field}' of .*remove it"):
        read(tmp_path, f"{DEPLOYMENT}{line}\n")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("max_queue_wait_ms", "max_wait"), r"field 'request_settings\.max_wait'"),
        (("rolling_rate", "rate"), r"field 'data_collector\.rate'"),
        (("{enabled: 'True'}", "{data: x}"), r"collections\.model_inputs\.data'"),
        (("azureml:delay-model:3", "azureml:delay-model@latest"), "'azureml:<name>:<version>'"),
        (("endpoint_name: delay", "endpoint_name: other"), "must be 'delay': got 'other'"),
        (("{LEVEL: 3}", "[LEVEL]"), "environment_variables .*must be a mapping"),
        (("{LEVEL: 3}", "{LEVEL: }"), r"environment_variables\.LEVEL .*must be a text: got None"),
        (("90500", "90s"), r"request_settings\.request_timeout_ms in .*whole number: got '90s'"),
        (("{enabled: 'True'}", "on"), "model_inputs in .* must be a mapping: got True"),
        (("sampling_rate: 0.5", "sampling_rate: high"), "sampling_rate in .* must be a number"),
        (("instance_count: 2", "instance_count: '2'"), "instance_count in .*number: got '2'"),
        (("name: green", "type: kubernetes"), "'managed' on compute 'managed': got 'kubernetes'"),
    ],
)
def test_a_wrong_value_is_named_with_the_file(
    tmp_path: Path, change: tuple[str, str], problem: str
) -> None:
    with pytest.raises(ArgumentError, match=problem):
        read(tmp_path, DEPLOYMENT.replace(*change))


def test_a_deployment_on_kubernetes_needs_the_compute_that_the_caller_names(tmp_path: Path) -> None:
    (tmp_path / "file.yml").write_text("type: kubernetes\nmodel: azureml:delay:3\n")
    arguments = read_deployment_file(tmp_path / "file.yml", "delay", "k8s")
    assert arguments["model_uri"] == "models:/delay/3"


def test_tags_of_an_endpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"field 'tags' of .*remove it"):
        read(tmp_path, "name: delay\ntags: {team: flights}\n")


@pytest.mark.parametrize("kind", ["ACI", "aks"])
def test_a_config_of_a_retired_web_service_names_its_replacement(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ArgumentError, match="managed online endpoints replaced it: run 'dbx-aml"):
        read(tmp_path, f"computeType: {kind}\ncontainerResourceRequirements: {{cpu: 1}}\n")


@pytest.mark.parametrize("text", ["- 1\n", "a: [", ""])
def test_a_file_that_is_no_yaml_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ArgumentError, match=r"file\.yml must be"):
        read(tmp_path, text)
