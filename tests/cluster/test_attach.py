"""Attach and detach: what was on a cluster stays, comes back, and is safe at every kill."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dbx_aml import Link
from dbx_aml._common.errors import ArgumentError, ClusterError, LinkError
from dbx_aml.cluster import apply, wait
from dbx_aml.cluster import driver as outcome
from dbx_aml.cluster import libraries as library
from dbx_aml.cluster.attach import Attach
from dbx_aml.cluster.attach_record import attached_path, read_record
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster, find_cluster, get_cluster
from dbx_aml.cluster.detach import plan_detach
from dbx_aml.cluster.files import gather
from dbx_aml.cluster.folder import Folder
from dbx_aml.cluster.plan import plan_attach
from dbx_aml.cluster.status import cluster_status
from tests.support.azureml import Workspace
from tests.support.databricks import TOKEN, USER, Databricks
from tests.support.databricks.boot import leaves_marker

URI = Workspace().tracking_uri
VOLUME = "/Volumes/main/ml/dbx_aml"
OURS = {
    "MLFLOW_TRACKING_URI": URI,
    "MLFLOW_REGISTRY_URI": URI,
    "AZUREML_CURRENT_CLOUD": "AzureCloud",
    "DBX_AML_RETRY_TIMEOUT_S": "120",
}
MERGED = {"A": "1", **OURS}
# Another's script, of a kind that no SDK knows yet: it must not be lost.
OTHERS = [
    {"volumes": {"destination": "/Volumes/x/y/z/a.sh"}},
    {"abfss": {"destination": "abfss://c@a/b.sh"}},
]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (library, outcome, wait):
        monkeypatch.setattr(module, "_POLL_S", 0.01)


@pytest.fixture
def service(databricks: Databricks, tmp_path: Path) -> Databricks:
    """A workspace with a volume, in which init scripts do what ours does when all is well."""
    databricks.volumes.add("main.ml.dbx_aml")
    databricks.volumes.add("x.y.z")
    databricks.volumes.files["/Volumes/x/y/z/a.sh"] = b"true"
    databricks.boot.run_script = leaves_marker()
    databricks.boot.elsewhere["abfss://c@a/b.sh"] = b"true"
    write_link(tmp_path)
    return databricks


def write_link(folder: Path, **values: Any) -> Path:
    link = Link(mode="aml", aml_tracking_uri=URI, client_secret="ml/aml", **values)
    return link.save(folder / "config.json")


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    for name in ("dbx_aml-0.1.0-py3-none-any.whl", "b-1-py3-none-any.whl"):
        (folder / name).write_bytes(name.encode())
    (folder / "requirements.txt").write_text("b==1 --hash=sha256:0\n")
    (folder / "wheelhouse.json").write_text('{"runtime": "17.3"}')
    return folder


@pytest.fixture
def client(service: Databricks) -> Client:
    return Client()


@pytest.fixture
def plan(client: Client, tmp_path: Path) -> Callable[..., Attach]:
    """Think out the attach of a cluster, named by its id."""

    def make(
        cluster_id: str, *, to: str = VOLUME, method: str = "init-script",
        wheels: Path | None = None, **more: Any
    ) -> Attach:  # fmt: skip
        cluster = find_cluster(client, cluster_id)
        folder = Folder(client, f"{to}/{cluster_id}")
        parts = gather(tmp_path / "config.json", wheels, method=method)
        return plan_attach(
            client, cluster, folder, method=method, files=parts.files(folder),
            variables=parts.variables(folder), wheels=parts.libraries, **more
        )  # fmt: skip

    return make


def detach(client: Client, cluster_id: str, to: str = VOLUME) -> Cluster:
    folder = Folder(client, f"{to}/{cluster_id}")
    return plan_detach(client, get_cluster(client, cluster_id), folder).run(client, quiet)


def quiet(text: str) -> None:
    """Say nothing."""


def spec(service: Databricks, cluster_id: str) -> dict[str, Any]:
    return service.clusters.find(cluster_id).spec


def ours(cluster_id: str, to: str = VOLUME) -> dict[str, Any]:
    return {"volumes": {"destination": f"{to}/{cluster_id}/dbx_aml_init.sh"}}


@pytest.fixture
def team(service: Databricks) -> str:
    """A running cluster with settings of its own."""
    return service.clusters.add(
        "team", init_scripts=OTHERS, spark_env_vars={"A": "1", "MLFLOW_TRACKING_URI": "databricks"}
    ).cluster_id


def test_attach_adds_to_what_a_cluster_has_and_reads_what_the_script_did(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str, wheelhouse: Path
) -> None:
    said: list[str] = []
    planned = plan(team, wheels=wheelhouse)
    assert planned.restarts
    assert service.writes() == [], "a plan only looks"
    done = planned.run(client, said.append)
    assert done.cluster.state == "RUNNING"
    assert done.marker and done.marker.installed == {"azureml-mlflow": "1.62.0.post6"}
    assert spec(service, team)["init_scripts"] == [*OTHERS, ours(team)]
    assert spec(service, team)["spark_env_vars"] == MERGED
    assert spec(service, team)["num_workers"] == 1
    folder = f"{VOLUME}/{team}"
    assert {one for one in service.volumes.files if one.startswith(folder)} == {
        f"{folder}/{name}" for name in (
            "dbx_aml_init.sh", "config.json", "attached.json",
            "wheelhouse/dbx_aml-0.1.0-py3-none-any.whl", "wheelhouse/b-1-py3-none-any.whl",
            "wheelhouse/requirements.txt", "wheelhouse/wheelhouse.json",
        )
    }  # fmt: skip
    config = json.loads(service.volumes.files[f"{folder}/config.json"])
    assert config["dbx_aml"]["client_secret"] == {"scope": "ml", "key": "aml"}
    assert said == [f"uploaded 6 files to {folder}", "team is RESTARTING, waiting"]
    assert service.commands.open_contexts == []
    assert attached_path(get_cluster(client, team)) == folder


def test_the_uploaded_script_has_the_link_and_its_folder_in_it(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str, wheelhouse: Path
) -> None:
    plan(team, wheels=wheelhouse).run(client, quiet)
    text = service.volumes.files[f"{VOLUME}/{team}/dbx_aml_init.sh"].decode()
    assert f"BAKED_WHEELHOUSE_PATH={VOLUME}/{team}/wheelhouse\n" in text
    assert '"workspace_name": "mlw-team"' in text
    plan(team).run(client, quiet)
    text = service.volumes.files[f"{VOLUME}/{team}/dbx_aml_init.sh"].decode()
    assert "BAKED_WHEELHOUSE_PATH=''\n" in text
    assert not [one for one in service.volumes.files if one.endswith(".whl")], "no longer named"


def test_a_wheelhouse_of_another_runtime_is_refused(
    service: Databricks, tmp_path: Path, wheelhouse: Path
) -> None:
    parts = gather(tmp_path / "config.json", wheelhouse, method="init-script")
    for version in ("17.3.x-scala2.13", "17.3.x-cpu-ml-scala2.13"):
        parts.check_runtime(Cluster(spec={"cluster_id": "1", "spark_version": version}))
    with pytest.raises(ClusterError, match=r"for the cluster's runtime: got one for 17\.3, and"):
        parts.check_runtime(Cluster(spec={"cluster_id": "1", "spark_version": "18.x-scala2.13"}))
    (wheelhouse / "wheelhouse.json").write_text('{"runtime": "frozen.txt"}')
    parts.check_runtime(Cluster(spec={"cluster_id": "1", "spark_version": "18.x-scala2.13"}))


def test_detach_puts_everything_back(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str, wheelhouse: Path
) -> None:
    before, files = dict(spec(service, team)), dict(service.volumes.files)
    plan(team, wheels=wheelhouse).run(client, quiet)
    assert spec(service, team) != before
    assert detach(client, team).state == "RUNNING"
    assert spec(service, team) == before
    assert service.volumes.files == files
    with pytest.raises(ClusterError, match="must be attached: there is no record in"):
        detach(client, team)


def test_detach_leaves_what_others_have_changed_since(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str
) -> None:
    plan(team).run(client, quiet)
    now = spec(service, team)
    now["init_scripts"].append({"volumes": {"destination": "/Volumes/x/y/z/a.sh"}})
    now["spark_env_vars"] |= {"NEW": "2", "MLFLOW_REGISTRY_URI": "databricks-uc"}
    planned = plan_detach(client, get_cluster(client, team), Folder(client, f"{VOLUME}/{team}"))
    assert planned.notes == ("variable MLFLOW_REGISTRY_URI stays: somebody has changed it since",)
    planned.run(client, quiet)
    assert spec(service, team)["init_scripts"] == [*OTHERS, OTHERS[0]]
    assert spec(service, team)["spark_env_vars"] == {
        "A": "1", "MLFLOW_TRACKING_URI": "databricks", "NEW": "2",
        "MLFLOW_REGISTRY_URI": "databricks-uc",
    }  # fmt: skip


def test_an_attach_whose_record_is_lost_can_be_made_again(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str
) -> None:
    plan(team).run(client, quiet)
    del service.volumes.files[f"{VOLUME}/{team}/attached.json"]
    with pytest.raises(ClusterError, match="there is no record in"):
        detach(client, team)
    plan(team).run(client, quiet)
    detach(client, team)
    assert spec(service, team)["init_scripts"] == OTHERS
    assert spec(service, team)["spark_env_vars"] == {"A": "1"}, "nobody knows the rest"


def test_a_cluster_without_settings_has_none_after_detach(
    service: Databricks, client: Client, plan: Callable[..., Attach]
) -> None:
    made = service.clusters.add("bare", state="TERMINATED")
    before = dict(made.spec)
    done = plan(made.cluster_id).run(client, quiet)
    assert (done.cluster.state, done.marker, done.note) == ("TERMINATED", None, "")
    assert made.spec["init_scripts"] == [ours(made.cluster_id)]
    assert detach(client, made.cluster_id).state == "TERMINATED"
    assert made.spec == before


def test_a_second_attach_changes_nothing_and_a_new_link_keeps_what_was_before(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str, tmp_path: Path
) -> None:
    before = dict(spec(service, team))
    plan(team).run(client, quiet)
    attached = dict(spec(service, team))
    assert plan(team).is_empty
    write_link(tmp_path, experiment="iris")
    service.forget_requests()
    again = plan(team)
    assert (again.is_empty, again.restarts, again.change.mask) == (False, True, [])
    again.run(client, quiet)
    assert spec(service, team) == attached
    assert service.requests(path="clusters/restart"), "the script and its settings are read anew"
    write_link(tmp_path, registry="databricks-uc")
    plan(team).run(client, quiet)
    assert spec(service, team)["spark_env_vars"]["MLFLOW_REGISTRY_URI"] == "databricks-uc"
    detach(client, team)
    assert spec(service, team) == before


@pytest.mark.parametrize(
    ("method", "mode"),
    [("init-script", "USER_ISOLATION"), ("libraries", "SINGLE_USER"), ("policy", "SINGLE_USER")],
)
def test_an_attach_and_a_detach_that_fail_anywhere_can_be_run_again(
    service: Databricks, client: Client, plan: Callable[..., Attach], wheelhouse: Path,
    method: str, mode: str,
) -> None:  # fmt: skip
    made = service.clusters.add("c", spark_env_vars={"A": "1"}, data_security_mode=mode)
    before, files = dict(made.spec), dict(service.volumes.files)
    service.allowlists.set("/Volumes/other")
    folder = Folder(client, f"{VOLUME}/{made.cluster_id}")
    service.clusters.start_s = 0.0
    (wheelhouse / "b-1-py3-none-any.whl").unlink()
    wheels = wheelhouse if method == "libraries" else None

    def attach() -> None:
        plan(made.cluster_id, method=method, wheels=wheels).run(client, quiet)

    def take_off() -> None:
        detach(client, made.cluster_id)

    def without_policy() -> dict[str, Any]:
        return {name: value for name, value in made.spec.items() if name != "policy_id"}

    attach()
    attached = without_policy()
    take_off()
    writes = "fs/|artifact-allowlists|clusters/update|policies/|libraries/"
    for is_attach in (True, False):
        for number in range(60):
            service.fault(
                "status", status=400, path=writes, method="PUT|POST|DELETE", skip=number, count=1
            )
            try:
                attach() if is_attach else take_off()
            except ClusterError as err:
                service.allow_all()
                if "is unchanged)" in str(err):
                    assert made.spec == before
            else:
                service.allow_all()
                break
            if is_attach:
                attach()
                assert without_policy() == attached
            if read_record(folder):
                take_off()
            assert made.spec == before
            assert service.volumes.files == files
            assert service.policies.all == {}
            assert service.allowlists.artifacts() == ["/Volumes/other"]
            if not is_attach:
                attach()
        assert number > 4, "each write was refused once"
    assert made.spec == before


def test_a_cluster_is_found_by_id_or_unique_name(service: Databricks, client: Client) -> None:
    for number in range(120):
        service.clusters.add(f"c{number}")
    one = service.clusters.add("last")
    assert find_cluster(client, "last").cluster_id == one.cluster_id
    assert find_cluster(client, one.cluster_id).name == "last"
    other = service.clusters.add("last")
    with pytest.raises(ClusterError, match="unique name: got 2 named 'last'") as caught:
        find_cluster(client, "last")
    assert one.cluster_id in str(caught.value)
    assert other.cluster_id in str(caught.value)
    for name in ("nobody", "1124-000000-abcdefgh"):
        with pytest.raises(ClusterError, match=f"must exist: got '{name}', which {USER}"):
            find_cluster(client, name)


def test_a_cluster_on_its_way_is_waited_for(
    service: Databricks, client: Client, plan: Callable[..., Attach]
) -> None:
    made = service.clusters.add("c", state="PENDING")
    planned = plan(made.cluster_id)
    assert planned.restarts
    made.ready_at = time.monotonic() + 0.1
    said: list[str] = []
    assert planned.run(client, said.append).cluster.state == "RUNNING"
    assert [one for one in said if "PENDING" in one] == ["c is PENDING, waiting"]


def test_a_cluster_that_takes_no_change_is_said(
    service: Databricks, client: Client, plan: Callable[..., Attach],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made = service.clusters.add("c", state="ERROR")
    with pytest.raises(ClusterError, match=r"must be RUNNING or TERMINATED .* it is ERROR"):
        plan(made.cluster_id).run(client, quiet)
    monkeypatch.setattr(wait, "_LIMIT_S", 0.05)
    made.state = "RESIZING"
    with pytest.raises(ClusterError, match="come to rest within 0 minutes: it is still RESIZING"):
        plan(made.cluster_id).run(client, quiet)


def test_a_cluster_that_leaves_its_state_in_between_is_tried_again(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settled = wait.wait_until_settled
    found = service.clusters.find(team)

    def then_resize(*arguments: Any) -> Cluster:
        seen = settled(*arguments)
        monkeypatch.setattr(apply, "wait_until_settled", settled)
        found.state, found.ready_at = "PENDING", time.monotonic() + 0.05
        return seen

    monkeypatch.setattr(apply, "wait_until_settled", then_resize)
    assert plan(team).run(client, quiet).marker
    assert [one.status for one in service.requests(path="clusters/update")] == [400, 200]


def test_a_cluster_that_never_takes_a_change_is_not_asked_for_ever(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str
) -> None:
    found = service.clusters.find(team)
    found.state, found.shows_at = "RESIZING", float("inf")
    with pytest.raises(ClusterError, match=r"cannot change cluster team .* in state RESIZING"):
        plan(team).run(client, quiet)
    assert len(service.requests(path="clusters/update")) == 5


def test_files_that_a_running_cluster_has_not_read_are_brought_to_it_by_the_next_attach(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str, tmp_path: Path
) -> None:
    plan(team).run(client, quiet)
    write_link(tmp_path, experiment="iris")
    service.fault("status", status=400, path="clusters/restart", count=1)
    with pytest.raises(ClusterError, match="cannot restart cluster"):
        plan(team).run(client, quiet)
    assert plan(team).restarts
    assert plan(team).run(client, quiet).marker
    assert service.clusters.find(team).boots == 2
    assert plan(team).is_empty


def test_a_change_whose_answer_is_lost_is_made_once(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str
) -> None:
    service.fault("lost-answer", path="clusters/update", count=1)
    service.clusters.start_s = 2.0  # still on its way when the SDK asks again
    assert plan(team).run(client, quiet).marker
    assert spec(service, team)["spark_env_vars"] == MERGED
    assert [one.status for one in service.requests(path="clusters/update")] == [0, 400]
    assert service.clusters.find(team).boots == 1


def test_what_is_read_is_from_after_the_restart(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str, tmp_path: Path
) -> None:
    plan(team).run(client, quiet)
    write_link(tmp_path, experiment="iris")
    service.clusters.lag_s = 0.1
    service.boot.run_script = leaves_marker("failed", "new")
    with pytest.raises(ClusterError, match=r"must succeed .* 'new'"):
        plan(team).run(client, quiet)


def test_what_somebody_changed_meanwhile_is_not_lost(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str
) -> None:
    planned = plan(team)
    spec(service, team)["spark_env_vars"]["B"] = "2"
    with pytest.raises(ClusterError, match="must stay as it was shown"):
        planned.run(client, quiet)
    assert plan(team).run(client, quiet).marker
    assert spec(service, team)["spark_env_vars"] == {**MERGED, "B": "2"}


def test_a_job_cluster_gets_a_recipe_instead(
    service: Databricks, plan: Callable[..., Attach]
) -> None:
    made = service.clusters.add("job-1-run-2", source="JOB")
    with pytest.raises(ClusterError, match=r"made by a job, .* 'dbx-aml cluster snippet'"):
        plan(made.cluster_id)


@pytest.mark.parametrize(
    ("deny", "to", "message"),
    [
        ("POST .*clusters/update", VOLUME, "change cluster .*ask its owner for CAN MANAGE"),
        ("PUT .*fs/files", VOLUME, "write to .*WRITE VOLUME"),
        ("", "/Volumes/main/ml/none", "volume must exist: .*CREATE VOLUME main.ml.none"),
        ("POST .*workspace/import", "/Workspace/Shared/x", "allowed to write to /Workspace/Sha"),
    ],
)
def test_what_is_not_allowed_or_missing_leaves_the_cluster_as_it_is(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str,
    deny: str, to: str, message: str,
) -> None:  # fmt: skip
    before = dict(spec(service, team))
    if deny:
        service.deny(deny)
    with pytest.raises(ClusterError, match=message):
        plan(team, to=to).run(client, quiet)
    assert spec(service, team) == before
    assert service.clusters.find(team).boots == 0


def test_a_folder_is_in_a_volume_or_in_the_workspace(client: Client) -> None:
    for path in ("/tmp/x", "dbfs:/x", "/Volumes/main/ml"):
        with pytest.raises(ArgumentError, match="in a volume or in the workspace: got"):
            Folder(client, path)
    assert Folder(client, "/Users/a/x/").path == "/Workspace/Users/a/x"


def test_without_a_volume_the_workspace_keeps_the_files(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str, wheelhouse: Path
) -> None:
    home = f"/Workspace/Users/{USER}/.dbx_aml"
    before = set(service.files.items)
    with pytest.raises(ArgumentError, match="wheelhouse must be in a volume, where an init scri"):
        plan(team, to=home, wheels=wheelhouse)
    done = plan(team, to=home).run(client, quiet)
    assert done.marker
    script = f"{home}/{team}/dbx_aml_init.sh"
    assert spec(service, team)["init_scripts"][-1] == {"workspace": {"destination": script}}
    assert service.files.content(script), "a file, not a notebook"
    detach(client, team, home)
    assert set(service.files.items) - before == {f"/Users/{USER}/.dbx_aml"}
    plan(team, to=home, wheels=wheelhouse, method="libraries").run(client, quiet)
    assert service.files.content(f"{home}/{team}/wheelhouse/b-1-py3-none-any.whl")


@pytest.fixture
def shared(service: Databricks) -> str:
    """A running cluster in standard access mode."""
    return service.clusters.add("shared", data_security_mode="USER_ISOLATION").cluster_id


def test_standard_mode_gets_its_script_onto_the_allowlist_and_off_again(
    service: Databricks, client: Client, plan: Callable[..., Attach], shared: str, tmp_path: Path
) -> None:
    service.allowlists.set("/Volumes/other", "/Volumes/more")
    assert plan(shared).run(client, quiet).marker
    script = f"{VOLUME}/{shared}/dbx_aml_init.sh"
    assert service.allowlists.artifacts() == ["/Volumes/other", "/Volumes/more", script]
    assert plan(shared).is_empty
    write_link(tmp_path, experiment="iris")
    plan(shared).run(client, quiet)
    service.allowlists.set("/Volumes/new", *service.allowlists.artifacts())
    detach(client, shared)
    assert service.allowlists.artifacts() == ["/Volumes/new", "/Volumes/other", "/Volumes/more"]


def test_an_allowlist_that_takes_the_folder_already_stays(
    service: Databricks, client: Client, plan: Callable[..., Attach], shared: str
) -> None:
    service.allowlists.set(f"{VOLUME}/")
    assert plan(shared).run(client, quiet).marker
    detach(client, shared)
    assert service.allowlists.artifacts() == [f"{VOLUME}/"]
    assert service.requests(method="PUT", path="artifact-allowlists") == []


def test_who_may_not_change_the_allowlist_can_detach_all_the_same(
    service: Databricks, client: Client, plan: Callable[..., Attach], shared: str
) -> None:
    plan(shared).run(client, quiet)
    service.deny("artifact-allowlists", "User does not have MANAGE ALLOWLIST on Metastore")
    folder = Folder(client, f"{VOLUME}/{shared}")
    planned = plan_detach(client, get_cluster(client, shared), folder)
    assert "dbx_aml_init.sh stays on the metastore's allowlist" in planned.notes[0]
    planned.run(client, quiet)
    assert "init_scripts" not in spec(service, shared)
    assert read_record(folder) is None


def test_an_allowlist_that_one_may_not_change_is_said_before_anything_is_written(
    service: Databricks, client: Client, plan: Callable[..., Attach], shared: str
) -> None:
    service.deny("artifact-allowlists", "User does not have MANAGE ALLOWLIST on Metastore")
    with pytest.raises(ClusterError, match=r"MANAGE ALLOWLIST.*; then give --skip-allowlist-check"):
        plan(shared)
    assert service.writes() == []
    service.allowlists.set(VOLUME)
    assert plan(shared, skip_allowlist_check=True).run(client, quiet).marker


def test_a_cluster_without_unity_catalog_takes_no_script_from_a_volume(
    service: Databricks, client: Client, plan: Callable[..., Attach]
) -> None:
    made = service.clusters.add("old", data_security_mode="NONE")
    with pytest.raises(ClusterError, match="must have its init script in the workspace"):
        plan(made.cluster_id)
    assert plan(made.cluster_id, to="/Shared/x").run(client, quiet).marker
    # As if the service left "/Workspace" out.
    where = made.spec["init_scripts"][0]["workspace"]
    where["destination"] = where["destination"].removeprefix("/Workspace")
    assert plan(made.cluster_id, to="/Shared/x").is_empty
    detach(client, made.cluster_id, "/Shared/x")
    assert "init_scripts" not in made.spec


def test_standard_mode_takes_no_script_from_the_workspace(
    plan: Callable[..., Attach], shared: str
) -> None:
    with pytest.raises(ClusterError, match="must have its init script in a volume"):
        plan(shared, to="/Workspace/Shared/x")


def test_a_script_that_stops_the_cluster_is_said_and_can_be_taken_off(
    service: Databricks, client: Client, plan: Callable[..., Attach]
) -> None:
    logs = {"volumes": {"destination": "/Volumes/main/ml/logs/"}}
    made = service.clusters.add("c", cluster_log_conf=logs)
    before = dict(made.spec)
    service.boot.run_script = leaves_marker("failed", "no index", code=1)
    with pytest.raises(ClusterError, match=r"INIT_SCRIPT_FAILURE: .*non-zero: 1") as caught:
        plan(made.cluster_id).run(client, quiet)
    assert f"/Volumes/main/ml/logs/{made.cluster_id}/init_scripts" in str(caught.value)
    assert f"dbx-aml cluster detach {made.cluster_id}" in str(caught.value)
    found = cluster_status(client, get_cluster(client, made.cluster_id))
    assert any("INIT_SCRIPT_FAILURE" in one for one in found.problems)
    detach(client, made.cluster_id)
    assert made.spec == before


def test_a_script_that_failed_and_let_the_cluster_start_is_an_error(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str
) -> None:
    service.boot.run_script = leaves_marker("failed", "index must answer: got 403")
    with pytest.raises(ClusterError, match=r"must succeed .* 'index must answer: got 403'"):
        plan(team).run(client, quiet)
    found = cluster_status(client, get_cluster(client, team))
    assert found.problems == ("init script failed: index must answer: got 403",)
    assert found.as_json()["marker"] == "failed"
    service.boot.run_script = leaves_marker("started")
    client.call("POST", "/api/2.1/clusters/restart", what="restart", body={"cluster_id": team})
    wait.wait_until_settled(client, get_cluster(client, team), quiet)
    found = cluster_status(client, get_cluster(client, team))
    assert found.problems == ("init script failed: it was killed, or is still at work",)


def test_a_driver_without_a_marker_is_an_error(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str
) -> None:
    service.boot.run_script = lambda *_: 0
    with pytest.raises(ClusterError, match="its driver has no marker; look at /databricks/init_"):
        plan(team).run(client, quiet)


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "allowed to read the init script's marker"), ("{}", "marker.json is no marker")],
)
def test_an_outcome_that_cannot_be_read_says_where_to_look(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str,
    text: str | None, why: str,
) -> None:  # fmt: skip
    plan(team).run(client, quiet)
    if text is None:
        service.deny("contexts/create", "CAN ATTACH TO is needed")
    else:
        (service.boot.root(team) / "databricks/dbx_aml/marker.json").write_text(text)
    problems = cluster_status(client, get_cluster(client, team)).problems
    assert len(problems) == 1
    assert why in problems[0]
    assert "look at /databricks/init_scripts on its nodes" in problems[0]


def test_an_attach_whose_outcome_cannot_be_read_says_so_and_is_made(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str
) -> None:
    service.deny("contexts/create", "CAN ATTACH TO is needed")
    done = plan(team).run(client, quiet)
    assert (done.cluster.state, done.marker) == ("RUNNING", None)
    assert "look at /databricks/init_scripts on its nodes" in done.note
    assert spec(service, team)["spark_env_vars"] == MERGED


def test_wheels_as_libraries_need_no_script(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str, wheelhouse: Path
) -> None:
    before = dict(spec(service, team))
    said: list[str] = []
    done = plan(team, method="libraries", wheels=wheelhouse).run(client, said.append)
    assert (done.marker, done.note) == (None, "")
    assert "0 of 2 libraries are installed, waiting" in said
    assert spec(service, team)["init_scripts"] == OTHERS
    config = f"{VOLUME}/{team}/config.json"
    assert spec(service, team)["spark_env_vars"] == {**MERGED, "DBX_AML_CONFIG": config}
    found = cluster_status(client, get_cluster(client, team))
    assert set(found.libraries.values()) == {"INSTALLED"}
    assert found.problems == ()
    with pytest.raises(ClusterError, match="attached in one way: it is via libraries"):
        plan(team)
    detach(client, team)
    assert spec(service, team) == before
    rows = client.call(
        "GET", "/api/2.0/libraries/cluster-status", what="see", query={"cluster_id": team}
    )
    assert rows["library_statuses"] == []


def test_a_library_that_fails_is_an_error(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str, wheelhouse: Path
) -> None:
    planned = plan(team, method="libraries", wheels=wheelhouse)
    bad = {"whl": "/Volumes/x/y/z/gone.whl"}
    after = replace(planned.change.after, libraries=(bad,))
    planned = replace(planned, change=replace(planned.change, after=after))
    with pytest.raises(ClusterError, match=r"gone.whl gave 'Library installation failed: "):
        planned.run(client, quiet)


def test_a_library_that_failed_is_asked_for_again(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str, wheelhouse: Path
) -> None:
    plan(team, method="libraries", wheels=wheelhouse).run(client, quiet)
    wheel = f"{VOLUME}/{team}/wheelhouse/b-1-py3-none-any.whl"
    content = service.volumes.files.pop(wheel)
    service.clusters.find(team).boots += 1  # as if it had been restarted meanwhile
    with pytest.raises(ClusterError, match=r"b-1-py3-none-any\.whl does not exist"):
        library.wait_for_libraries(client, get_cluster(client, team), ({"whl": wheel},), quiet)
    service.volumes.files[wheel] = content
    again = plan(team, method="libraries", wheels=wheelhouse)
    assert not again.restarts
    again.run(client, quiet)
    assert plan(team, method="libraries", wheels=wheelhouse).is_empty


def test_a_policy_holds_the_script_where_it_is(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str
) -> None:
    before = dict(spec(service, team))
    assert plan(team, method="policy").run(client, quiet).marker
    (made,) = service.policies.all.values()
    assert spec(service, team)["policy_id"] == made["policy_id"]
    definition = json.loads(made["definition"])
    assert definition["init_scripts.2.volumes.destination"] == {
        "type": "fixed", "value": f"{VOLUME}/{team}/dbx_aml_init.sh",
    }  # fmt: skip
    assert definition["spark_env_vars.MLFLOW_TRACKING_URI"]["value"] == URI
    assert plan(team, method="policy").is_empty
    detach(client, team)
    assert spec(service, team) == before
    assert service.policies.all == {}


def test_a_cluster_with_a_policy_of_its_own_keeps_it(
    service: Databricks, plan: Callable[..., Attach]
) -> None:
    made = service.clusters.add("c", policy_id="ABC")
    with pytest.raises(ClusterError, match="must have no policy of its own: it has ABC"):
        plan(made.cluster_id, method="policy")


def test_values_of_other_variables_and_secrets_are_neither_shown_nor_kept(
    service: Databricks, client: Client, plan: Callable[..., Attach]
) -> None:
    made = service.clusters.add(
        "c", spark_env_vars={"PASSWORD": "hunter2", "MLFLOW_TRACKING_URI": "{{secrets/a/b}}"}
    )
    planned = plan(made.cluster_id)
    assert "hunter2" not in "\n".join(planned.change.diff())
    assert "  PASSWORD: (not shown)" in [line[2:] for line in planned.change.diff()]
    planned.run(client, quiet)
    kept = b"".join(service.volumes.files.values()).decode()
    assert "{{secrets/a/b}}" in kept, "a reference is none"
    assert "hunter2" not in kept
    assert TOKEN not in kept
    detach(client, made.cluster_id)
    made.spec["spark_env_vars"]["MLFLOW_TRACKING_URI"] = "https://me:hunter2@mlflow"
    with pytest.raises(ClusterError, match="must hold no secret in plain text") as caught:
        plan(made.cluster_id)
    assert "hunter2" not in str(caught.value)


def test_a_config_of_the_portal_means_dual_on_a_cluster(
    service: Databricks, tmp_path: Path, client: Client
) -> None:
    names = {"subscription_id": Workspace().subscription_id, "resource_group": "rg-ml"}
    text = json.dumps({**names, "workspace_name": "mlw-team"})
    (tmp_path / "config.json").write_text(text)
    parts = gather(tmp_path, None, method="init-script")
    assert parts.link.mode == "dual"
    assert parts.variables(Folder(client, VOLUME))["MLFLOW_TRACKING_URI"] == "databricks"


def test_what_is_missing_here_is_said_without_asking_anybody(
    service: Databricks, tmp_path: Path
) -> None:
    with pytest.raises(LinkError, match=r"link must be a config\.json or a folder with one"):
        gather(tmp_path / "none.json", None, method="init-script")
    with pytest.raises(ArgumentError, match="wheelhouse must hold wheels and their hashes: got"):
        gather(tmp_path, tmp_path, method="init-script")
    with pytest.raises(ArgumentError, match="libraries must come from wheels: got none"):
        gather(tmp_path, None, method="libraries")


def test_throttling_is_waited_out_and_an_outage_is_one_line(
    service: Databricks, plan: Callable[..., Attach], team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(spec(service, team))
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "1")
    client = Client()
    service.fault("status", status=429, retry_after_s=0, path="clusters/get", count=1)
    assert find_cluster(client, team).name == "team"
    planned = plan(team)
    service.fault("status", status=503, retry_after_s=0, path="clusters/update")
    with pytest.raises(ClusterError, match="must answer when asked to change cluster") as caught:
        planned.run(client, quiet)
    assert "told to say 503" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert spec(service, team) == before


def test_a_wrong_host_token_or_profile_is_one_line_within_seconds(
    service: Databricks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbx_aml.cluster import client as module

    with monkeypatch.context() as patch:
        patch.setenv("DATABRICKS_TOKEN", "dapi-wrong")
        with pytest.raises(ClusterError, match="must take the caller's token") as caught:
            Client()
        assert "dapi-wrong" not in str(caught.value)
    with monkeypatch.context() as patch:
        patch.setenv("DATABRICKS_HOST", "http://127.0.0.1:9")
        patch.setattr(module, "_FIRST_S", 1)
        with pytest.raises(ClusterError, match="must answer when asked to see who is signed in"):
            Client()
    with monkeypatch.context() as patch:
        patch.delenv("DATABRICKS_HOST")
        patch.delenv("DATABRICKS_TOKEN")
        with pytest.raises(ClusterError, match=r"must be set up: .*set DATABRICKS_HOST and DATA"):
            Client()


def test_without_the_sdk_the_extra_is_named(
    service: Databricks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "databricks.sdk.core", None)
    with pytest.raises(ClusterError, match=r"run: pip install 'dbx-aml\[cluster\]'"):
        Client()


def test_status_says_what_differs_from_the_record(
    service: Databricks, client: Client, plan: Callable[..., Attach], team: str
) -> None:
    assert cluster_status(client, get_cluster(client, team)).as_json()["is_attached"] is False
    plan(team).run(client, quiet)
    found = cluster_status(client, get_cluster(client, team))
    assert found.as_json() == {
        "cluster_id": team, "cluster_name": "team", "state": "RUNNING", "access_mode": "dedicated",
        "spark_version": "17.3.x-scala2.13", "is_attached": True, "path": f"{VOLUME}/{team}",
        "method": "init-script", "version": "0.1.0", "libraries": {}, "marker": "ok",
        "problems": [],
        "variables": OURS,
    }  # fmt: skip
    spec(service, team)["spark_env_vars"]["MLFLOW_TRACKING_URI"] = "databricks"
    found = cluster_status(client, get_cluster(client, team))
    assert found.problems == (
        "variable MLFLOW_TRACKING_URI is not as attached: somebody has changed it",
    )
    service.volumes.files[f"{VOLUME}/{team}/attached.json"] = b"{"
    found = cluster_status(client, get_cluster(client, team))
    assert "record of the attach must be readable" in found.problems[0]
