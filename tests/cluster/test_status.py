"""Status: settings against the record, the marker on the driver, and everything that is wrong."""

import pytest

import dbx_aml
from dbx_aml.cluster.apply import wait_until_at_rest
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import get_cluster
from dbx_aml.cluster.status import ClusterStatus, read_status
from tests.cluster.conftest import VOLUME, Attach, cluster_spec, ignore_message
from tests.support.databricks import Databricks
from tests.support.databricks.boot import leaves_marker


def status_of(client: Client, cluster_id: str) -> ClusterStatus:
    return read_status(client, get_cluster(client, cluster_id))


def test_status_names_differences_from_the_record(
    workspace: Databricks, client: Client, attach: Attach, team: str
) -> None:
    assert status_of(client, team).to_dict()["is_attached"] is False
    attach(team)
    assert status_of(client, team).to_dict() == {
        "cluster_id": team,
        "cluster_name": "team",
        "state": "RUNNING",
        "access_mode": "dedicated",
        "spark_version": "17.3.x-scala2.13",
        "is_attached": True,
        "folder": f"{VOLUME}/{team}",
        "method": "init-script",
        "version": dbx_aml.__version__,
        "libraries": {},
        "marker": "ok",
        "problems": [],
        "variables": {"MLFLOW_TRACKING_URI": "azureml://x"},
    }
    workspace.volumes.files[f"{VOLUME}/{team}/attached.json"] = b"{"
    assert "record of the attach must be readable" in status_of(client, team).problems[0]


def test_a_variable_that_was_changed_after_the_attach_is_a_problem(
    workspace: Databricks, client: Client, attach: Attach, team: str
) -> None:
    attach(team, method="libraries")
    del cluster_spec(workspace, team)["spark_env_vars"]["AZUREML_CURRENT_CLOUD"]
    (problem,) = status_of(client, team).problems
    assert problem.startswith("variable AZUREML_CURRENT_CLOUD is not as attached")


def test_a_script_that_was_killed_is_a_problem(
    workspace: Databricks, client: Client, attach: Attach, team: str
) -> None:
    attach(team)
    workspace.boot.run_script = leaves_marker("failed", "the init script must end: it was killed")
    body = {"cluster_id": team}
    client.call("POST", "/api/2.1/clusters/restart", operation="restart", body=body)
    wait_until_at_rest(client, get_cluster(client, team), ignore_message)
    (problem,) = status_of(client, team).problems
    assert problem == "init script failed: the init script must end: it was killed"


@pytest.mark.parametrize(
    ("marker", "reason"),
    [(None, "allowed to read the init script's marker"), ("{}", "marker.json is damaged")],
)
def test_a_marker_that_cannot_be_read_is_a_problem_with_another_place_to_look(
    workspace: Databricks,
    client: Client,
    attach: Attach,
    team: str,
    marker: str | None,
    reason: str,
) -> None:
    attach(team)
    if marker is None:
        workspace.deny("contexts/create", "CAN ATTACH TO is needed")
    else:
        (workspace.boot.root(team) / "databricks/dbx_aml/marker.json").write_text(marker)
    (problem,) = status_of(client, team).problems
    assert reason in problem
    assert "look at /databricks/init_scripts on its nodes" in problem
