"""One of each kind is made, and `clean` is killed at each step: all with the mark goes, no more."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from pyspark.sql import SparkSession

from dbx_aml import Link, deploy_model, score_table, submit_job
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.serving.clean import delete_resources, find_marked_resources
from dbx_aml.serving.jobs import Job
from tests.serving.conftest import RegisterFunction, link_config
from tests.support.azureml import AzureMl
from tests.support.models import XY, choosy_sum, save_model

pytestmark = [pytest.mark.azureml, pytest.mark.spark, pytest.mark.nightly]

# Deletes one resource, and is killed before the next one.
CLEAN_ONE = """
import os, signal, sys
from dbx_aml import Link
from dbx_aml.serving.clean import delete_resources, find_marked_resources

def kill_at_second(count, resource):
    if count == 1:
        os.kill(os.getpid(), signal.SIGKILL)

plan = find_marked_resources(link=Link.load(config=sys.argv[2]), include_used=True)
assert not plan.problems, plan.problems
delete_resources(plan.resources, kill_at_second)
"""
COLLECTIONS = ("onlineEndpoints", "jobs", "computes", "datastores", "environments", "codes")


def describe_all(resources: AmlResources, client: Any, spark: SparkSession) -> str:
    """Everything that the services and the schema have, but for archived versions, as text."""
    content: dict[str, Any] = {}
    for collection in COLLECTIONS:
        for item in resources.list(f"/{collection}"):
            path = f"/{collection}/{item['name']}"
            if collection == "onlineEndpoints":
                content[f"{path}/deployments"] = list(resources.list(f"{path}/deployments"))
            if collection in ("environments", "codes"):
                versions = resources.list(f"{path}/versions")
                kept = [item for item in versions if not item["properties"]["isArchived"]]
                if kept:
                    content[path] = kept
            else:
                content[path] = item
    for experiment in client.search_experiments():
        content[experiment.name] = dict(experiment)
        for run in client.search_runs([experiment.experiment_id]):
            content[run.info.run_id] = run.to_dictionary()
    for model in client.search_registered_models():
        content[model.name] = dict(model)
        content[f"{model.name} versions"] = [
            dict(version) for version in client.search_model_versions(f"name = '{model.name}'")
        ]
    for row in spark.sql("SHOW TABLES IN clean_flow").collect():
        name = f"clean_flow.{row['tableName']}"
        content[name] = [list(rows) for rows in spark.table(name).orderBy("x").collect()]
    return json.dumps(content, sort_keys=True, default=str, indent=1)


def make_resources_of_others(resources: AmlResources, client: Any, spark: SparkSession) -> None:
    put = resources.put
    put(
        "/onlineEndpoints/theirs",
        {"location": "westeurope", "properties": {"authMode": "Key", "traffic": {}}, "tags": {}},
    )
    put("/environments/theirs/versions/1", {"properties": {"image": "python:3.12"}})
    put("/codes/theirs/versions/1", {"properties": {"codeUri": "https://contoso.com/code"}})
    put(
        "/jobs/theirs",
        {
            "properties": {
                "jobType": "Command",
                "displayName": "theirs",
                "experimentName": "theirs",
                "command": "true",
                "computeId": resources.arm_id("/computes/cpu-cluster"),
                "environmentId": resources.arm_id("/environments/theirs/versions/1"),
                "codeId": resources.arm_id("/codes/theirs/versions/1"),
            }
        },
    )
    Job.read(resources, "theirs").wait()
    with mlflow.start_run(experiment_id=client.create_experiment("of others")) as run:
        mlflow.log_metric("loss", 0.5)
        mlflow.log_text("flavors: {}", "model/MLmodel")
    client.create_registered_model("theirs", tags={"team": "flights"})
    client.create_model_version("theirs", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("theirs", "champion", "1")
    spark.createDataFrame(XY.assign(x=[-1.0, 2.0])).write.format("delta").saveAsTable(
        "clean_flow.theirs"
    )


def make_one_of_each(
    register: RegisterFunction, link: Link, spark: SparkSession, folder: Path
) -> None:
    uri = register(10, alias="champion")
    deploy_model("delay-ep", uri, link=link)
    script = folder / "project" / "train.py"
    script.parent.mkdir()
    script.write_text("print('done')\n")
    job = submit_job(script, compute="cpu-cluster", experiment="/Users/ana/iris", link=link)
    assert job.wait().is_completed, job.log()
    score_table(
        model_uri=save_model(folder, choosy_sum, XY),
        input_table="clean_flow.theirs",
        output_table="clean_flow.scored",
        max_quarantined_rows="50%",
        spark=spark,
    )


def test_after_clean_the_services_are_as_before_at_whatever_step_it_was_killed(
    register: RegisterFunction,
    resolved_job_environment: None,
    link: Link,
    azureml: AzureMl,
    azureml_client: Any,
    spark: SparkSession,
    tmp_path: Path,
) -> None:
    resources = AmlResources.of_link(link)
    spark.sql("CREATE SCHEMA clean_flow")
    try:
        azureml.job_fault("quota")
        make_resources_of_others(resources, azureml_client, spark)
        azureml.reset()
        before = describe_all(resources, azureml_client, spark)
        make_one_of_each(register, link, spark, tmp_path)
        # The runs in which a model was logged are the caller's own.
        for run in azureml_client.search_runs(["0"]):
            azureml_client.delete_run(run.info.run_id)

        plan = find_marked_resources(
            link=link, schemas=["clean_flow"], spark=spark, include_used=True
        )
        assert {resource.kind for resource in plan.resources} == {
            *("endpoint", "job", "model version", "registered model", "experiment"),
            *("environment", "code", "table"),
        }
        (endpoint,) = [item for item in plan.resources if item.kind == "endpoint"]
        assert (endpoint.detail, endpoint.usd_a_day) == ("1 x Standard_DS3_v2", 6.0)
        tables = [item for item in plan.resources if item.kind == "table"]
        config = link_config(link, tmp_path)
        # The last one ends before it is killed.
        for left in range(len(plan.resources) - len(tables), 0, -1):
            done = azureml.run(CLEAN_ONE, config)
            assert (done.returncode, done.stderr) == (0 if left == 1 else -9, "")

        def interrupt(count: int, resource: object) -> None:
            if count == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            delete_resources(tables, interrupt)
        plan = find_marked_resources(link=link, schemas=["clean_flow"], spark=spark)
        assert [(item.kind, item.name) for item in plan.resources] == [
            ("table", item.name) for item in tables[1:]
        ]
        assert [item.state for item in delete_resources(plan.resources)] == ["deleted"]
        assert describe_all(resources, azureml_client, spark) == before
        plan = find_marked_resources(link=link, schemas=["clean_flow"], spark=spark)
        assert (plan.resources, plan.used_resources, plan.problems) == ((), (), ())
    finally:
        spark.sql("DROP SCHEMA clean_flow CASCADE")
