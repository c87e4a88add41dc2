"""The record lies where others can write: what it names outside of its folder is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dbx_aml._common.errors import ClusterError, DbxAmlError
from dbx_aml.cluster.allowlist import Allowlist
from dbx_aml.cluster.attach import attach_cluster
from dbx_aml.cluster.attach_record import AttachRecord, attached_folder, read_record, write_record
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster, get_cluster
from dbx_aml.cluster.detach import detach_cluster, plan_detach
from dbx_aml.cluster.folder import ClusterFolder
from dbx_aml.cluster.status import read_status
from tests.cluster.conftest import VOLUME, Attach, Detach, PlanAttach, ignore_message
from tests.support.databricks import USER, Databricks

ALLOWLIST = "/api/2.1/unity-catalog/artifact-allowlists/INIT_SCRIPT"


def folder_of(client: Client, cluster_id: str) -> ClusterFolder:
    return ClusterFolder(client, f"{VOLUME}/{cluster_id}")


def known_record(client: Client, cluster_id: str) -> AttachRecord:
    record = read_record(folder_of(client, cluster_id))
    assert record is not None
    return record


OTHER_SCRIPT = "/Volumes/main/ops/init/audit.sh"
FOREIGN_RECORDS: list[tuple[dict[str, Any], str]] = [
    *(
        ({"files": {name: "0"}}, "files must name files of this folder only")
        for name in (
            "../../finance/q4.csv", "../../../../api/2.1/unity-catalog/tables/hunter2",
            "wheelhouse/../../x", "/Volumes/main/finance/q4.csv", "wheelhouse/a/b.whl",
            "other/x", "", ".", "a\\b", "C:x", "a\nb", "a\u0000",
        )
    ),
    ({"script": {"volumes": {"destination": OTHER_SCRIPT}}}, "script must name files"),
    ({"script": {"volumes": {"destination": "dbx_aml_init.sh"}}}, "script must name files"),
    ({"script": {"volumes": {"destination": "{folder}/../x.sh"}}}, "script must name files"),
    ({"script": {"workspace": {"destination": "{folder}/x.sh"}}}, "script must name files"),
    ({"script": {"s3": {"destination": "x"}, "volumes": {"destination": "{folder}/x.sh"}}},
     "script must name files"),
    ({"script": {}}, "script must name files"),
    ({"script": {"volumes": {}}}, "script must name files"),
    ({"script": ["x"]}, "script must be an object"),
    ({"allowlist_entries": [OTHER_SCRIPT]}, "allowlist_entries must name files"),
    ({"allowlist_entries": ["x"]}, "allowlist_entries must name files"),
    ({"allowlist_entries": ["{folder}"]}, "allowlist_entries must name files"),
    ({"allowlist_entries": "x"}, "allowlist_entries must be a list"),
    ({"libraries": [{"whl": "/Volumes/main/ops/a.whl"}]}, "libraries must name files"),
    ({"libraries": [{"jar": "{folder}/a.whl"}]}, "libraries must name files"),
    ({"libraries": [{"whl": "{folder}/a.whl", "pypi": "x"}]}, "libraries must name files"),
    ({"libraries": ["x"]}, "libraries must be a list"),
    ({"variables": ["A"]}, "variables must be an object"),
    ({"previous_values": 5}, "previous_values must be an object"),
    ({"files": ["a"]}, "files must be an object"),
    ({"is_complete": "no"}, "is_complete must be true or false"),
    ({"method": "telepathy"}, "method must be one of"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "problem"), FOREIGN_RECORDS)
def test_a_record_that_names_anything_outside_of_its_folder_is_refused_before_any_change(
    workspace: Databricks,
    client: Client,
    attach: Attach,
    plan: PlanAttach,
    shared: str,
    changes: dict[str, Any],
    problem: str,
) -> None:
    attach(shared)
    folder = f"{VOLUME}/{shared}"
    content = json.loads(workspace.volumes.files[f"{folder}/attached.json"])
    text = json.dumps({**content, **changes}).replace("{folder}", folder)
    workspace.volumes.files[f"{folder}/attached.json"] = text.encode()
    workspace.forget_requests()
    cluster = get_cluster(client, shared)
    message = f"record of the attach must be readable: {folder}/attached.json is damaged ({problem}"
    for read in (lambda: plan_detach(client, cluster, folder_of(client, shared)),
                 lambda: plan(shared)):  # fmt: skip
        with pytest.raises(ClusterError) as caught:
            read()
        assert str(caught.value).startswith(message)
        assert str(caught.value).isprintable()
        assert "hunter2" not in str(caught.value)
    status = read_status(client, cluster)
    assert status.record is None
    assert status.problems[0].startswith(message)
    assert [request for request in workspace.writes() if "/1.2/" not in request.path] == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "[" * 100_000, b"\xff", '"hunter2"'])
def test_a_file_that_is_no_record_is_one_line_without_its_text(
    workspace: Databricks, client: Client, team: str, text: str | bytes
) -> None:
    content = text.encode() if isinstance(text, str) else text
    workspace.volumes.files[f"{VOLUME}/{team}/attached.json"] = content
    with pytest.raises(ClusterError, match=r"attached\.json is damaged \(it ") as caught:
        read_record(folder_of(client, team))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_record_of_a_later_release_is_read(
    workspace: Databricks, client: Client, attach: Attach, team: str
) -> None:
    attach(team)
    file = f"{VOLUME}/{team}/attached.json"
    record = known_record(client, team)
    assert (record.user, record.is_complete) == (USER, True)
    content = json.loads(workspace.volumes.files[file])
    workspace.volumes.files[file] = json.dumps({**content, "colour": ["red"]}).encode()
    assert known_record(client, team) == record


def test_a_folder_with_two_dots_is_no_clusters_folder(client: Client) -> None:
    for path in (f"{VOLUME}/../x", "/Workspace/Shared/..", f"{VOLUME}/a\\b", f"{VOLUME}/a\nb"):
        with pytest.raises(DbxAmlError, match="folder must be in a volume or in the workspace"):
            ClusterFolder(client, path)
    script = {"volumes": {"destination": f"{VOLUME}/../1/dbx_aml_init.sh"}}
    assert attached_folder(Cluster(spec={"cluster_id": "1", "init_scripts": [script]})) is None
    folder = ClusterFolder(client, VOLUME)
    with pytest.raises(DbxAmlError, match="path must stay inside its folder"):
        folder.delete_files(["../x"])


# Two attaches at once.


def begin_attach(client: Client, cluster_id: str, **values: Any) -> None:
    """Write the record of another attach that is at work."""
    now = datetime.now(UTC).isoformat()
    other = AttachRecord(method="init-script", is_complete=False, time=now, user="ben@contoso.com")
    write_record(folder_of(client, cluster_id), replace(other, attach_id="other", **values))


def test_an_attach_of_another_user_that_is_at_work_is_named(
    workspace: Databricks, client: Client, plan: PlanAttach, team: str
) -> None:
    begin_attach(client, team)
    workspace.forget_requests()
    with pytest.raises(ClusterError, match=r"by one user at a time: 'ben@contoso\.com' has begun"):
        plan(team)
    assert workspace.writes() == []


@pytest.mark.parametrize(
    "values",
    [
        {"user": USER},
        {"is_complete": True},
        {"time": (datetime.now(UTC) - timedelta(hours=2)).isoformat()},
        {"time": (datetime.now(UTC) + timedelta(hours=2)).isoformat()},
        {"time": "soon"},
        {"time": "2026-11-26"},
    ],
)
def test_an_attach_that_was_interrupted_or_has_ended_stops_nobody(
    client: Client, attach: Attach, team: str, values: dict[str, Any]
) -> None:
    begin_attach(client, team, **values)
    assert attach(team).marker
    assert known_record(client, team).is_complete


def test_the_files_of_an_attach_that_began_after_the_plan_are_not_written_over(
    workspace: Databricks, client: Client, plan: PlanAttach, team: str
) -> None:
    attach_plan = plan(team)
    begin_attach(client, team)
    workspace.forget_requests()
    with pytest.raises(ClusterError, match=r"'ben@contoso\.com' .* \(cluster .* is unchanged\)"):
        attach_cluster(client, attach_plan, ignore_message)
    assert workspace.writes() == []


def test_of_two_attaches_at_the_same_moment_the_one_with_the_record_goes_on(
    workspace: Databricks, client: Client, plan: PlanAttach, team: str
) -> None:
    first, second = plan(team), plan(team)
    spec_before = dict(workspace.clusters.find(team).spec)

    def attach_second_meanwhile(message: str) -> None:
        if message.startswith("uploading"):
            write_record(second.files.folder, replace(second.record, is_complete=False))

    with pytest.raises(ClusterError, match=rf"{USER}' has begun an attach .* is unchanged"):
        attach_cluster(client, first, attach_second_meanwhile)
    assert workspace.clusters.find(team).spec == spec_before
    assert known_record(client, team).attach_id == second.record.attach_id


def test_a_detach_does_not_remove_the_files_of_a_later_attach(
    workspace: Databricks, client: Client, attach: Attach, team: str
) -> None:
    attach(team)
    detach_plan = plan_detach(client, get_cluster(client, team), folder_of(client, team))
    begin_attach(client, team)
    workspace.forget_requests()
    with pytest.raises(ClusterError, match="by one user at a time"):
        detach_cluster(client, detach_plan, ignore_message)
    assert workspace.writes() == []


@pytest.fixture
def on_put(client: Client, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run functions in turn, one after each write of the allowlist."""
    call = client.call
    functions: list[Callable[[], object]] = []

    def call_then_run(method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = call(method, path, **arguments)
        if (method, path) == ("PUT", ALLOWLIST) and functions:
            functions.pop(0)()
        return answer

    monkeypatch.setattr(client, "call", call_then_run)
    return lambda *added: functions.extend(added)


def test_an_entry_that_another_user_replaced_is_written_again(
    workspace: Databricks, client: Client, on_put: Callable[..., None]
) -> None:
    allowlists = workspace.allowlists
    allowlists.set("/Volumes/a")
    allowlist = Allowlist(client, "/Volumes/ours.sh")
    # The list changes after it was read for the plan, and again right after our write.
    allowlists.set("/Volumes/a", "/Volumes/b")
    on_put(lambda: allowlists.set("/Volumes/a", "/Volumes/b", "/Volumes/c"))
    allowlist.add_script()
    expected = ["/Volumes/a", "/Volumes/b", "/Volumes/c"]
    assert allowlists.artifacts() == [*expected, "/Volumes/ours.sh"]
    on_put(lambda: allowlists.set("/Volumes/ours.sh", *expected))
    allowlist.remove_script()
    assert allowlists.artifacts() == expected


def test_a_list_that_others_replace_all_the_time_is_an_error(
    workspace: Databricks, client: Client, on_put: Callable[..., None]
) -> None:
    on_put(*[lambda: workspace.allowlists.set("/Volumes/a")] * 9)
    with pytest.raises(ClusterError, match=r"must keep the change of /Volumes/ours\.sh: .* 5 tim"):
        Allowlist(client, "/Volumes/ours.sh").add_script()


def test_two_attaches_of_two_clusters_keep_both_entries(
    workspace: Databricks,
    client: Client,
    plan: PlanAttach,
    detach: Detach,
    shared: str,
) -> None:
    other = workspace.clusters.add("other", data_security_mode="USER_ISOLATION").cluster_id
    plans = [plan(shared), plan(other)]
    for attach_plan in plans:
        attach_cluster(client, attach_plan, ignore_message)
    assert workspace.allowlists.artifacts() == [
        attach_plan.files.script_path for attach_plan in plans
    ]
    detach(shared)
    assert workspace.allowlists.artifacts() == [plans[1].files.script_path]
