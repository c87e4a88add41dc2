"""The part of the Databricks stand-in that bundles use, tested through the SDK."""

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError, NotFound
from databricks.sdk.service import catalog, iam, jobs

from tests.support.databricks import USER, Databricks
from tests.support.databricks.job import TaskFailed
from tests.support.databricks.workspace_file import Item

APPLICATION_ID = "4b3f2b1c-5d9e-4f57-9a3e-1c2d3e4f5a6b"


@pytest.fixture
def client(databricks: Databricks) -> WorkspaceClient:
    databricks.files.items["/nb"] = Item("NOTEBOOK", b"", "PYTHON")
    return WorkspaceClient()


def two_tasks() -> list[jobs.Task]:
    notebook = jobs.NotebookTask("/nb")
    after = [jobs.TaskDependency("first")]
    return [
        jobs.Task(task_key="second", notebook_task=notebook, depends_on=after),
        jobs.Task(task_key="first", notebook_task=notebook),
    ]


def test_a_run_does_its_tasks_in_their_order_with_its_parameters(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    calls = []

    def record_task(task, parameters):
        calls.append((task["task_key"], dict(parameters)))
        return f"did {task['task_key']}"

    databricks.jobs.run_task = record_task
    declared = [jobs.JobParameterDefinition(name="a", default="1")]
    job_id = client.jobs.create(name="score", tasks=two_tasks(), parameters=declared).job_id
    assert job_id
    run_id = client.jobs.run_now(job_id, job_parameters={"a": "2"}).run_id
    states = []
    for _ in range(3):
        run = client.jobs.get_run(run_id)
        assert run.state and run.state.life_cycle_state
        states.append(run.state.life_cycle_state.value)
    assert states == ["PENDING", "RUNNING", "TERMINATED"]
    assert calls == [("first", {"a": "2"}), ("second", {"a": "2"})]
    assert run.tasks and run.tasks[0].run_id
    output = client.jobs.get_run_output(run.tasks[0].run_id).notebook_output
    assert output and output.result == "did second"
    with pytest.raises(DatabricksError, match="not defined for the job"):
        client.jobs.run_now(job_id, job_parameters={"b": "2"})


def test_a_task_that_fails_fails_the_run_and_what_depends_on_it(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    def fail_task(task, parameters):
        raise TaskFailed("ValueError: no")

    databricks.jobs.run_task = fail_task
    job_id = client.jobs.create(name="score", tasks=two_tasks()).job_id
    assert job_id
    run_id = client.jobs.run_now(job_id).run_id
    for _ in range(3):
        run = client.jobs.get_run(run_id)
    assert run.state and run.state.result_state
    assert run.state.result_state.value == "FAILED"
    results = {
        task.task_key: task.state.result_state.value
        for task in run.tasks or []
        if task.state and task.state.result_state
    }
    assert results == {"first": "FAILED", "second": "UPSTREAM_FAILED"}
    first = next(task.run_id for task in run.tasks or [] if task.task_key == "first")
    assert first
    assert client.jobs.get_run_output(first).error == "ValueError: no"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"job_cluster_key": "gone"}, "job_cluster 'gone' is not defined"),
        ({"environment_key": "gone"}, "environment 'gone' is not defined"),
        ({"depends_on": [{"task_key": "gone"}]}, "depends on unknown 'gone'"),
        ({}, "must have a cluster or an environment"),
    ],
)
def test_a_job_whose_tasks_lack_something_is_refused(
    client: WorkspaceClient, task: dict[str, object], message: str
) -> None:
    wheel = {"package_name": "p", "entry_point": "main"}
    new_task = jobs.Task.from_dict({"task_key": "a", "python_wheel_task": wheel, **task})
    with pytest.raises(DatabricksError, match=message):
        client.jobs.create(name="score", tasks=[new_task])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"notebook_task": {"notebook_path": "/gone"}}, "Unable to access the notebook '/gone'"),
        ({"job_cluster_key": "c"}, "init script /Volumes/main/ml/x/a.sh failed: the file does"),
        ({"existing_cluster_id": "1", "libraries": [{"whl": "/Volumes/main/ml/x/a.whl"}]},
         "a.whl does not exist"),
        ({"environment_key": "e"}, "/Workspace/Shared/b.whl does not exist"),
    ],
)  # fmt: skip
def test_a_task_that_does_not_find_what_it_needs_fails_in_its_run(
    client: WorkspaceClient, task: dict[str, object], message: str
) -> None:
    script = {"volumes": {"destination": "/Volumes/main/ml/x/a.sh"}}
    cluster = {"spark_version": "17.3.x-scala2.13", "data_security_mode": "SINGLE_USER"}
    settings = jobs.JobSettings.from_dict(
        {
            "tasks": [{"task_key": "a", **task}],
            "job_clusters": [
                {"job_cluster_key": "c", "new_cluster": {**cluster, "init_scripts": [script]}}
            ],
            "environments": [
                {"environment_key": "e", "spec": {"dependencies": ["/Workspace/Shared/b.whl[x]"]}}
            ],
        }
    )
    job_id = client.jobs.create(**settings.as_shallow_dict()).job_id
    assert job_id
    run_id = client.jobs.run_now(job_id).run_id
    for _ in range(3):
        run = client.jobs.get_run(run_id)
    assert run.tasks and run.tasks[0].run_id
    assert message in str(client.jobs.get_run_output(run.tasks[0].run_id).error)


def test_an_experiment_has_a_unique_name_in_a_folder_that_is_there(
    client: WorkspaceClient,
) -> None:
    name = f"/Users/{USER}/iris"
    experiment_id = client.experiments.create_experiment(name).experiment_id
    assert experiment_id
    with pytest.raises(DatabricksError, match="already exists"):
        client.experiments.create_experiment(f"/Workspace{name}")
    with pytest.raises(NotFound, match="Could not find folder"):
        client.experiments.create_experiment("/Users/nobody/iris")
    experiment = client.experiments.get_by_name(name).experiment
    assert experiment and experiment.experiment_id == experiment_id
    client.experiments.delete_experiment(experiment_id)
    with pytest.raises(NotFound):
        client.experiments.get_by_name(name)


def test_a_volume_needs_its_schema_and_goes_with_it(
    databricks: Databricks, client: WorkspaceClient
) -> None:
    with pytest.raises(NotFound, match="Catalog 'none' does not exist"):
        client.schemas.create("ml", "none")
    with pytest.raises(NotFound, match=r"Schema 'main\.ml' does not exist"):
        client.volumes.create("main", "ml", "files", catalog.VolumeType.MANAGED)
    client.schemas.create("ml", "main")
    client.volumes.create("main", "ml", "files", catalog.VolumeType.MANAGED)
    databricks.volumes.files["/Volumes/main/ml/files/a"] = b"1"
    with pytest.raises(DatabricksError, match="is not empty"):
        client.schemas.delete("main.ml")
    client.schemas.delete("main.ml", force=True)
    assert databricks.volumes.files == {}
    assert list(client.schemas.list("main")) == []


def test_grants_are_added_and_taken_away(client: WorkspaceClient) -> None:
    client.schemas.create("ml", "main")

    def change(**privileges: list[catalog.Privilege]) -> dict[str | None, list[str]]:
        changes = [catalog.PermissionsChange(principal="account users", **privileges)]
        client.grants.update("SCHEMA", "main.ml", changes=changes)
        assignments = client.grants.get("SCHEMA", "main.ml").privilege_assignments or []
        return {
            row.principal: [privilege.value for privilege in row.privileges or []]
            for row in assignments
        }

    use_schema, create_table = catalog.Privilege.USE_SCHEMA, catalog.Privilege.CREATE_TABLE
    assert change(add=[use_schema, create_table]) == {
        "account users": ["USE_SCHEMA", "CREATE_TABLE"]
    }
    assert change(remove=[use_schema]) == {"account users": ["CREATE_TABLE"]}


def test_a_grant_to_a_group_of_the_workspace_is_refused(client: WorkspaceClient) -> None:
    client.schemas.create("ml", "main")
    for group in ("users", "admins"):
        change = catalog.PermissionsChange(principal=group, add=[catalog.Privilege.SELECT])
        with pytest.raises(NotFound, match=f"Could not find principal with name {group}"):
            client.grants.update("SCHEMA", "main.ml", changes=[change])
    assert client.grants.get("SCHEMA", "main.ml").privilege_assignments == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"user_name": APPLICATION_ID}, rf"UserName\({APPLICATION_ID}\) does not exist"),
        ({"service_principal_name": "ci"}, r"ServicePrincipalName\(ci\) does not exist"),
        ({"group_name": "account users"}, r"GroupName\(account users\) does not exist"),
    ],
)
def test_a_permission_of_an_unknown_principal_is_refused(
    client: WorkspaceClient, entry: dict[str, str], message: str
) -> None:
    job_id = str(client.jobs.create(name="score").job_id)
    request = iam.AccessControlRequest.from_dict({**entry, "permission_level": "CAN_VIEW"})
    for change in (client.permissions.update, client.permissions.set):
        with pytest.raises(NotFound, match=message):
            change("jobs", job_id, access_control_list=[request])
    assert len(client.permissions.get("jobs", job_id).access_control_list or []) == 1


@pytest.mark.parametrize("address", [APPLICATION_ID, "", "ops"])
def test_a_notification_to_something_else_than_an_address_is_refused(
    client: WorkspaceClient, address: str
) -> None:
    mail = jobs.JobEmailNotifications(on_failure=["ops@contoso.com", address])
    task_mail = jobs.TaskEmailNotifications(on_start=[address])
    task = jobs.Task("a", notebook_task=jobs.NotebookTask("/nb"), email_notifications=task_mail)
    with pytest.raises(DatabricksError, match=f"Invalid email address: {address}"):
        client.jobs.create(name="score", email_notifications=mail)
    with pytest.raises(DatabricksError, match=f"Invalid email address: {address}"):
        client.jobs.create(name="score", tasks=[task])


def test_permissions_are_replaced_by_put_and_added_to_by_patch(client: WorkspaceClient) -> None:
    job_id = str(client.jobs.create(name="score").job_id)
    view = iam.AccessControlRequest(
        group_name="users", permission_level=iam.PermissionLevel.CAN_VIEW
    )
    permissions = client.permissions.update("jobs", job_id, access_control_list=[view])
    assert len(permissions.access_control_list or []) == 2
    permissions = client.permissions.set("jobs", job_id, access_control_list=[view])
    assert [entry.group_name for entry in permissions.access_control_list or []] == ["users"]
