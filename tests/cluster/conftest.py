"""A Databricks workspace with clusters, and functions that attach and detach them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbx_aml import Link
from dbx_aml.cluster import client as client_module
from dbx_aml.cluster.attach import AttachResult, attach_cluster
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster, find_cluster, get_cluster
from dbx_aml.cluster.detach import detach_cluster, plan_detach
from dbx_aml.cluster.files import collect_files
from dbx_aml.cluster.folder import ClusterFolder
from dbx_aml.cluster.plan import AttachPlan, plan_attach
from tests.support.azureml import Workspace
from tests.support.databricks import Databricks
from tests.support.databricks.boot import leaves_marker
from tests.support.node.wheel import list_wheels, write_wheel

URI = Workspace().tracking_uri
VOLUME = "/Volumes/main/ml/dbx_aml"
# Two init scripts of another team; databricks-sdk does not know the kind of the second.
TEAM_SCRIPTS = [
    {"volumes": {"destination": "/Volumes/x/y/z/a.sh"}},
    {"abfss": {"destination": "abfss://c@a/b.sh"}},
]

PlanAttach = Callable[..., AttachPlan]
Attach = Callable[..., AttachResult]
Detach = Callable[..., Cluster]


def write_link(folder: Path, **values: Any) -> Path:
    """Write the config.json of a link whose client secret is a reference."""
    link = Link(mode="aml", aml_tracking_uri=URI, client_secret="ml/aml", **values)
    return link.save(folder / "config.json")


@pytest.fixture
def workspace(
    databricks: Databricks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Databricks:
    """A workspace with a volume; init scripts succeed and write a marker."""
    monkeypatch.setattr(client_module, "POLL_INTERVAL_S", 0.01)
    databricks.volumes.add("main.ml.dbx_aml")
    databricks.volumes.add("x.y.z")
    databricks.volumes.files["/Volumes/x/y/z/a.sh"] = b"true"
    databricks.boot.run_script = leaves_marker()
    databricks.boot.other_scripts["abfss://c@a/b.sh"] = b"true"
    write_link(tmp_path)
    return databricks


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    """A local wheelhouse with two wheels for runtime 17.3."""
    folder = tmp_path / "wheelhouse"
    write_wheel(folder, "dbx-aml", "0.1.0")
    write_wheel(folder, "b", "1")
    return list_wheels(folder)


@pytest.fixture
def client(workspace: Databricks) -> Client:
    """A client of the workspace."""
    return Client()


@pytest.fixture
def plan(client: Client, tmp_path: Path, wheelhouse: Path) -> PlanAttach:
    """Plan the attach of the cluster with an id, with the link in `tmp_path`."""

    def plan_cluster(
        cluster_id: str,
        *,
        folder: str = VOLUME,
        method: str = "init-script",
        skip_allowlist_check: bool = False,
    ) -> AttachPlan:
        files = collect_files(tmp_path / "config.json", wheelhouse, method=method)
        return plan_attach(
            client,
            find_cluster(client, cluster_id),
            files.in_folder(ClusterFolder(client, f"{folder}/{cluster_id}")),
            skip_allowlist_check=skip_allowlist_check,
        )

    return plan_cluster


@pytest.fixture
def attach(client: Client, plan: PlanAttach) -> Attach:
    """Attach the cluster with an id; the arguments are the same as in `plan`."""

    def attach_planned_cluster(cluster_id: str, **arguments: Any) -> AttachResult:
        return attach_cluster(client, plan(cluster_id, **arguments), ignore_message)

    return attach_planned_cluster


@pytest.fixture
def detach(client: Client) -> Detach:
    """Detach the cluster with an id."""

    def detach_planned_cluster(cluster_id: str, folder: str = VOLUME) -> Cluster:
        cluster_folder = ClusterFolder(client, f"{folder}/{cluster_id}")
        detach_plan = plan_detach(client, get_cluster(client, cluster_id), cluster_folder)
        return detach_cluster(client, detach_plan, ignore_message)

    return detach_planned_cluster


@pytest.fixture
def team(workspace: Databricks) -> str:
    """Id of a running cluster in dedicated access mode, with scripts and variables."""
    variables = {"A": "1", "MLFLOW_TRACKING_URI": "databricks"}
    cluster = workspace.clusters.add("team", init_scripts=TEAM_SCRIPTS, spark_env_vars=variables)
    return cluster.cluster_id


@pytest.fixture
def shared(workspace: Databricks) -> str:
    """Id of a running cluster in standard access mode."""
    return workspace.clusters.add("shared", data_security_mode="USER_ISOLATION").cluster_id


def ignore_message(message: str) -> None:
    """Receive a progress message and drop it."""


def cluster_spec(workspace: Databricks, cluster_id: str) -> dict[str, Any]:
    """Return the settings of a cluster as the workspace holds them."""
    return workspace.clusters.find(cluster_id).spec
