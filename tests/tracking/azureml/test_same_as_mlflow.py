"""A program reads back the same from Azure ML as from MLflow's own store."""

import math
from collections.abc import Callable
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from tests.support.azureml import AzureMl

pytestmark = pytest.mark.azureml

Program = Callable[[MlflowClient], Any]


def search_experiments(client: MlflowClient) -> Any:
    names = ["/Users/one/iris", "/Users/one/wine", "/Users/two/iris", "bare", "Zebra"]
    for name in names:
        # The value of a tag looks like a condition on a name.
        client.create_experiment(name, tags={"team": name[-4:], "name": "name = '/Users/one/iris'"})

    def found(filter_string: str | None, *order_by: str) -> list[str]:
        page = client.search_experiments(filter_string=filter_string, order_by=list(order_by))
        return [experiment.name for experiment in page if experiment.name != "Default"]

    def pages(*order_by: str) -> list[list[str]]:
        result, token = [], None
        while not result or token:
            page = client.search_experiments(
                max_results=2, order_by=list(order_by), page_token=token,
                filter_string="name != 'Default'",
            )  # fmt: skip
            token = page.token
            result.append([experiment.name for experiment in page])
        return result

    filters = [
        "name LIKE '/Users/one/%'",
        "name LIKE '/users/one/%'",
        "name ILIKE '/USERS/ONE%'",
        "name LIKE '%/iris'",
        "name LIKE '/Users/___/wine'",
        "attribute.name != '/Users/one/iris'",
        "name = '/Users/one/iris'",
        "name = 'bare'",
        "name = '/Users/three/iris'",
        "tags.team = 'iris' AND name LIKE '%one%'",
        "tags.name = \"name = '/Users/one/iris'\"",
        "name LIKE '%i%' and tags.team != 'iris'",
    ]
    return {
        **{text: sorted(found(text)) for text in filters},
        "newest first": found(None),
        "by name": found(None, "name ASC"),
        "by name, last first": found("name LIKE '%e%'", "name DESC"),
        "pages by name": pages("name"),
        "pages": pages(),
        "tags": client.get_experiment_by_name("/Users/one/iris").tags,  # type: ignore[union-attr]
    }


def rename_experiments(client: MlflowClient) -> Any:
    ids = {name: client.create_experiment(name) for name in ("/Users/a/one", "two", '/it\'s "3"')}

    def names() -> dict[str, list[str]]:
        looked_up = ("/Users/a/one", "/Users/a/new", "two", '/it\'s "3"', "free", '/it\'s "4"')
        found = {name: client.get_experiment_by_name(name) for name in looked_up}
        numbers = {experiment_id: str(number) for number, experiment_id in enumerate(ids.values())}
        return {
            name: [experiment.name, numbers[experiment.experiment_id]]
            for name, experiment in found.items()
            if experiment is not None
        }

    results = [names()]
    client.rename_experiment(ids["/Users/a/one"], "/Users/a/new")
    client.rename_experiment(ids["two"], "/Users/a/one")
    client.rename_experiment(ids['/it\'s "3"'], '/it\'s "4"')
    results.append(names())
    try:
        client.rename_experiment(ids["two"], "/Users/a/new")
    except MlflowException as error:
        results.append({"error": [error.error_code]})
    client.rename_experiment(ids["/Users/a/one"], "free")
    # Both names are free again, and belong to new experiments.
    for name in ("two", "/Users/a/new"):
        ids[f"{name} again"] = client.create_experiment(name)
    results.append(names())
    listed = client.search_experiments(filter_string="name LIKE '%n%'", order_by=["name"])
    return [*results, [experiment.name for experiment in listed]]


def search_runs(client: MlflowClient) -> Any:
    experiment_id = client.create_experiment("runs")
    for number in range(6):
        run = client.create_run(experiment_id, start_time=1000 + number, run_name=str(number))
        run_id = run.info.run_id
        for step, value in enumerate((number % 3, math.nan if number == 4 else number % 2)):
            client.log_metric(run_id, "val/acc" if step else "acc", value, timestamp=7, step=step)
        client.set_tag(run_id, "team", ("risk", "web")[number % 2])
        client.log_param(run_id, "lr", "0." + "1" * (600 * (number == 5) + number + 1))
        if number == 3:
            client.delete_tag(run_id, "team")

    def found(filter_string: str = "", *order_by: str, size: int = 4) -> list[list[str]]:
        pages, token = [], None
        while token is not None or not pages:
            page = client.search_runs(
                [experiment_id], filter_string, 1, size, list(order_by) or None, token
            )
            pages.append([run.info.run_name for run in page])
            token = page.token or None
        return pages

    filters = (
        "tags.team != 'risk'",
        "tags.team != 'risk' AND metrics.acc > 0",
        "metrics.`val/acc` = 1",
        "metrics.\"val/acc\" > 0 AND tags.team = 'web'",
        "params.lr LIKE '0.1%' AND tags.team != 'web'",
        "attributes.run_name = '3'",
    )
    orders = (
        ("metrics.acc DESC",),
        ("metrics.acc ASC", "start_time ASC"),
        ("metrics.`val/acc` DESC", "start_time DESC"),
        ("params.lr ASC",),
        ("tags.team DESC", "attributes.start_time ASC"),
    )
    return {
        **{text: found(text) for text in filters},
        **{" ".join(order): found("", *order) for order in orders},
        "both": found("tags.team != 'web'", "metrics.acc DESC", size=2),
    }


def log_one_dataset_three_times(client: MlflowClient) -> Any:
    mlflow.set_experiment("datasets")
    data = mlflow.data.from_pandas(pd.DataFrame({"a": [1]}), name="nine")
    other = mlflow.data.from_pandas(pd.DataFrame({"a": [2]}), name="nine")
    with mlflow.start_run() as run:
        for context in ("training", "training", "testing"):
            mlflow.log_input(data, context=context)
        mlflow.log_input(other, context="training")
        model = mlflow.initialize_logged_model(name="m")
        for _ in range(2):
            client.log_inputs(
                run.info.run_id, models=[mlflow.entities.LoggedModelInput(model.model_id)]
            )
    inputs = client.get_run(run.info.run_id).inputs
    return {
        "datasets": sorted(
            [used.dataset.name, used.dataset.digest, [tag.value for tag in used.tags]]
            for used in inputs.dataset_inputs
        ),
        "models": len(inputs.model_inputs),
    }


def delete_tags(client: MlflowClient) -> Any:
    mlflow.set_experiment("tags")
    errors = {}
    with mlflow.start_run(tags={"short": "1"}) as run:
        for name in ("none", "short", "short", "long", "long"):
            if name == "long" and "long" not in errors:
                mlflow.set_tag("long", "x" * 1500)
            try:
                client.delete_tag(run.info.run_id, name)
                errors.setdefault(name, []).append(None)
            except MlflowException as error:
                text = error.message.replace(run.info.run_id, "RUN")
                errors.setdefault(name, []).append([error.error_code, text])
    tags = client.get_run(run.info.run_id).data.tags
    return errors, sorted(name for name in tags if not name.startswith("mlflow."))


def log_values_to_checkpoints(client: MlflowClient) -> Any:
    experiment = mlflow.set_experiment("checkpoints")
    train = mlflow.data.from_pandas(pd.DataFrame({"a": [1]}), name="train")
    test = mlflow.data.from_pandas(pd.DataFrame({"a": [2]}), name="test")
    models = {}
    with mlflow.start_run() as run:
        for step, value in enumerate([0.7, 0.9, 0.8]):
            model = mlflow.initialize_logged_model(name=f"ck-{step}")
            models[model.model_id] = model.name
            mlflow.log_metric("acc", value, step=step, model_id=model.model_id)
            mlflow.log_metrics({"loss": 1 - value, "n": step}, step=step, model_id=model.model_id)
        # These values belong to the run alone.
        mlflow.log_metric("acc", 0.1, step=9)
        # One time for two values: the later step counts.
        points = [Metric("auc", value, 7, step) for step, value in ((1, 0.2), (2, 0.6))]
        for name, shift in (("ck-0", 0.0), ("ck-2", 0.1)):
            model_id = next(key for key in models if models[key] == name)
            for point in points:
                value = Metric("auc", point.value - shift, 7, point.step, model_id=model_id)
                client.log_batch(run.info.run_id, [value])
    first, second, third = models
    with mlflow.start_run() as evaluation:
        mlflow.log_metric("acc", 0.95, step=1, model_id=first, dataset=train)
        mlflow.log_metric("acc", 0.35, step=2, model_id=first, dataset=test)
        mlflow.log_metric("acc", 0.65, step=3, model_id=second)
        mlflow.log_metric("odd", 1.5, model_id=third)
    client.set_logged_model_tags(first, {"checked": "yes"})
    run_names = {run.info.run_id: "training", evaluation.info.run_id: "evaluation"}

    def found(filter_string: str | None = None, **options: Any) -> list[str]:
        page = client.search_logged_models([experiment.experiment_id], filter_string, **options)
        return [model.name for model in page]

    def by(name: str, ascending: bool, **dataset: str) -> list[str]:
        return found(order_by=[{"field_name": name, "ascending": ascending, **dataset}])

    filters = [
        "metrics.acc > 0.85",
        "metrics.acc < 0.4",
        "metrics.acc >= 0.9 AND metrics.acc < 0.66",
        "metrics.acc = 0.8",
        "metrics.acc != 0.8",
        "metrics.none > 0",
        "metrics.loss < 0.15 AND name = 'ck-1'",
        "tags.checked = 'yes' AND metrics.acc > 0.9",
    ]
    datasets = [{"dataset_name": "train"}]
    return {
        "values": {
            name: sorted(
                [value.key, value.value, value.step, value.dataset_name, run_names[value.run_id]]
                for value in client.get_logged_model(model_id).metrics
            )
            for model_id, name in models.items()
        },
        "last": {
            name: {value.key: value.value for value in client.get_logged_model(model_id).metrics}
            for model_id, name in models.items()
        },
        "run": client.get_run(run.info.run_id).data.metrics,
        **{text: sorted(set(found(text))) for text in filters},
        "best": [by("metrics.acc", False), by("metrics.loss", False), by("metrics.auc", False)],
        "worst": [by("metrics.acc", True), by("metrics.odd", True), by("metrics.auc", True)],
        "best by dataset": by("metrics.acc", False, dataset_name="test"),
        "on a dataset": [
            found(datasets=datasets),
            found("metrics.acc > 0.9", datasets=datasets),
            found("metrics.acc < 0.9", datasets=datasets),
        ],
    }


@pytest.mark.parametrize(
    "program",
    [
        search_experiments,
        rename_experiments,
        search_runs,
        log_one_dataset_three_times,
        delete_tags,
        log_values_to_checkpoints,
    ],
)
def test_a_program_reads_back_the_same_from_azure_ml_as_from_mlflows_own_store(
    azureml: AzureMl, mlflow_store: str, azureml_client: MlflowClient, program: Program
) -> None:
    uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(mlflow_store)
    expected = program(MlflowClient(mlflow_store))
    mlflow.set_tracking_uri(uri)
    # MLflow's store has this experiment from its fixture.
    azureml_client.create_experiment("tests")
    # As in workspaces that do not take inputs.
    azureml.fault("status", status=404, path="runs/log-inputs")

    assert program(azureml_client) == expected
