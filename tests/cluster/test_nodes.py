"""End to end: attach uploads, the cluster starts, and the real init script prepares its nodes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from databricks.sdk import WorkspaceClient

import dbx_aml
from dbx_aml.cli.main import main
from dbx_aml.cluster import client as client_module
from tests.support.azureml import Workspace
from tests.support.databricks import Databricks
from tests.support.databricks.real_boot import RealNodes
from tests.support.node.node import LINK
from tests.support.node.runtime import PLUGIN, stand_in_runtime, write_additions, write_plugin
from tests.support.node.wheel import list_wheels, own_wheel, write_wheel

pytestmark = [pytest.mark.shell, pytest.mark.slow]

VOLUME = "/Volumes/main/ml/dbx_aml"


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    folder = tmp_path / "wheelhouse"
    own_wheel(folder)
    write_plugin(folder)
    write_additions(folder)
    return list_wheels(folder)


def test_attach_prepares_real_nodes_and_reports_the_result_of_their_script(
    databricks: Databricks, wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "POLL_INTERVAL_S", 0.05)
    monkeypatch.chdir(tmp_path)
    values = {name.removeprefix("DBX_AML_").lower(): value for name, value in LINK.items()}
    dbx_aml.Link.from_file(None, **values).save(tmp_path)
    databricks.volumes.add("main.ml.dbx_aml")
    nodes = RealNodes(databricks.volumes, stand_in_runtime(tmp_path / "runtime" / "python"))
    databricks.boot.run_script = nodes.run_script
    team = databricks.clusters.add("team", data_security_mode="USER_ISOLATION")
    spec_before = dict(team.spec)
    attach = ["attach", "team", "--folder", VOLUME, "--wheelhouse", str(wheelhouse), "--yes"]

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["cluster", *arguments])
        return result.exit_code, f"{result.stdout.splitlines()[-1]}\n{result.stderr}"

    code, output = run(*attach)
    assert code == 0, (output, nodes.script_output)
    assert "is attached, RUNNING: init script ok, 5 packages added from wheelhouse" in output
    status = json.loads(CliRunner().invoke(main, ["cluster", "status", "team", "--json"]).stdout)
    assert (status["marker"], status["problems"]) == ("ok", [])
    driver = databricks.boot.root(team.cluster_id) / "databricks"
    assert f"export MLFLOW_TRACKING_URI={Workspace().tracking_uri}" in (
        driver / "spark/conf/spark-env.sh"
    ).read_text().replace("'", "")
    assert list(driver.glob(f"python/lib/python3*/site-packages/azureml_mlflow-{PLUGIN}.dist-info"))

    # Somebody who may write to the volume changes a wheel and the list of hashes beside it.
    changed = tmp_path / "changed"
    files = {"dbx_aml/__init__.py": "raise SystemExit(0)"}
    write_wheel(changed, "dbx-aml", dbx_aml.__version__, (), files)
    list_wheels(changed)
    folder = f"{VOLUME}/{team.cluster_id}/wheelhouse"
    for file in changed.iterdir():
        databricks.volumes.files[f"{folder}/{file.name}"] = file.read_bytes()
    WorkspaceClient().clusters.restart(team.cluster_id).result()
    assert nodes.script_output[-1].startswith("dbx-aml: the cluster starts without dbx-aml: ")
    assert "must have the SHA-256 of the script's settings" in nodes.script_output[-1]

    write_plugin(wheelhouse, broken="raise ImportError('no msrest')")
    list_wheels(wheelhouse)
    code, output = run(*attach)
    assert code == 1
    assert "init script must succeed on cluster team" in output
    assert "added packages must work: got " in output
    assert "ImportError: no msrest" in output
    code, output = run(*attach, "--on-failure", "stop")
    assert code == 1
    assert "it ended with 'INIT_SCRIPT_FAILURE: Cluster scoped init script" in output
    assert team.state == "TERMINATED"

    assert run("detach", "team", "--yes")[0] == 0
    assert team.spec == spec_before
    assert databricks.volumes.files == {}
    assert databricks.allowlists.artifacts() == []
