"""The init script on what each runtime really brings: real packages, real wheels, real proof."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dbx_aml.cluster.runtimes import known_runtimes
from dbx_aml.cluster.wheelhouse import build_wheelhouse
from tests.support.node.index import serve
from tests.support.node.node import LINK, Node
from tests.support.node.runtime import PLUGIN, real_runtime
from tests.support.node.wheel import own_wheel

pytestmark = [pytest.mark.shell, pytest.mark.slow]

# Package and version of each limit of the plugin that a runtime is beyond.
BEYOND = {
    "16.4": {},
    "17.3": {},
    "18": {"azure-storage-blob": "12.28.0"},
    "19": {"azure-storage-blob": "12.29.0"},
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_runtime_keeps_its_packages_and_gets_a_plugin_that_works(
    tmp_path: Path, name: str
) -> None:
    machine = known_runtimes()[name]
    if name == "16.4":
        # Its pandas was built for Python 3.12 by the vendor; there is none for others to have.
        machine = replace(machine, python="3.11")
    own = own_wheel(tmp_path / "own")
    folder = build_wheelhouse(tmp_path / "wheelhouse", machine, own).folder
    node = Node(tmp_path / "node", real_runtime(tmp_path / "python", machine), version=name)
    assert node.versions().keys() >= {one.replace("-", "_") for one in machine.packages}
    outcome = node.run({**LINK, "DBX_AML_WHEELHOUSE_PATH": str(folder)})
    assert outcome.last.startswith("done in"), outcome.lines
    assert node.added["azureml_mlflow"] == PLUGIN
    assert {one.package: one.version for one in node.marker.kept_packages} == BEYOND[name]


def test_the_package_index_gives_the_same_as_a_wheelhouse(tmp_path: Path) -> None:
    machine = known_runtimes()["18"]
    node = Node(tmp_path / "node", real_runtime(tmp_path / "python", machine))
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    own_wheel(tmp_path / "index")
    with serve(tmp_path / "index") as index:
        outcome = node.run({**LINK, **settings, "PIP_EXTRA_INDEX_URL": index.url})
    assert outcome.last.startswith("done in"), outcome.lines
    assert node.added["azureml_mlflow"] == PLUGIN
    assert {one.package for one in node.marker.kept_packages} == {"azure-storage-blob"}
    assert dict(node.marker.installed).keys() == {
        "azureml-mlflow", "dbx-aml", "jsonpickle", "msrest", "requests-oauthlib",
    }  # fmt: skip
