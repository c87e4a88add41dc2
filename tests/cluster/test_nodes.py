"""The whole way: attach uploads, the cluster starts, the real init script prepares a node."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import dbx_aml
from dbx_aml.cli.main import main
from dbx_aml.cluster import driver as outcome
from dbx_aml.cluster import wait
from dbx_aml.cluster.node.requirements import Wheel
from tests.support.azureml import Workspace
from tests.support.databricks import Databricks
from tests.support.databricks.real_boot import RealNodes
from tests.support.node.node import LINK
from tests.support.node.runtime import PLUGIN, stand_in_runtime, write_additions, write_plugin
from tests.support.node.wheel import own_wheel, sha256

pytestmark = [pytest.mark.shell, pytest.mark.slow]

VOLUME = "/Volumes/main/ml/dbx_aml"


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    folder = tmp_path / "wheelhouse"
    files = [own_wheel(folder), write_plugin(folder), *write_additions(folder)]
    lines = [f"{Wheel.from_file(file).name}=={Wheel.from_file(file).version}" for file in files]
    hashes = [f" --hash=sha256:{sha256(file)}\n" for file in files]
    text = "".join(map("".join, zip(lines, hashes, strict=True)))
    (folder / "requirements.txt").write_text(text)
    (folder / "wheelhouse.json").write_text('{"runtime": "17.3"}')
    return folder


def test_attach_prepares_real_nodes_and_says_what_their_script_says(
    databricks: Databricks, wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (outcome, wait):
        monkeypatch.setattr(module, "_POLL_S", 0.05)
    monkeypatch.chdir(tmp_path)
    names = {name.removeprefix("DBX_AML_").lower(): value for name, value in LINK.items()}
    dbx_aml.Link.from_file(None, **names).save(tmp_path)
    databricks.volumes.add("main.ml.dbx_aml")
    nodes = RealNodes(databricks.volumes, stand_in_runtime(tmp_path / "runtime" / "python"))
    databricks.boot.run_script = nodes.run_script
    team = databricks.clusters.add("team", data_security_mode="USER_ISOLATION")
    before = dict(team.spec)
    attach = ["attach", "team", "--folder", VOLUME, "--wheelhouse", str(wheelhouse), "--yes"]

    def run(*words: str) -> str:
        done = CliRunner().invoke(main, ["cluster", *words])
        return f"{done.exit_code}\n{done.stdout.splitlines()[-1]}\n{done.stderr}"

    said = run(*attach)
    assert said.startswith("0\n"), (said, nodes.said)
    assert "is attached, RUNNING: init script ok, 5 packages added from wheelhouse" in said
    shown = json.loads(CliRunner().invoke(main, ["cluster", "status", "team", "--json"]).stdout)
    assert (shown["marker"], shown["problems"]) == ("ok", [])
    driver = databricks.boot.root(team.cluster_id) / "databricks"
    assert f"export MLFLOW_TRACKING_URI={Workspace().tracking_uri}" in (
        driver / "spark/conf/spark-env.sh"
    ).read_text().replace("'", "")
    assert list(driver.glob(f"python/lib/python3*/site-packages/azureml_mlflow-{PLUGIN}.dist-info"))

    shutil.copy(wheelhouse / "requirements.txt", tmp_path / "good.txt")
    (wheelhouse / "requirements.txt").write_text("dbx-aml==0.1.0 --hash=sha256:0\n")
    said = run(*attach)
    assert said.startswith("1\n")
    assert "init script must succeed on cluster team" in said
    assert "wheelhouse must hold dbx-aml's wheel with the hash in its requirements.txt" in said
    said = run(*attach, "--on-failure", "stop")
    assert said.startswith("1\n")
    assert "it ended with 'INIT_SCRIPT_FAILURE: Cluster scoped init script" in said
    assert team.state == "TERMINATED"

    assert run("detach", "team", "--yes").startswith("0\n")
    assert team.spec == before
    assert databricks.volumes.files == {}
    assert databricks.allowlists.artifacts() == []
