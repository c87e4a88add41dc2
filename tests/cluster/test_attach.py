"""Attach: the cluster's other settings stay, the result is read, and every kill can be repaired."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dbx_aml._common.errors import (
    ArgumentError,
    ClusterError,
    DbxAmlError,
    LinkError,
    PermissionDeniedError,
)
from dbx_aml.cluster import apply
from dbx_aml.cluster.attach import attach_cluster
from dbx_aml.cluster.attach_record import attached_folder, read_record
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster, find_cluster, get_cluster
from dbx_aml.cluster.files import collect_files, read_cluster_link
from dbx_aml.cluster.folder import ClusterFolder
from dbx_aml.cluster.libraries import wait_for_libraries
from dbx_aml.cluster.status import read_status
from tests.cluster.conftest import (
    TEAM_SCRIPTS,
    URI,
    VOLUME,
    Attach,
    Detach,
    PlanAttach,
    cluster_spec,
    ignore_message,
    write_link,
)
from tests.support.azureml import Workspace
from tests.support.databricks import TOKEN, USER, Databricks
from tests.support.databricks.boot import leaves_marker
from tests.support.node.wheel import list_wheels, write_wheel

# The init script sets the variables of the link on the nodes, where the plugin is.
VARIABLES = {"A": "1", "MLFLOW_TRACKING_URI": "databricks"}
LIBRARY_VARIABLES = {"AZUREML_CURRENT_CLOUD": "AzureCloud", "DBX_AML_RETRY_TIMEOUT_S": "120"}


def remove_own_wheel(wheelhouse: Path) -> None:
    (wheelhouse / "dbx_aml-0.1.0-py3-none-any.whl").unlink()
    list_wheels(wheelhouse)


def script_location(cluster_id: str) -> dict[str, Any]:
    return {"volumes": {"destination": f"{VOLUME}/{cluster_id}/dbx_aml_init.sh"}}


def test_attach_adds_to_the_settings_of_a_cluster_and_reads_the_scripts_marker(
    workspace: Databricks, client: Client, plan: PlanAttach, team: str
) -> None:
    messages: list[str] = []
    attach_plan = plan(team)
    assert attach_plan.restarts_cluster
    assert workspace.writes() == [], "a plan only reads"
    result = attach_cluster(client, attach_plan, messages.append)
    assert result.cluster.state == "RUNNING"
    assert result.marker and result.marker.installed == {"azureml-mlflow": "1.62.0.post6"}
    assert cluster_spec(workspace, team)["init_scripts"] == [*TEAM_SCRIPTS, script_location(team)]
    assert cluster_spec(workspace, team)["spark_env_vars"] == VARIABLES
    assert cluster_spec(workspace, team)["num_workers"] == 1
    folder = f"{VOLUME}/{team}"
    assert {path for path in workspace.volumes.files if path.startswith(folder)} == {
        f"{folder}/{name}" for name in (
            "dbx_aml_init.sh", "config.json", "attached.json",
            "wheelhouse/dbx_aml-0.1.0-py3-none-any.whl", "wheelhouse/b-1-py3-none-any.whl",
            "wheelhouse/requirements.txt", "wheelhouse/wheelhouse.json",
        )
    }  # fmt: skip
    config = json.loads(workspace.volumes.files[f"{folder}/config.json"])
    assert config["dbx_aml"]["client_secret"] == {"scope": "ml", "key": "aml"}
    assert messages == [
        f"uploading 6 files to {folder}",
        "team is RESTARTING, waiting",
        "reading the result of the init script on the driver",
    ]
    assert workspace.commands.open_contexts == []
    assert attached_folder(get_cluster(client, team)) == folder


def test_the_uploaded_script_holds_the_link_and_the_hash_of_its_wheelhouse(
    workspace: Databricks, plan: PlanAttach, attach: Attach, team: str, wheelhouse: Path
) -> None:
    attach(team)
    folder = f"{VOLUME}/{team}"
    script = workspace.volumes.files[f"{folder}/dbx_aml_init.sh"].decode()
    assert f"BAKED_WHEELHOUSE_PATH={folder}/wheelhouse\n" in script
    hashes = workspace.volumes.files[f"{folder}/wheelhouse/requirements.txt"]
    assert f"BAKED_WHEELHOUSE_SHA256={hashlib.sha256(hashes).hexdigest()}\n" in script
    assert '"workspace_name": "mlw-team"' in script
    (wheelhouse / "b-1-py3-none-any.whl").unlink()
    list_wheels(wheelhouse)
    assert plan(team).restarts_cluster
    attach(team)
    assert f"{folder}/wheelhouse/b-1-py3-none-any.whl" not in workspace.volumes.files
    assert workspace.volumes.files[f"{folder}/dbx_aml_init.sh"].decode() != script


def test_a_terminated_cluster_stays_terminated(
    workspace: Databricks, attach: Attach, detach: Detach
) -> None:
    cluster = workspace.clusters.add("bare", state="TERMINATED")
    spec_before = dict(cluster.spec)
    result = attach(cluster.cluster_id)
    assert (result.cluster.state, result.marker, result.unverified_reason) == (
        "TERMINATED", None, "",
    )  # fmt: skip
    assert cluster.spec["init_scripts"] == [script_location(cluster.cluster_id)]
    assert detach(cluster.cluster_id).state == "TERMINATED"
    assert cluster.spec == spec_before


def test_a_second_attach_changes_nothing_and_a_new_link_keeps_the_earlier_values(
    workspace: Databricks,
    plan: PlanAttach,
    attach: Attach,
    detach: Detach,
    team: str,
    tmp_path: Path,
) -> None:
    spec_before = dict(cluster_spec(workspace, team))
    attach(team)
    attached = dict(cluster_spec(workspace, team))
    assert plan(team).is_empty
    write_link(tmp_path, experiment="iris")
    workspace.forget_requests()
    second = plan(team)
    assert not second.is_empty
    assert second.restarts_cluster
    assert second.change.changed_fields == []
    attach(team)
    assert cluster_spec(workspace, team) == attached
    assert workspace.requests(path="clusters/restart"), "only a restart reads the new files"
    write_link(tmp_path, registry="databricks-uc")
    attach(team)
    script = workspace.volumes.files[f"{VOLUME}/{team}/dbx_aml_init.sh"]
    assert b'"registry": "databricks-uc"' in script
    detach(team)
    assert cluster_spec(workspace, team) == spec_before


@pytest.mark.parametrize(
    ("method", "mode"), [("init-script", "USER_ISOLATION"), ("libraries", "SINGLE_USER")]
)
@pytest.mark.slow
def test_an_attach_and_a_detach_that_fail_at_any_request_can_be_run_again(
    workspace: Databricks,
    client: Client,
    attach: Attach,
    detach: Detach,
    wheelhouse: Path,
    method: str,
    mode: str,
) -> None:
    cluster = workspace.clusters.add("c", spark_env_vars={"A": "1"}, data_security_mode=mode)
    spec_before, files_before = dict(cluster.spec), dict(workspace.volumes.files)
    workspace.allowlists.set("/Volumes/other")
    folder = ClusterFolder(client, f"{VOLUME}/{cluster.cluster_id}")
    workspace.clusters.start_s = 0.0
    (wheelhouse / "b-1-py3-none-any.whl").unlink()
    list_wheels(wheelhouse)

    def attach_cluster() -> None:
        attach(cluster.cluster_id, method=method)

    def detach_cluster() -> None:
        detach(cluster.cluster_id)

    attach_cluster()
    attached = dict(cluster.spec)
    detach_cluster()
    writes = "fs/|artifact-allowlists|clusters/update|libraries/"
    for change, undo in ((attach_cluster, detach_cluster), (detach_cluster, attach_cluster)):
        for number in range(60):
            workspace.fault(
                "status", status=400, path=writes, method="PUT|POST|DELETE", skip=number, count=1
            )
            try:
                change()
            except DbxAmlError as err:
                workspace.allow_all()
                if "is unchanged, and" in str(err):
                    assert cluster.spec == spec_before
            else:
                workspace.allow_all()
                break
            if change is attach_cluster:
                attach_cluster()
                assert dict(cluster.spec) == attached
            if read_record(folder):
                detach_cluster()
            assert cluster.spec == spec_before
            assert workspace.volumes.files == files_before
            assert workspace.allowlists.artifacts() == ["/Volumes/other"]
            if undo is attach_cluster:
                attach_cluster()
        assert number > 4, "each write was refused once"
    assert cluster.spec == spec_before


def test_attach_waits_for_a_cluster_that_starts(
    workspace: Databricks, client: Client, plan: PlanAttach
) -> None:
    cluster = workspace.clusters.add("c", state="PENDING")
    attach_plan = plan(cluster.cluster_id)
    assert attach_plan.restarts_cluster
    messages: list[str] = []

    def report(message: str) -> None:
        messages.append(message)
        if "PENDING" in message:
            cluster.ready_at = time.monotonic()

    assert attach_cluster(client, attach_plan, report).cluster.state == "RUNNING"
    assert [message for message in messages if "PENDING" in message] == ["c is PENDING, waiting"]


def test_a_cluster_in_a_wrong_state_is_an_error(
    workspace: Databricks, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = workspace.clusters.add("c", state="ERROR")
    with pytest.raises(ClusterError, match=r"must be RUNNING or TERMINATED .* it is ERROR"):
        attach(cluster.cluster_id)
    monkeypatch.setattr(apply, "REST_TIMEOUT_S", 0.02)
    cluster.state = "RESIZING"
    with pytest.raises(ClusterError, match=r"come to rest within .* is still RESIZING"):
        attach(cluster.cluster_id)


def test_a_change_is_sent_again_if_the_cluster_was_resized_in_between(
    workspace: Databricks, attach: Attach, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until_at_rest = apply.wait_until_at_rest
    cluster = workspace.clusters.find(team)

    def wait_then_resize(*arguments: Any) -> Cluster:
        at_rest = wait_until_at_rest(*arguments)
        monkeypatch.setattr(apply, "wait_until_at_rest", wait_until_at_rest)
        cluster.state, cluster.ready_at = "PENDING", time.monotonic() + 0.05
        return at_rest

    monkeypatch.setattr(apply, "wait_until_at_rest", wait_then_resize)
    assert attach(team).marker
    statuses = [request.status for request in workspace.requests(path="clusters/update")]
    assert statuses == [400, 200]


def test_a_change_is_sent_five_times_at_most(
    workspace: Databricks, attach: Attach, team: str
) -> None:
    cluster = workspace.clusters.find(team)
    cluster.state, cluster.shows_at = "RESIZING", float("inf")
    with pytest.raises(ClusterError, match=r"cannot change cluster team .* in state RESIZING"):
        attach(team)
    assert len(workspace.requests(path="clusters/update")) == 5


def test_the_next_attach_restarts_a_cluster_that_has_not_read_its_new_files(
    workspace: Databricks, plan: PlanAttach, attach: Attach, team: str, tmp_path: Path
) -> None:
    attach(team)
    write_link(tmp_path, experiment="iris")
    workspace.fault("status", status=400, path="clusters/restart", count=1)
    with pytest.raises(ClusterError, match="cannot restart cluster"):
        attach(team)
    assert plan(team).restarts_cluster
    assert attach(team).marker
    assert workspace.clusters.find(team).boots == 2
    assert plan(team).is_empty


def test_a_change_whose_answer_is_lost_is_made_once(
    workspace: Databricks, client: Client, plan: PlanAttach, team: str
) -> None:
    workspace.fault("lost-answer", path="clusters/update", count=1)
    workspace.clusters.start_s = float("inf")

    def end_restart(message: str) -> None:
        if "RESTARTING" in message:
            workspace.clusters.find(team).ready_at = time.monotonic()

    # The cluster still restarts when the SDK sends its request again.
    assert attach_cluster(client, plan(team), end_restart).marker
    assert cluster_spec(workspace, team)["spark_env_vars"] == VARIABLES
    statuses = [request.status for request in workspace.requests(path="clusters/update")]
    assert statuses == [0, 400]
    assert workspace.clusters.find(team).boots == 1


def test_the_marker_is_read_after_the_restart(
    workspace: Databricks, attach: Attach, team: str, tmp_path: Path
) -> None:
    attach(team)
    write_link(tmp_path, experiment="iris")
    workspace.clusters.lag_s = 0.1
    workspace.boot.run_script = leaves_marker("failed", "new")
    with pytest.raises(ClusterError, match=r"must succeed .* 'new'"):
        attach(team)


def test_a_change_of_another_user_after_the_plan_is_not_lost(
    workspace: Databricks, client: Client, plan: PlanAttach, attach: Attach, team: str
) -> None:
    attach_plan = plan(team)
    cluster_spec(workspace, team)["spark_env_vars"]["B"] = "2"
    with pytest.raises(ClusterError, match="must stay as it was shown"):
        attach_cluster(client, attach_plan, ignore_message)
    assert attach(team).marker
    assert cluster_spec(workspace, team)["spark_env_vars"] == {**VARIABLES, "B": "2"}


def test_the_cluster_of_a_job_is_refused(workspace: Databricks, plan: PlanAttach) -> None:
    cluster = workspace.clusters.add("job-1-run-2", source="JOB")
    with pytest.raises(ClusterError, match=r"made by a job, .* 'dbx-aml cluster snippet job'"):
        plan(cluster.cluster_id)


@pytest.mark.parametrize(
    ("denied", "folder", "message"),
    [
        ("POST .*clusters/update", VOLUME, "change cluster .*ask its owner for CAN MANAGE"),
        ("PUT .*fs/files", VOLUME, "write to .*WRITE VOLUME"),
        ("", "/Volumes/main/ml/none", "volume must exist: .*CREATE VOLUME main.ml.none"),
    ],
)
def test_a_missing_permission_or_volume_leaves_the_cluster_unchanged(
    workspace: Databricks, attach: Attach, team: str, denied: str, folder: str, message: str
) -> None:
    spec_before = dict(cluster_spec(workspace, team))
    if denied:
        workspace.deny(denied)
    with pytest.raises(DbxAmlError, match=message):
        attach(team, folder=folder)
    assert cluster_spec(workspace, team) == spec_before
    assert workspace.clusters.find(team).boots == 0


def test_an_attach_whose_upload_is_refused_removes_what_it_has_written(
    workspace: Databricks, attach: Attach, team: str
) -> None:
    workspace.deny("PUT .*fs/files/.*whl")
    with pytest.raises(ClusterError, match="unchanged, and nothing of the attach is left"):
        attach(team)
    assert [path for path in workspace.volumes.files if path.startswith(VOLUME)] == []


def test_a_file_of_a_volume_with_any_name_is_one_request_each_way(
    workspace: Databricks, client: Client
) -> None:
    workspace.volumes.add("main.ml.a#b")
    workspace.grants.grant("volume", "main.ml.a#b", "bo@contoso.com", "READ_VOLUME")
    folder = ClusterFolder(client, "/Volumes/main/ml/a#b/c d")
    workspace.forget_requests()
    folder.write_file("x.json", b"{}")
    assert folder.read_file("x.json") == b"{}"
    path = "Volumes/main/ml/a%23b/c%20d"
    assert [(request.method, request.path) for request in workspace.requests()] == [
        ("PUT", f"/api/2.0/fs/directories/{path}"),
        ("PUT", f"/api/2.0/fs/files/{path}/x.json"),
        ("GET", f"/api/2.0/fs/files/{path}/x.json"),
    ]
    assert folder.may_read("bo@contoso.com")
    assert not folder.may_read("li@contoso.com")


def test_a_folder_is_in_a_volume_or_in_the_workspace(client: Client) -> None:
    for path in ("/tmp/x", "dbfs:/x", "/Volumes/main/ml"):
        with pytest.raises(ArgumentError, match="in a volume or in the workspace: got"):
            ClusterFolder(client, path)
    assert ClusterFolder(client, "/Users/a/x/").path == "/Workspace/Users/a/x"


def test_an_attach_with_another_wheel_of_the_same_name_runs_the_new_code(
    workspace: Databricks, attach: Attach, team: str, wheelhouse: Path
) -> None:
    wheel = wheelhouse / "dbx_aml-0.1.0-py3-none-any.whl"
    path = f"{VOLUME}/{team}/wheelhouse/{wheel.name}"
    attach(team, method="libraries")
    assert workspace.libraries.content(team, path) == wheel.read_bytes()
    write_wheel(wheelhouse, "dbx-aml", "0.1.0", files={"dbx_aml/new.py": ""})
    list_wheels(wheelhouse)
    attach(team, method="libraries")
    assert workspace.libraries.content(team, path) == wheel.read_bytes()


def test_the_workspace_holds_wheels_as_libraries_and_no_script(
    workspace: Databricks, plan: PlanAttach, attach: Attach, detach: Detach, team: str
) -> None:
    home = f"/Workspace/Users/{USER}/.dbx_aml"
    paths_before = set(workspace.files.items)
    with pytest.raises(ArgumentError, match=r"must be in a volume, .* or use --method libraries"):
        plan(team, folder=home)
    workspace.deny("POST .*workspace/import")
    with pytest.raises(ClusterError, match="allowed to write to /Workspace/Users"):
        attach(team, folder=home, method="libraries")
    workspace.allow_all()
    attach(team, folder=home, method="libraries")
    assert workspace.files.content(f"{home}/{team}/wheelhouse/b-1-py3-none-any.whl")
    detach(team, home)
    assert set(workspace.files.items) - paths_before == {f"/Users/{USER}/.dbx_aml"}


def test_the_script_is_added_to_the_allowlist_in_standard_mode_and_removed_again(
    workspace: Databricks,
    plan: PlanAttach,
    attach: Attach,
    detach: Detach,
    shared: str,
    tmp_path: Path,
) -> None:
    workspace.allowlists.set("/Volumes/other", "/Volumes/more")
    assert attach(shared).marker
    script = f"{VOLUME}/{shared}/dbx_aml_init.sh"
    assert workspace.allowlists.artifacts() == ["/Volumes/other", "/Volumes/more", script]
    assert plan(shared).is_empty
    write_link(tmp_path, experiment="iris")
    attach(shared)
    workspace.allowlists.set("/Volumes/new", *workspace.allowlists.artifacts())
    detach(shared)
    assert workspace.allowlists.artifacts() == ["/Volumes/new", "/Volumes/other", "/Volumes/more"]


def test_an_allowlist_with_the_folder_is_not_changed(
    workspace: Databricks, attach: Attach, detach: Detach, shared: str
) -> None:
    workspace.allowlists.set(f"{VOLUME}/")
    assert attach(shared).marker
    detach(shared)
    assert workspace.allowlists.artifacts() == [f"{VOLUME}/"]
    assert workspace.requests(method="PUT", path="artifact-allowlists") == []


def test_a_missing_right_on_the_allowlist_is_an_error_before_anything_is_written(
    workspace: Databricks, plan: PlanAttach, attach: Attach, shared: str
) -> None:
    workspace.deny("artifact-allowlists", "User does not have MANAGE ALLOWLIST on Metastore")
    with pytest.raises(
        PermissionDeniedError, match=r"MANAGE ALLOWLIST.*; then give --skip-allowlist-check"
    ):
        plan(shared)
    assert workspace.writes() == []
    workspace.allowlists.set(VOLUME)
    assert attach(shared, skip_allowlist_check=True).marker


@pytest.mark.parametrize("mode", ["NONE", "LEGACY_TABLE_ACL", "LEGACY_SINGLE_USER_STANDARD"])
@pytest.mark.parametrize("method", ["init-script", "libraries"])
def test_a_cluster_that_reads_no_volume_is_refused_before_any_write(
    workspace: Databricks, plan: PlanAttach, mode: str, method: str
) -> None:
    cluster = workspace.clusters.add("old", data_security_mode=mode)
    with pytest.raises(ClusterError, match=r"able to read a volume: .* use --method libraries"):
        plan(cluster.cluster_id, method=method)
    assert workspace.writes() == []


def test_a_cluster_without_unity_catalog_gets_wheels_as_libraries_from_the_workspace(
    workspace: Databricks, plan: PlanAttach, attach: Attach, detach: Detach
) -> None:
    cluster = workspace.clusters.add("old", data_security_mode="NONE")
    libraries = {"folder": "/Shared/x", "method": "libraries"}
    attach(cluster.cluster_id, **libraries)
    # The API may leave out the prefix "/Workspace".
    variables = cluster.spec["spark_env_vars"]
    variables["DBX_AML_CONFIG"] = variables["DBX_AML_CONFIG"].removeprefix("/Workspace")
    assert plan(cluster.cluster_id, **libraries).restarts_cluster
    detach(cluster.cluster_id, "/Shared/x")
    assert workspace.files.content(f"/Shared/x/{cluster.cluster_id}/config.json") is None


def test_a_script_that_stops_the_cluster_is_an_error_and_can_be_detached(
    workspace: Databricks, client: Client, attach: Attach, detach: Detach
) -> None:
    logs = {"volumes": {"destination": "/Volumes/main/ml/logs/"}}
    cluster = workspace.clusters.add("c", cluster_log_conf=logs)
    spec_before = dict(cluster.spec)
    workspace.boot.run_script = leaves_marker("failed", "no index", code=1)
    with pytest.raises(ClusterError, match=r"INIT_SCRIPT_FAILURE: .*non-zero: 1") as caught:
        attach(cluster.cluster_id)
    assert f"/Volumes/main/ml/logs/{cluster.cluster_id}/init_scripts" in str(caught.value)
    assert f"dbx-aml cluster detach {cluster.cluster_id}" in str(caught.value)
    status = read_status(client, get_cluster(client, cluster.cluster_id))
    assert any("INIT_SCRIPT_FAILURE" in problem for problem in status.problems)
    detach(cluster.cluster_id)
    assert cluster.spec == spec_before


def test_a_failed_script_is_an_error_although_the_cluster_starts(
    workspace: Databricks, client: Client, attach: Attach, team: str
) -> None:
    workspace.boot.run_script = leaves_marker("failed", "index must answer: got 403")
    with pytest.raises(ClusterError, match=r"must succeed .* 'index must answer: got 403'"):
        attach(team)
    status = read_status(client, get_cluster(client, team))
    assert status.problems == ("init script failed: index must answer: got 403",)
    assert status.to_dict()["marker"] == "failed"


def test_a_driver_without_a_marker_is_an_error(
    workspace: Databricks, attach: Attach, team: str
) -> None:
    workspace.boot.run_script = lambda *_: 0
    with pytest.raises(ClusterError, match="its driver has no marker; look at /databricks/init_"):
        attach(team)


def test_an_attach_whose_marker_cannot_be_read_is_made(
    workspace: Databricks, attach: Attach, team: str
) -> None:
    workspace.deny("contexts/create", "CAN ATTACH TO is needed")
    result = attach(team)
    assert (result.cluster.state, result.marker) == ("RUNNING", None)
    assert "look at /databricks/init_scripts on its nodes" in result.unverified_reason
    assert cluster_spec(workspace, team)["spark_env_vars"] == VARIABLES


def test_wheels_as_libraries_need_no_script(
    workspace: Databricks,
    client: Client,
    plan: PlanAttach,
    detach: Detach,
    team: str,
    wheelhouse: Path,
) -> None:
    spec_before = dict(cluster_spec(workspace, team))
    messages: list[str] = []
    attach_plan = plan(team, method="libraries")
    result = attach_cluster(client, attach_plan, messages.append)
    assert (result.marker, result.unverified_reason) == (None, "")
    assert "0 of 2 libraries are installed, waiting" in messages
    assert cluster_spec(workspace, team)["init_scripts"] == TEAM_SCRIPTS
    config = f"{VOLUME}/{team}/config.json"
    variables = cluster_spec(workspace, team)["spark_env_vars"]
    assert variables == {**VARIABLES, **LIBRARY_VARIABLES, "DBX_AML_CONFIG": config}
    status = read_status(client, get_cluster(client, team))
    assert set(status.libraries.values()) == {"INSTALLED"}
    assert status.problems == ()
    with pytest.raises(ClusterError, match="by one method: it is attached by libraries"):
        plan(team)
    detach(team)
    assert cluster_spec(workspace, team) == spec_before
    answer = client.call(
        "GET", "/api/2.0/libraries/cluster-status", operation="see", query={"cluster_id": team}
    )
    assert answer["library_statuses"] == []


def test_a_library_that_fails_is_an_error(
    workspace: Databricks, client: Client, plan: PlanAttach, team: str, wheelhouse: Path
) -> None:
    attach_plan = plan(team, method="libraries")
    files = replace(attach_plan.files, libraries=({"whl": "/Volumes/x/y/z/gone.whl"},))
    desired = replace(attach_plan.change.desired, libraries=files.libraries)
    change = replace(attach_plan.change, desired=desired)
    with pytest.raises(ClusterError, match=r"gone.whl gave 'Library installation failed: "):
        attach_cluster(client, replace(attach_plan, change=change, files=files), ignore_message)


def test_a_library_that_failed_is_requested_again(
    workspace: Databricks,
    client: Client,
    plan: PlanAttach,
    attach: Attach,
    team: str,
    wheelhouse: Path,
) -> None:
    attach(team, method="libraries")
    wheel = f"{VOLUME}/{team}/wheelhouse/b-1-py3-none-any.whl"
    content = workspace.volumes.files.pop(wheel)
    workspace.clusters.find(team).boots += 1  # a restart, in which the library fails
    with pytest.raises(ClusterError, match=r"b-1-py3-none-any\.whl does not exist"):
        wait_for_libraries(client, get_cluster(client, team), ({"whl": wheel},), ignore_message)
    workspace.volumes.files[wheel] = content
    assert not plan(team, method="libraries").restarts_cluster
    attach(team, method="libraries")
    assert plan(team, method="libraries").is_empty


def test_values_of_other_variables_and_secrets_are_neither_shown_nor_kept(
    workspace: Databricks, client: Client, plan: PlanAttach, attach: Attach, detach: Detach
) -> None:
    cluster = workspace.clusters.add(
        "c", spark_env_vars={"PASSWORD": "hunter2", "AZUREML_CURRENT_CLOUD": "{{secrets/a/b}}"}
    )
    lines = plan(cluster.cluster_id, method="libraries").change.diff_lines()
    assert "hunter2" not in "\n".join(lines)
    assert "  PASSWORD: (not shown)" in [line[2:] for line in lines]
    attach(cluster.cluster_id, method="libraries")
    uploaded = b"".join(workspace.volumes.files.values()).decode(errors="replace")
    assert "{{secrets/a/b}}" in uploaded, "a reference is not a secret"
    assert "hunter2" not in uploaded
    assert TOKEN not in uploaded
    detach(cluster.cluster_id)
    cluster.spec["spark_env_vars"]["AZUREML_CURRENT_CLOUD"] = "https://me:hunter2@mlflow"
    with pytest.raises(ClusterError, match="must hold no secret in plain text") as caught:
        plan(cluster.cluster_id, method="libraries")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("method", ["init-script", "libraries"])
def test_no_variable_of_the_cluster_needs_the_plugin(
    workspace: Databricks, client: Client, plan: PlanAttach, team: str, method: str
) -> None:
    """It would be in force on a node whose script or library failed: plain MLflow would raise."""
    attach_plan = plan(team, method=method)
    assert URI not in attach_plan.change.desired.variables.values()
    assert attach_plan.change.desired.variables["MLFLOW_TRACKING_URI"] == "databricks"
    assert "MLFLOW_TRACKING_URI" in attach_plan.overriding_variables


def test_a_config_from_the_portal_means_dual_on_a_cluster(tmp_path: Path, wheelhouse: Path) -> None:
    config = {
        "subscription_id": Workspace().subscription_id,
        "resource_group": "rg-ml",
        "workspace_name": "mlw-team",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert collect_files(tmp_path, wheelhouse, method="init-script").link.mode == "dual"
    (tmp_path / "config.json").write_text(json.dumps({**config, "dbx_aml": {"mode": "aml"}}))
    assert read_cluster_link(tmp_path).mode == "aml"


# A cluster that can never be prepared.


@pytest.mark.parametrize(
    ("spark_version", "wheelhouse_runtime", "reason"),
    [
        ("14.3.x-scala2.12", "17.3", "the oldest supported one is 16.4"),
        ("15.4.x-scala2.12", "frozen.txt", "mlflow-skinny must be <4,>=2.19 for dbx-aml"),
        ("17.3.x-scala2.13", "17.3-ml", "plain and ML apart: got one for 17.3-ml"),
        ("17.3.x-cpu-ml-scala2.13", "17.3", "plain and ML apart: got one for 17.3"),
    ],
)
@pytest.mark.parametrize("method", ["init-script", "libraries"])
def test_a_runtime_that_cannot_be_prepared_is_refused_before_any_write(
    workspace: Databricks,
    plan: PlanAttach,
    wheelhouse: Path,
    spark_version: str,
    wheelhouse_runtime: str,
    reason: str,
    method: str,
) -> None:
    cluster = workspace.clusters.add("c", spark_version=spark_version)
    list_wheels(wheelhouse, wheelhouse_runtime)
    with pytest.raises(ClusterError, match=reason):
        plan(cluster.cluster_id, method=method)
    assert workspace.writes() == []


BEN, APPLICATION = "ben@contoso.com", "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42"
OF_BEN = {"data_security_mode": "SINGLE_USER", "single_user_name": BEN}


@pytest.mark.parametrize(
    ("spec", "grants", "is_readable"),
    [
        (OF_BEN, {}, False),
        (OF_BEN, {BEN: "WRITE_VOLUME"}, False),
        (OF_BEN, {BEN: "READ_VOLUME"}, True),
        (OF_BEN, {BEN: "ALL_PRIVILEGES"}, True),
        (OF_BEN, {USER: "READ_VOLUME", APPLICATION: "READ_VOLUME"}, False),
        (OF_BEN, {"account users": "READ_VOLUME"}, True),
        ({**OF_BEN, "single_user_name": APPLICATION}, {}, False),
        ({**OF_BEN, "single_user_name": "ml-team"}, {"ml-team": "READ_VOLUME"}, True),
        ({**OF_BEN, "single_user_name": "admin@contoso.com"}, {}, True),  # owns the volume
        ({**OF_BEN, "single_user_name": USER}, {}, True),
        ({"data_security_mode": "USER_ISOLATION", "creator_user_name": BEN}, {}, False),
        ({"data_security_mode": "USER_ISOLATION", "creator_user_name": USER}, {}, True),
    ],
)
def test_the_script_must_be_readable_for_who_reads_it(
    workspace: Databricks,
    plan: PlanAttach,
    spec: dict[str, Any],
    grants: dict[str, str],
    is_readable: bool,
) -> None:
    cluster = workspace.clusters.add("c", **spec)
    for principal, privilege in grants.items():
        workspace.grants.grant("volume", "main.ml.dbx_aml", principal, privilege)
    if is_readable:
        assert plan(cluster.cluster_id).restarts_cluster
        return
    reader = spec.get("single_user_name") or spec["creator_user_name"]
    with pytest.raises(ClusterError, match=f"must be readable for '{reader}'") as caught:
        plan(cluster.cluster_id)
    assert f"GRANT READ VOLUME ON VOLUME main.ml.dbx_aml TO `{reader}`" in str(caught.value)
    assert workspace.writes() == []


@pytest.mark.parametrize(
    ("mode", "folder", "is_readable"),
    [
        ("SINGLE_USER", f"/Workspace/Users/{USER}/x", False),
        ("NONE", f"/Users/{USER}/x", False),
        ("SINGLE_USER", f"/Workspace/Users/{BEN}/x", True),
        ("SINGLE_USER", "/Workspace/Shared/x", True),
        # In standard access mode libraries are read as the user who adds them.
        ("USER_ISOLATION", f"/Workspace/Users/{USER}/x", True),
    ],
)
def test_libraries_in_a_users_folder_are_refused_for_the_cluster_of_another_user(
    workspace: Databricks, plan: PlanAttach, mode: str, folder: str, is_readable: bool
) -> None:
    spec = {**OF_BEN, "data_security_mode": mode, "creator_user_name": BEN}
    cluster = workspace.clusters.add("c", **spec)
    if is_readable:
        assert plan(cluster.cluster_id, method="libraries", folder=folder)
        return
    with pytest.raises(ClusterError, match=f"must be readable for '{BEN}'.*give --folder /Volu"):
        plan(cluster.cluster_id, method="libraries", folder=folder)


# A refused change.


@pytest.mark.parametrize("method", ["init-script", "libraries"])
def test_a_refused_change_leaves_nothing_behind(
    workspace: Databricks, attach: Attach, shared: str, method: str
) -> None:
    files_before, folders_before = dict(workspace.volumes.files), set(workspace.volumes.folders)
    workspace.allowlists.set("/Volumes/other")
    workspace.deny("POST .*clusters/update", "ana does not have CAN MANAGE")
    with pytest.raises(ClusterError, match=r"is unchanged, and nothing of the attach is left\)$"):
        attach(shared, method=method)
    assert workspace.volumes.files == files_before
    assert workspace.volumes.folders == folders_before
    assert workspace.allowlists.artifacts() == ["/Volumes/other"]


def test_a_refused_change_of_an_attached_cluster_brings_its_files_back(
    workspace: Databricks, attach: Attach, plan: PlanAttach, team: str, tmp_path: Path
) -> None:
    attach(team)
    files_before = dict(workspace.volumes.files)
    write_link(tmp_path, experiment="iris")
    workspace.deny("POST .*clusters/restart", "ana does not have CAN RESTART")
    with pytest.raises(ClusterError, match="is unchanged, and nothing of the attach is left"):
        attach(team)
    assert workspace.volumes.files == files_before
    write_link(tmp_path)
    assert plan(team).is_empty


def test_what_cannot_be_undone_is_named_with_the_command_that_removes_it(
    workspace: Databricks, attach: Attach, detach: Detach, shared: str
) -> None:
    files_before = dict(workspace.volumes.files)
    workspace.deny("POST .*clusters/update", "ana does not have CAN MANAGE")
    workspace.deny("DELETE .*fs/", "ana does not have WRITE VOLUME")
    with pytest.raises(ClusterError, match="not all could be undone") as caught:
        attach(shared)
    assert str(caught.value).endswith(f"with: dbx-aml cluster detach {shared} --folder {VOLUME})")
    workspace.allow_all()
    detach(shared)
    assert workspace.volumes.files == files_before
    assert workspace.allowlists.artifacts() == []


def test_a_config_that_was_only_found_gives_the_cluster_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"databricks_tracking_uri": "https://collector.example"}
    (tmp_path / "config.json").write_text(json.dumps({"dbx_aml": settings}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LinkError, match=r"must not be a server .* that was only found"):
        read_cluster_link(None)
    assert read_cluster_link(tmp_path).databricks_tracking_uri == "https://collector.example"


def test_missing_local_files_are_an_error_before_any_call(tmp_path: Path) -> None:
    write_link(tmp_path)
    with pytest.raises(LinkError, match=r"must be a config\.json .*none\.json.*dbx-aml link set"):
        collect_files(tmp_path / "none.json", None, method="init-script")
    with pytest.raises(ArgumentError, match="wheelhouse must hold wheels and their hashes: got"):
        collect_files(tmp_path, tmp_path, method="init-script")
    for method in ("init-script", "libraries"):
        with pytest.raises(ArgumentError, match="must come from a wheelhouse: got none; run 'dbx-"):
            collect_files(tmp_path, None, method=method)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "b-1-py3-none-any.whl").unlink(), "wheels are not those of its"),
        (lambda folder: write_wheel(folder, "b", "1", ("a",)), "wheels are not those of its"),
        (lambda folder: write_wheel(folder, "c", "1"), "wheels are not those of its"),
        (lambda folder: (folder / "requirements.txt").write_text("b==1\n"), "line 1 is none"),
        (lambda folder: (folder / "requirements.txt").write_bytes(b"\xff"), "can't decode"),
        (lambda folder: (folder / "wheelhouse.json").unlink(), "No such file or directory"),
        (lambda folder: (folder / "wheelhouse.json").write_text("[[]]"), "it is a list"),
        (lambda folder: (folder / "wheelhouse.json").write_text("[" * 9**5), "it is nested too de"),
        (lambda folder: list_wheels(folder, 17), "runtime must be"),
        (remove_own_wheel, "it has no dbx-aml"),
    ],
)
def test_a_wheelhouse_that_is_not_as_its_list_is_refused(
    tmp_path: Path, wheelhouse: Path, change: Callable[[Path], object], reason: str
) -> None:
    write_link(tmp_path)
    change(wheelhouse)
    with pytest.raises(ArgumentError, match=reason) as caught:
        collect_files(tmp_path, wheelhouse, method="init-script")
    assert "fill it with 'dbx-aml cluster wheelhouse'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_outage_during_the_change_is_one_line_and_the_cluster_is_unchanged(
    workspace: Databricks,
    client: Client,
    plan: PlanAttach,
    team: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec_before = dict(cluster_spec(workspace, team))
    attach_plan = plan(team)
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "1")
    impatient_client = Client()
    workspace.fault("status", status=503, retry_after_s=0, path="clusters/update")
    with pytest.raises(ClusterError, match="asked to change cluster") as caught:
        attach_cluster(impatient_client, attach_plan, ignore_message)
    assert "503" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert cluster_spec(workspace, team) == spec_before
    assert find_cluster(client, team).name == "team"
