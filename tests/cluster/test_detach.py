"""Detach: the earlier settings return, and later changes of other users stay."""

import pytest

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.attach_record import read_record
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import get_cluster
from dbx_aml.cluster.detach import DetachPlan, detach_cluster, plan_detach
from dbx_aml.cluster.folder import ClusterFolder
from tests.cluster.conftest import (
    TEAM_SCRIPTS,
    VOLUME,
    Attach,
    Detach,
    cluster_spec,
    ignore_message,
)
from tests.support.databricks import Databricks


def plan(client: Client, cluster_id: str) -> DetachPlan:
    folder = ClusterFolder(client, f"{VOLUME}/{cluster_id}")
    return plan_detach(client, get_cluster(client, cluster_id), folder)


def test_detach_restores_settings_and_files(
    workspace: Databricks, attach: Attach, detach: Detach, team: str
) -> None:
    spec_before = dict(cluster_spec(workspace, team))
    files_before = dict(workspace.volumes.files)
    attach(team)
    assert cluster_spec(workspace, team) != spec_before
    assert detach(team).state == "RUNNING"
    assert cluster_spec(workspace, team) == spec_before
    assert workspace.volumes.files == files_before
    with pytest.raises(ClusterError, match=r"must be attached: .* has no record; .*--folder"):
        detach(team)


def test_detach_keeps_later_changes_of_other_users(
    workspace: Databricks, client: Client, attach: Attach, team: str
) -> None:
    attach(team, method="libraries")
    spec = cluster_spec(workspace, team)
    spec["init_scripts"].append({"volumes": {"destination": "/Volumes/x/y/z/a.sh"}})
    spec["spark_env_vars"] |= {"NEW": "2", "AZUREML_CURRENT_CLOUD": "AzureUSGovernment"}
    detach_plan = plan(client, team)
    (message,) = detach_plan.messages
    assert message.startswith("variable AZUREML_CURRENT_CLOUD stays")
    detach_cluster(client, detach_plan, ignore_message)
    assert cluster_spec(workspace, team)["init_scripts"] == [*TEAM_SCRIPTS, TEAM_SCRIPTS[0]]
    assert cluster_spec(workspace, team)["spark_env_vars"] == {
        "A": "1", "MLFLOW_TRACKING_URI": "databricks", "NEW": "2",
        "AZUREML_CURRENT_CLOUD": "AzureUSGovernment",
    }  # fmt: skip


def test_a_cluster_whose_record_is_lost_can_be_attached_again_and_then_detached(
    workspace: Databricks, attach: Attach, detach: Detach, team: str
) -> None:
    cluster_spec(workspace, team)["spark_env_vars"]["AZUREML_CURRENT_CLOUD"] = "none"
    attach(team, method="libraries")
    del workspace.volumes.files[f"{VOLUME}/{team}/attached.json"]
    with pytest.raises(ClusterError, match="has no record"):
        detach(team)
    attach(team, method="libraries")
    detach(team)
    # The value that the first attach replaced was only in the lost record.
    assert cluster_spec(workspace, team)["spark_env_vars"] == {
        "A": "1", "MLFLOW_TRACKING_URI": "databricks",
    }  # fmt: skip


def test_detach_works_without_the_right_to_change_the_allowlist(
    workspace: Databricks, client: Client, attach: Attach, shared: str
) -> None:
    attach(shared)
    workspace.deny("artifact-allowlists", "User does not have MANAGE ALLOWLIST on Metastore")
    detach_plan = plan(client, shared)
    assert "dbx_aml_init.sh stays on the metastore's allowlist" in detach_plan.messages[0]
    detach_cluster(client, detach_plan, ignore_message)
    assert "init_scripts" not in cluster_spec(workspace, shared)
    assert read_record(ClusterFolder(client, f"{VOLUME}/{shared}")) is None
