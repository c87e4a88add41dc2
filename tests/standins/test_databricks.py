"""The stand-in of Databricks follows the platform's rules, tested through the real SDK."""

import io
import time
from dataclasses import replace

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import BadRequest, DatabricksError, NotFound, PermissionDenied
from databricks.sdk.service.catalog import ArtifactMatcher, ArtifactType, MatchType
from databricks.sdk.service.compute import (
    ClusterDetails,
    InitScriptInfo,
    Language,
    Library,
    State,
    UpdateClusterResource,
    VolumesStorageInfo,
    WorkspaceStorageInfo,
)

from tests.support.databricks import USER, Databricks
from tests.support.databricks.workspace_file import Item
from tests.support.http.journal import Entry, Journal

VOLUME = "/Volumes/main/default/dbx_aml"
SCRIPT = f"{VOLUME}/init.sh"


@pytest.fixture
def client(databricks: Databricks) -> WorkspaceClient:
    return WorkspaceClient()


def volume_script(path: str = SCRIPT) -> InitScriptInfo:
    return InitScriptInfo(volumes=VolumesStorageInfo(path))


def wait_until_at_rest(client: WorkspaceClient, cluster_id: str) -> ClusterDetails:
    for _ in range(200):
        details = client.clusters.get(cluster_id)
        if details.state in (State.RUNNING, State.TERMINATED, State.ERROR):
            return details
        time.sleep(0.01)
    raise AssertionError(details.state)


def test_the_caller_has_a_name_and_must_have_the_token(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    assert client.current_user.me().user_name == USER
    other = WorkspaceClient(host=databricks.host, token="dapi-other")
    with pytest.raises(DatabricksError, match="Credential was not sent"):
        other.current_user.me()


def test_an_update_replaces_what_its_mask_names_and_restarts_a_running_cluster(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    databricks.volumes.add("main.default.dbx_aml")
    databricks.volumes.files[SCRIPT] = b"true"
    cluster = databricks.clusters.add("team", spark_env_vars={"A": "1", "B": "2"}, num_workers=3)
    client.clusters.update(
        cluster.cluster_id,
        "init_scripts,spark_env_vars",
        cluster=UpdateClusterResource(init_scripts=[volume_script()], spark_env_vars={"B": "3"}),
    )
    assert client.clusters.get(cluster.cluster_id).state == State.RESTARTING
    details = wait_until_at_rest(client, cluster.cluster_id)
    assert details.state == State.RUNNING
    assert details.spark_env_vars == {"B": "3"}
    assert details.num_workers == 3, "not in the mask"
    client.clusters.update(cluster.cluster_id, "init_scripts", cluster=UpdateClusterResource())
    assert not wait_until_at_rest(client, cluster.cluster_id).init_scripts, (
        "a masked field without a value is removed"
    )


@pytest.mark.parametrize("state", ["PENDING", "RESIZING", "TERMINATING", "ERROR"])
def test_a_cluster_in_another_state_takes_no_edit(
    databricks: Databricks, client: WorkspaceClient, state: str
) -> None:
    cluster = databricks.clusters.add("team", state=state)
    with pytest.raises(BadRequest, match=f"in state {state}") as caught:
        client.clusters.update(cluster.cluster_id, "num_workers")
    assert caught.value.error_code == "INVALID_STATE"


def test_a_job_cluster_takes_no_edit(databricks: Databricks, client: WorkspaceClient) -> None:
    cluster = databricks.clusters.add("job-1-run-2", source="JOB")
    with pytest.raises(BadRequest, match="created by the Databricks Jobs service"):
        client.clusters.update(cluster.cluster_id, "num_workers")


def test_clusters_are_listed_over_pages(databricks: Databricks, client: WorkspaceClient) -> None:
    names = [f"c{number:02d}" for number in range(25)]
    for name in names:
        databricks.clusters.add(name)
    assert [listed.cluster_name for listed in client.clusters.list()] == names
    with pytest.raises(DatabricksError, match="Cluster 0-0-0 does not exist"):
        client.clusters.get("0-0-0")


@pytest.mark.parametrize(
    ("mode", "script", "allowed", "error"),
    [
        ("SINGLE_USER", volume_script(), (), None),
        ("SINGLE_USER", volume_script(f"{VOLUME}/no.sh"), (), "the file does not exist"),
        ("SINGLE_USER", volume_script(f"{VOLUME}/big.sh"), (), "larger than 64KB"),
        ("NONE", volume_script(), (), "without Unity Catalog"),
        ("NONE", InitScriptInfo(workspace=WorkspaceStorageInfo("/Shared/init.sh")), (), None),
        ("NONE", InitScriptInfo(workspace=WorkspaceStorageInfo("/Shared/i")), (), "not exist"),
        ("USER_ISOLATION", volume_script(), (), "not in the allowlist"),
        ("USER_ISOLATION", volume_script(), ("/Volumes/main/default/dbx_aml/b",),
         "not in the allowlist"),
        ("USER_ISOLATION", volume_script(), (VOLUME,), None),
        ("USER_ISOLATION", InitScriptInfo(workspace=WorkspaceStorageInfo("/Shared/init.sh")),
         ("/Shared",), "from Unity Catalog volumes only"),
    ],
)  # fmt: skip
def test_a_start_fails_where_a_script_breaks_a_rule(
    databricks: Databricks,
    client: WorkspaceClient,
    mode: str,
    script: InitScriptInfo,
    allowed: tuple[str, ...],
    error: str | None,
) -> None:
    databricks.volumes.add("main.default.dbx_aml")
    databricks.volumes.files |= {SCRIPT: b"true", f"{VOLUME}/big.sh": b"#" * 65537}
    databricks.files.items["/Shared/init.sh"] = Item("FILE", b"true")
    databricks.allowlists.set(*allowed)
    cluster = databricks.clusters.add("c", data_security_mode=mode, init_scripts=[script.as_dict()])
    client.clusters.restart(cluster.cluster_id)
    details = wait_until_at_rest(client, cluster.cluster_id)
    if error is None:
        assert details.state == State.RUNNING
        return
    assert details.state == State.TERMINATED
    assert details.termination_reason and details.termination_reason.code
    assert details.termination_reason.code.value == "INIT_SCRIPT_FAILURE"
    assert error in (details.state_message or "")


@pytest.mark.parametrize(
    ("reader", "grants", "script", "starts"),
    [
        ("ben@contoso.com", {}, volume_script(), False),
        ("ben@contoso.com", {"ben@contoso.com": "WRITE_VOLUME"}, volume_script(), False),
        ("ben@contoso.com", {"ben@contoso.com": "READ_VOLUME"}, volume_script(), True),
        ("ben@contoso.com", {"account users": "READ_VOLUME"}, volume_script(), True),
        ("admin@contoso.com", {}, volume_script(), True),  # owns the volume
        (USER, {}, volume_script(), True),
        ("ben@contoso.com", {}, InitScriptInfo(workspace=WorkspaceStorageInfo(f"/Users/{USER}/i")),
         False),
        (USER, {}, InitScriptInfo(workspace=WorkspaceStorageInfo(f"/Users/{USER}/i")), True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["single_user_name", "creator_user_name"])
def test_a_script_is_read_as_the_assigned_principal_or_the_owner(
    databricks: Databricks,
    client: WorkspaceClient,
    field: str,
    reader: str,
    grants: dict[str, str],
    script: InitScriptInfo,
    starts: bool,
) -> None:
    databricks.volumes.add("main.default.dbx_aml")
    databricks.volumes.files[SCRIPT] = b"true"
    databricks.files.items[f"/Users/{USER}/i"] = Item("FILE", b"true")
    for principal, privilege in grants.items():
        databricks.grants.grant("volume", "main.default.dbx_aml", principal, privilege)
    cluster = databricks.clusters.add("c", **{field: reader}, init_scripts=[script.as_dict()])
    client.clusters.restart(cluster.cluster_id)
    details = wait_until_at_rest(client, cluster.cluster_id)
    assert (details.state == State.RUNNING) is starts
    assert starts or "the cluster may not read the file" in (details.state_message or "")


def test_what_a_script_does_is_up_to_the_test_and_a_bad_end_stops_the_start(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    databricks.volumes.add("main.default.dbx_aml")
    databricks.volumes.files[SCRIPT] = b"echo"
    calls = []

    def run(path, text, variables, root):
        calls.append((path, text, dict(variables), root.is_dir()))
        return 3

    databricks.boot.run_script = run
    cluster = databricks.clusters.add(
        "c",
        init_scripts=[volume_script().as_dict()] * 2,
        spark_env_vars={"A": "1"},
    )
    client.clusters.restart(cluster.cluster_id)
    assert "exit status is non-zero: 3" in str(
        wait_until_at_rest(client, cluster.cluster_id).state_message
    )
    assert calls == [(SCRIPT, b"echo", {"A": "1"}, True)], "the second script does not run"


def test_an_allowlist_is_replaced_whole(databricks: Databricks, client: WorkspaceClient) -> None:
    kind = ArtifactType.INIT_SCRIPT
    for artifact in ("/Volumes/a/b/c", "/Volumes/d/e/f"):
        client.artifact_allowlists.update(
            kind, [ArtifactMatcher(artifact=artifact, match_type=MatchType.PREFIX_MATCH)]
        )
    matchers = client.artifact_allowlists.get(kind).artifact_matchers
    assert [matcher.artifact for matcher in matchers or []] == ["/Volumes/d/e/f"]
    databricks.deny("PUT .*artifact-allowlists", "User does not have MANAGE ALLOWLIST")
    with pytest.raises(PermissionDenied, match="MANAGE ALLOWLIST"):
        client.artifact_allowlists.update(kind, [])
    assert databricks.allowlists.artifacts() == ["/Volumes/d/e/f"]


def test_files_of_a_volume_need_volume_and_folder(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    with pytest.raises(NotFound, match=r"Volume 'main\.default\.dbx_aml' does not exist"):
        client.files.upload(SCRIPT, io.BytesIO(b"1"))
    databricks.volumes.add("main.default.dbx_aml")
    client.files.upload(SCRIPT, io.BytesIO(b"1"))
    with pytest.raises(DatabricksError, match="already exists"):
        client.files.upload(SCRIPT, io.BytesIO(b"2"))
    client.files.upload(SCRIPT, io.BytesIO(b"2"), overwrite=True)
    contents = client.files.download(SCRIPT).contents
    assert contents and contents.read() == b"2"
    with pytest.raises(NotFound, match="parent directory"):
        client.files.upload(f"{VOLUME}/a b/c/d.txt", io.BytesIO(b"3"))
    client.files.create_directory(f"{VOLUME}/a b/c")
    client.files.upload(f"{VOLUME}/a b/c/d.txt", io.BytesIO(b"3"))
    entries = client.files.list_directory_contents(VOLUME)
    assert [(entry.name, entry.is_directory) for entry in entries] == [
        ("a b", True),
        ("init.sh", False),
    ]
    client.files.delete(SCRIPT)
    with pytest.raises(NotFound):
        client.files.get_metadata(SCRIPT)
    assert client.volumes.read("main.default.dbx_aml").volume_type


def test_libraries_install_later_and_leave_at_a_restart(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    databricks.volumes.add("main.default.dbx_aml")
    databricks.volumes.files[f"{VOLUME}/a.whl"] = b""
    cluster = databricks.clusters.add("team")
    good, bad = Library(whl=f"{VOLUME}/a.whl"), Library(whl=f"{VOLUME}/b.whl")
    client.libraries.install(cluster.cluster_id, [good, bad])

    def statuses() -> list[str]:
        rows = client.libraries.cluster_status(cluster.cluster_id)
        return [row.status.value for row in rows if row.status]

    assert [statuses() for _ in range(3)] == [
        ["PENDING", "PENDING"], ["INSTALLING", "INSTALLING"], ["INSTALLED", "FAILED"],
    ]  # fmt: skip
    client.libraries.uninstall(cluster.cluster_id, [good, bad])
    assert statuses() == ["UNINSTALL_ON_RESTART"] * 2
    client.clusters.restart(cluster.cluster_id)
    wait_until_at_rest(client, cluster.cluster_id)
    assert statuses() == []


def test_a_running_cluster_keeps_a_library_by_its_path_until_it_restarts(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    path = f"{VOLUME}/a.whl"
    databricks.volumes.add("main.default.dbx_aml")
    cluster = databricks.clusters.add("team")

    def install(content: bytes) -> bytes | None:
        databricks.volumes.files[path] = content
        client.libraries.install(cluster.cluster_id, [Library(whl=path)])
        return installed()

    def installed() -> bytes | None:
        for _ in range(3):
            list(client.libraries.cluster_status(cluster.cluster_id))
        return databricks.libraries.content(cluster.cluster_id, path)

    assert install(b"old") == b"old"
    assert install(b"new") == b"old"
    client.clusters.restart(cluster.cluster_id)
    wait_until_at_rest(client, cluster.cluster_id)
    assert installed() == b"new"


def test_a_command_runs_on_the_driver_of_a_running_cluster(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    cluster = databricks.clusters.add("team")
    folder = databricks.boot.root(cluster.cluster_id) / "databricks"
    folder.mkdir()
    (folder / "x.txt").write_text("hello")
    context = client.command_execution.create(
        cluster_id=cluster.cluster_id, language=Language.PYTHON
    ).result()
    for code, kind, data in [
        ("print(open('/databricks/x.txt').read())", "text", "hello"),
        ("open('/databricks/no.txt')", "error", None),
    ]:
        done = client.command_execution.execute(
            cluster_id=cluster.cluster_id,
            context_id=context.id,
            language=Language.PYTHON,
            command=code,
        ).result()
        assert done.results and done.results.result_type
        assert (done.results.result_type.value, done.results.data) == (kind, data)
    assert context.id
    client.command_execution.destroy(cluster.cluster_id, context.id)
    assert databricks.commands.open_contexts == []
    asleep = databricks.clusters.add("asleep", state="TERMINATED")
    with pytest.raises(DatabricksError, match="ClusterNotRunning"):
        client.command_execution.create(cluster_id=asleep.cluster_id, language=Language.PYTHON)


def test_policies_are_checked_and_have_unique_names(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    policy = client.cluster_policies.create(
        name="p", definition='{"num_workers": {"type": "fixed", "value": 1}}'
    )
    assert [listed.name for listed in client.cluster_policies.list()] == ["p"]
    for arguments, message in [
        ({"name": "p", "definition": "{}"}, "must be unique"),
        ({"name": "q", "definition": "{"}, "no JSON document"),
        ({"name": "q", "definition": '{"a": {"type": "no"}}'}, "unknown type"),
    ]:
        with pytest.raises(DatabricksError, match=message):
            client.cluster_policies.create(**arguments)
    assert policy.policy_id
    client.cluster_policies.delete(policy.policy_id)
    assert databricks.policies.policies == {}


def test_faults_hit_what_they_name_and_are_kept_in_the_journal(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    cluster = databricks.clusters.add("team")
    databricks.fault("status", status=429, retry_after_s=0, path="clusters/get", count=1)
    assert client.clusters.get(cluster.cluster_id).cluster_name == "team"
    assert [request.status for request in databricks.requests(path="clusters/get")] == [429, 200]
    assert databricks.writes() == []
    with pytest.raises(NotFound, match="No API found for"):
        client.api_client.do("GET", "/api/2.0/nothing")


def test_a_request_of_the_test_before_is_not_in_the_journal() -> None:
    journal = Journal()
    journal.clear()
    entry = Entry(method="GET", host="", path="/", status=0, seconds=60.0)
    journal.add(entry)
    assert journal.to_dicts() == []
    journal.add(replace(entry, seconds=0.0))
    assert len(journal.to_dicts()) == 1
