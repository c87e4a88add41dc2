"""Command jobs in Azure ML's YAML: supported fields become arguments, others are named."""

from pathlib import Path

import pytest

from dbx_aml._common.errors import ArgumentError
from dbx_aml.serving.job_file import read_job_file

JOB = """
$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
type: command
code: src
command: python train.py --alpha ${{inputs.alpha}} --fast ${{inputs.fast}}
environment: azureml:training:3
compute: azureml:cpu-cluster
experiment_name: iris
display_name: ridge
inputs:
  alpha: 0.5
  fast: true
environment_variables: {LEVEL: 2, IS_NEW: true}
limits: {timeout: 7200}
tags: {team: flights}
resources: {instance_count: 1}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A job's file beside the folder of its code."""
    (tmp_path / "src").mkdir()
    (tmp_path / "job.yml").write_text(JOB)
    return tmp_path / "job.yml"


def test_the_fields_of_a_job_become_arguments(file: Path) -> None:
    folder = file.parent / "src"
    assert read_job_file(file) == {
        "script": folder / "job",
        "folder": folder,
        "command": "python train.py --alpha ${{inputs.alpha}} --fast ${{inputs.fast}}",
        "environment": "azureml:training:3",
        "compute": "cpu-cluster",
        "experiment": "iris",
        "display_name": "ridge",
        "parameters": {"alpha": "0.5", "fast": "true"},
        "environment_variables": {"LEVEL": "2", "IS_NEW": "true"},
        "timeout_s": 7200.0,
        "tags": {"team": "flights"},
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type: command", "type: sweep", r"type in .* must be 'command': got 'sweep'"),
        ("display_name", "distribution", r"field 'distribution' of"),
        ("azureml:training:3", "{image: python}", r"field 'environment as a dict' of"),
        ("alpha: 0.5", "alpha: {path: data.csv}", r"field 'inputs.alpha as data' of"),
        ("_count: 1}", "_count: 2}", r"instance_count in .* must be 1.* got 2"),
        ("instance_count: 1", "shm_size: 2g", r"field 'resources.shm_size' of"),
        ("{timeout: 7200}", "{max_nodes: 2}", r"field 'limits.max_nodes' of"),
        ("timeout: 7200", "timeout: 2h", r"timeout in .* a number of seconds, 1 or more: got '2h'"),
        ("LEVEL: 2", "LEVEL: ", r"environment_variables.LEVEL in .* must be a text: got None"),
        ("code: src", "code: gone", r"code in .* must be a local folder: got 'gone'"),
        ("fast: true", "fast: [1]", r"input 'fast' in .* must be a text or a number"),
        ("command: python", "tags: python", r"command in .* must be given: got none"),
    ],
)
def test_what_is_not_supported_is_named(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(JOB.replace(old, new))
    with pytest.raises(ArgumentError, match=message):
        read_job_file(file)
