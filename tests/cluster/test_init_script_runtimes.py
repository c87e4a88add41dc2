"""The init script with the real packages of a runtime, real wheels and a real check."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dbx_aml.cluster.runtimes import known_runtimes
from dbx_aml.cluster.wheelhouse import build_wheelhouse
from tests.support.node import plugin_check
from tests.support.node.node import LINK, Node
from tests.support.node.runtime import PLUGIN, real_runtime
from tests.support.node.wheel import wheelhouse_variables

pytestmark = [pytest.mark.shell, pytest.mark.slow]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "18" else pytest.mark.nightly)
        for name in ("16.4", "17.3", "18", "19")
    ],
)
def test_a_runtime_keeps_its_packages_and_gets_a_plugin_that_works(
    tmp_path: Path, name: str
) -> None:
    runtime = known_runtimes()[name]
    if name == "16.4":
        # Only Databricks has its pandas for Python 3.12.
        runtime = replace(runtime, python="3.11")
    folder = build_wheelhouse(tmp_path / "wheelhouse", runtime).folder
    node = Node(tmp_path / "node", real_runtime(tmp_path / "python", runtime), version=name)
    assert node.versions().keys() >= {package.replace("-", "_") for package in runtime.packages}
    result = node.run({**LINK, **wheelhouse_variables(folder)})
    assert result.last_line.startswith("done in"), result.lines
    assert node.added_packages["azureml_mlflow"] == PLUGIN
    python = str(node.home / "python" / "bin" / "python")
    subprocess.run([python, "-P", "-W", "ignore", plugin_check.__file__], check=True)
