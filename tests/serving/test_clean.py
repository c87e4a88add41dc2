"""Cleaning up: everything with the mark goes, nothing without it, and a failure stops nothing."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner, Result

from dbx_aml import Endpoint, Job, Link, deploy_model, submit_job
from dbx_aml._common.creation_mark import CREATED_BY_TAG
from dbx_aml._common.errors import ArgumentError, OperationError, ServingError
from dbx_aml.cli.main import main
from dbx_aml.models.copy import copy_model_version
from dbx_aml.scoring import delta_write
from dbx_aml.scoring.delta_write import CHECKPOINT_PROPERTY
from dbx_aml.scoring.table_identity import TableIdentity
from dbx_aml.serving import marked_resources
from dbx_aml.serving.clean import delete_resources, find_marked_resources, parse_age
from tests.serving.conftest import RegisterFunction, link_config
from tests.support.azureml import AzureMl

pytestmark = pytest.mark.azureml


def kinds_and_names(resources: Any) -> set[tuple[str, str]]:
    """Kind and first word of the name of each resource."""
    return {(resource.kind, resource.name.split()[0]) for resource in resources}


@pytest.fixture
def made(register: RegisterFunction, link: Link, azureml_client: Any) -> Link:
    """A link to a workspace with resources of the toolkit, and resources of others beside them."""
    register(10)
    register(100, alias="champion")
    # Azure refuses the deployment for its quota, so that no server has to start.
    with pytest.raises(ServingError, match="OutOfQuota"):
        deploy_model("delay-ep", "models:/delay/1", instance_count=11, link=link)
    azureml_client.create_registered_model("theirs")
    return link


def test_a_running_job_is_canceled_and_deleted_and_that_of_others_stays(
    resolved_job_environment: None,
    azureml_client: Any,
    azureml: AzureMl,
    link: Link,
    tmp_path: Path,
) -> None:
    azureml.job_fault("endless-preparing")
    (tmp_path / "train.py").write_text("print('done')\n")
    job = submit_job(tmp_path / "train.py", compute="cpu-cluster", name="ours", link=link)
    content = job.resources.find("/jobs/ours") or {}
    theirs = {**content["properties"], "tags": {}}
    job.resources.put("/jobs/theirs", {"properties": theirs})
    (found,) = find_marked_resources(link=link, only=["jobs"]).resources
    assert (found.kind, found.name, found.detail) == ("job", "ours", "Preparing")
    # The run of the job has the tags of the job, and is deleted with the job alone.
    assert find_marked_resources(link=link, only=["runs"]).resources == ()
    (result,) = delete_resources([found])
    assert (result.state, result.error) == ("deleted", "")
    assert [item.name for item in Job.load_all(link=link)] == ["theirs"]
    assert Job.load("theirs", link=link).state == "Preparing"
    # Another person has deleted the job.
    assert [item.state for item in delete_resources([found])] == ["deleted"]


def test_all_with_the_mark_is_deleted_and_a_second_call_finds_nothing(
    made: Link, azureml_client: Any
) -> None:
    before = {run.info.run_id for run in azureml_client.search_runs(["0"])}
    plan = find_marked_resources(link=made)
    expected = {
        ("endpoint", "delay-ep"),
        ("model version", "delay:1"),
        ("environment", plan_name(plan.resources, "environment")),
        ("code", plan_name(plan.resources, "code")),
    }
    assert kinds_and_names(plan.resources) - {("registered model", "delay")} == expected
    assert [(resource.name, resource.usage) for resource in plan.used_resources] == [
        ("delay:2", "has the alias champion")
    ]
    assert not plan.problems
    results = delete_resources(plan.resources)
    outcomes = {item.resource.kind: item.state for item in results}
    # Version 2 is in use, so its registered model is not empty.
    assert outcomes == {
        "endpoint": "deleted",
        "model version": "deleted",
        "registered model": "skipped",
        "environment": "archived",
        "code": "archived",
    }
    rest = find_marked_resources(link=made, include_used=True)
    assert kinds_and_names(rest.resources) == {
        ("model version", "delay:2"),
        ("registered model", "delay"),
    }
    assert {item.state for item in delete_resources(rest.resources)} == {"deleted"}
    assert find_marked_resources(link=made, include_used=True).resources == ()
    # The resources of other programs are as before.
    assert [model.name for model in azureml_client.search_registered_models()] == ["theirs"]
    assert {run.info.run_id for run in azureml_client.search_runs(["0"])} == before


def plan_name(resources: Any, kind: str) -> str:
    """Name of the one resource of a kind."""
    (name,) = [resource.name for resource in resources if resource.kind == kind]
    return str(name)


def test_the_run_with_the_files_of_a_copied_version_stays_as_long_as_the_version(
    mlflow_store: str, tmp_path: Path
) -> None:
    source = f"sqlite:///{tmp_path / 'other.db'}"
    client = mlflow.MlflowClient(source, source)
    client.create_registered_model("delay")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    client.create_model_version("delay", str(tmp_path / "model"))
    copy_model_version("models:/delay/1", source_registry=source, destination_registry=mlflow_store)
    link = Link(mode="databricks", databricks_tracking_uri=mlflow_store)
    runs = find_marked_resources(link=link, only=["runs"]).resources
    assert [item.kind for item in runs] == ["run", "experiment"]
    assert [item.state for item in delete_resources(runs)] == ["skipped", "skipped"]
    everything = find_marked_resources(link=link).resources
    assert {item.state for item in delete_resources(everything)} == {"deleted"}


def deploy_of_others(link: Link) -> None:
    """Make a deployment without the mark at the endpoint of the toolkit."""
    client, url = resources_of(link).client, resources_of(link).url
    content = client.get(url("/onlineEndpoints/delay-ep/deployments/blue"))
    content["tags"] = {}
    with pytest.raises(OperationError, match="OutOfQuota"):
        client.put(url("/onlineEndpoints/delay-ep/deployments/theirs"), content)


def test_an_endpoint_with_a_deployment_of_others_keeps_it(made: Link) -> None:
    deploy_of_others(made)
    plan = find_marked_resources(link=made, only=["endpoints"])
    assert kinds_and_names(plan.resources) == {("deployment", "delay-ep/blue")}
    Endpoint.load("delay-ep", link=made).set_traffic({"blue": 60, "theirs": 40})
    # Traffic has moved to it since the list.
    assert [item.state for item in delete_resources(plan.resources)] == ["skipped"]
    plan = find_marked_resources(link=made, only=["endpoints"])
    assert (plan.resources, plan.used_resources[0].usage) == ((), "takes 60 % of the traffic")
    assert [item.state for item in delete_resources(plan.used_resources)] == ["deleted"]
    left = Endpoint.load("delay-ep", link=made)
    assert ([item.name for item in left.deployments], left.traffic) == (["theirs"], {"theirs": 100})


def test_an_endpoint_that_others_deploy_to_after_the_list_stays(made: Link) -> None:
    plan = find_marked_resources(link=made, only=["endpoints"])
    assert kinds_and_names(plan.resources) == {("endpoint", "delay-ep")}
    deploy_of_others(made)
    assert [item.state for item in delete_resources(plan.resources)] == ["skipped"]
    deployments = Endpoint.load("delay-ep", link=made).deployments
    assert [item.name for item in deployments] == ["blue", "theirs"]


def resources_of(link: Link) -> Any:
    from dbx_aml.serving.aml_resources import AmlResources

    return AmlResources.of_link(link)


def test_a_version_that_gets_an_alias_after_the_list_stays(made: Link, azureml_client: Any) -> None:
    plan = find_marked_resources(link=made, only=["models"])
    azureml_client.set_registered_model_alias("delay", "champion", "1")
    states = {item.resource.name: item.state for item in delete_resources(plan.resources)}
    assert states["delay:1"] == "skipped"
    assert azureml_client.get_model_version("delay", "1").version == "1"


def test_a_version_behind_an_endpoint_with_traffic_is_in_use(made: Link) -> None:
    Endpoint.load("delay-ep", link=made).set_traffic({"blue": 100})
    plan = find_marked_resources(link=made, only=["models", "endpoints"])
    assert {resource.name: resource.usage for resource in plan.used_resources} == {
        "delay-ep": "takes traffic",
        "delay:1": "is served by delay-ep/blue",
        "delay:2": "has the alias champion",
    }
    delete_resources(plan.resources)
    plan = find_marked_resources(link=made, only=["models", "endpoints"], include_used=True)
    assert {item.state for item in delete_resources(plan.resources)} == {"deleted"}


def test_a_failure_does_not_stop_the_rest_and_the_next_call_ends_it(
    made: Link, azureml: AzureMl
) -> None:
    plan = find_marked_resources(link=made)
    azureml.deny("*/onlineEndpoints/delete")
    results = delete_resources(plan.resources)
    failed = [item for item in results if item.state == "failed"]
    assert [item.resource.name for item in failed] == ["delay-ep"]
    assert "a role with the action" in failed[0].error
    azureml.deny()
    rest = find_marked_resources(link=made)
    assert ("endpoint", "delay-ep") in kinds_and_names(rest.resources)
    assert {item.state for item in delete_resources(rest.resources)} <= {"deleted", "skipped"}


def test_what_cannot_be_read_is_named_and_the_other_kinds_are_listed(
    made: Link, azureml: AzureMl
) -> None:
    azureml.deny("*/onlineEndpoints/read")
    plan = find_marked_resources(link=made)
    assert [line.partition(" must")[0] for line in plan.problems] == ["endpoints"]
    assert ("model version", "delay:1") in kinds_and_names(plan.resources)


def test_groups_and_age_limit_what_is_deleted(made: Link) -> None:
    assert {
        resource.group for resource in find_marked_resources(link=made, only=["models"]).resources
    } == {"models"}
    assert find_marked_resources(link=made, older_than=timedelta(hours=1)).resources == ()
    with pytest.raises(ArgumentError, match="got 'model'"):
        find_marked_resources(link=made, only=["model"])
    with pytest.raises(ArgumentError, match="pass for example --schema"):
        find_marked_resources(link=made, only=["tables"])


def test_a_table_goes_after_its_ledger_and_another_one_of_its_name_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    properties = {CREATED_BY_TAG: "dbx-aml 1", CHECKPOINT_PROPERTY: "/checkpoint"}
    listed = TableIdentity(
        name="ml.scored", id="1", location="/scored", kind="delta", properties=properties
    )
    identities = [replace(listed, id="2"), replace(listed, properties={}), listed]
    removed: list[str] = []

    def drop(spark: Any, item: Any) -> bool:
        removed.append(getattr(item, "name", item))
        return True

    monkeypatch.setattr(delta_write, "drop_table", drop)
    monkeypatch.setattr(delta_write, "remove_folder", drop)
    monkeypatch.setattr(marked_resources, "identify_table", lambda spark, table: identities.pop(0))
    spark: Any = None
    for _ in range(2):
        assert marked_resources._drop_table(spark, "ml.scored", listed) == "skipped"
    assert removed == []
    assert marked_resources._drop_table(spark, "ml.scored", listed) == "deleted"
    assert removed == ["/checkpoint", "ml.scored_batches", "ml.scored"]


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), ("2d", 48), ("1w", 168)])
def test_an_age_is_a_number_of_hours_days_or_weeks(text: str, hours: int) -> None:
    assert parse_age(text) == timedelta(hours=hours)
    with pytest.raises(ArgumentError, match="use for example '30d'"):
        parse_age(text[:-1])
    with pytest.raises(ArgumentError, match="use for example '30d'"):
        parse_age(f"99999999{text}")


def test_calls_that_die_after_each_resource_delete_all_together(
    made: Link, azureml_client: Any
) -> None:
    class Killed(BaseException):
        """End of the process."""

    def die_at_the_second(count: int, resource: Any) -> None:
        if count == 1:
            raise Killed

    deleted = []
    while resources := find_marked_resources(link=made, include_used=True).resources:
        assert not {item.name for item in resources} & set(deleted)
        deleted.append(resources[0].name)
        with suppress(Killed):
            delete_resources(resources, die_at_the_second)
    assert deleted[0] == "delay-ep"
    assert {"delay:1", "delay:2", "delay"} < set(deleted)
    assert len(deleted) == 6
    assert azureml_client.get_registered_model("theirs")


def test_the_command_deletes_after_the_right_number_alone(made: Link, tmp_path: Path) -> None:
    config = link_config(made, tmp_path)

    def run(*arguments: str, stdin: str = "") -> Result:
        return CliRunner().invoke(main, ["clean", *arguments, "--config", config], input=stdin)

    dry = run("--dry-run")
    assert "delay-ep" in dry.output
    assert "has the alias champion" in dry.output
    listed = json.loads(run("--json").stdout)
    assert listed["results"] == []
    count = len(listed["resources"])
    wrong = run(stdin=f"{count + 1}\n")
    assert f"type {count} to delete {count} things" in wrong.output
    assert "nothing was deleted" in wrong.output
    right = run(stdin=f"{count}\n")
    assert right.exit_code == 0, right.output
    assert "2 archived" in right.output
    assert "nothing that dbx-aml has made is to be deleted" in run("--only", "endpoints").output
    assert mlflow.MlflowClient().get_model_version("delay", "2").version == "2"
