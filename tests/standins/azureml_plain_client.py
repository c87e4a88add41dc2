"""A program that uses the unmodified azureml-mlflow with a stand-in, and prints its results.

    python -m tests.standins.azureml_plain_client <tracking URI> <folder> <admin URL>

This package is hidden from MLflow, so azureml-mlflow's own stores are used.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

sys.modules["dbx_aml"] = None  # type: ignore[assignment]

import mlflow  # noqa: E402
import pandas as pd  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag  # noqa: E402

TRACKING_URI, FOLDER, ADMIN_URL = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
mlflow.set_tracking_uri(TRACKING_URI)
client = MlflowClient()
store = client._tracking_client.store
results: dict[str, Any] = {}


class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return model_input * 2


def error_of(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return the message of a call's error; empty without an error."""
    try:
        call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the test checks the message
        return str(error)
    return ""


def switch_fault_on(**fault: Any) -> None:
    for call, body in (("reset", {}), ("faults", fault)):
        data = json.dumps(body).encode()
        urlopen(Request(f"{ADMIN_URL}{call}", data=data, method="POST")).read()


def track_runs() -> None:
    mlflow.set_experiment("contract")
    with mlflow.start_run(run_name="first") as active_run:
        mlflow.log_param("depth", 3)
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metric("loss", 0.25, step=2)
        mlflow.set_tag("team", "risk")
        for step in range(3):
            mlflow.log_metric("background", step, step=step, synchronous=False)
        mlflow.flush_async_logging()
        with mlflow.start_run(nested=True) as child_run:
            pass
    run = client.get_run(active_run.info.run_id)
    experiment_ids = [run.info.experiment_id]
    by_metric = client.search_runs(experiment_ids, "metrics.loss < 0.3 and params.depth = '3'")
    by_id = client.search_runs(experiment_ids, f"attributes.run_id = '{run.info.run_id}'")
    results.update(
        store=type(store).__name__,
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        artifact_uri=run.info.artifact_uri,
        status=run.info.status,
        params=run.data.params,
        team=run.data.tags["team"],
        loss=[metric.value for metric in client.get_metric_history(run.info.run_id, "loss")],
        background=len(client.get_metric_history(run.info.run_id, "background")),
        root=client.get_run(child_run.info.run_id).data.tags["mlflow.rootRunId"],
        searched=[[run.info.run_id for run in runs] for runs in (by_metric, by_id)],
    )


def log_artifacts() -> None:
    source = FOLDER / "source"
    source.mkdir(parents=True)
    for number in range(101):
        (source / f"{number:03}.txt").write_text(str(number))
    with mlflow.start_run() as active_run:
        run_id, uri = active_run.info.run_id, active_run.info.artifact_uri
        mlflow.log_text("hello", "notes/a b.txt")
        mlflow.log_artifacts(str(source), "folder")
        results["written_twice"] = error_of(mlflow.log_text, "other", "notes/a b.txt")
        switch_fault_on(kind="status", status=403, host="blob", method="PUT", count=1)
        results["failed_upload"] = error_of(mlflow.log_text, "lost", "lost.txt")
        switch_fault_on(kind="lost-answer", path="artifacts/batch/metadata", count=1)
        results["lost_registration"] = error_of(mlflow.log_text, "lost", "lost2.txt")
    folder = mlflow.artifacts.download_artifacts(f"{uri}/folder", dst_path=str(FOLDER))
    results.update(
        listed=[info.path for info in client.list_artifacts(run_id)],
        listed_in_folder=len(mlflow.artifacts.list_artifacts(f"{uri}/folder")),
        downloaded=len(list(Path(folder).rglob("*.txt"))),
        text=mlflow.artifacts.load_text(f"{uri}/notes/a b.txt"),
        read_lost=error_of(mlflow.artifacts.load_text, f"{uri}/lost.txt"),
    )


def register_models() -> None:
    model = FOLDER / "model"
    mlflow.pyfunc.save_model(str(model), python_model=Doubles(), pip_requirements=[])
    with mlflow.start_run() as active_run:
        mlflow.log_artifacts(str(model), "saved")
    run = active_run.info
    client.create_registered_model("doubles")
    versions = [
        client.create_model_version("doubles", f"{run.artifact_uri}/saved", run.run_id),
        client.create_model_version("doubles", f"file://{model}"),
    ]
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    results.update(
        versions=[[str(version.version), version.status] for version in versions],
        source_of_upload=versions[1].source,
        predicted=[
            mlflow.pyfunc.load_model(f"models:/doubles/{number}").predict(frame)["x"].tolist()
            for number in (1, 2)
        ],
        rename=error_of(client.rename_registered_model, "doubles", "triples"),
        alias=error_of(client.set_registered_model_alias, "doubles", "champion", "1"),
        nowhere=error_of(client.create_model_version, "doubles", f"{run.artifact_uri}/other"),
        log_model=error_of(mlflow.pyfunc.log_model, name="model", python_model=Doubles()),
        outputs=error_of(client.log_outputs, run.run_id, [LoggedModelOutput("m-1", 0)]),
        traces=error_of(client.search_traces, [run.experiment_id]),
    )


def exceed_limits() -> None:
    with mlflow.start_run() as active_run:
        run_id = active_run.info.run_id
        now = int(time.time() * 1000)
        metrics = [Metric("m", i, now, i) for i in range(251)]
        params = [Param(f"p{i}", "v") for i in range(201)]
        tags = [RunTag(f"t{i}", "v") for i in range(51)]
        store.log_batch(run_id, [], params[:100], [])
        store.log_batch(run_id, [], params[100:200], [])
        results["limits"] = {
            "Limit=250, Size=251": error_of(store.log_batch, run_id, metrics, [], []),
            "Limit=200, Size=201": error_of(store.log_batch, run_id, [], params[200:], []),
            "500 characters": error_of(client.log_param, run_id, "p1", "v" * 501),
            "Limit=50, Size=51": error_of(store.log_batch, run_id, [], [], tags),
            "Limit=1000, Size=1001": error_of(client.set_tag, run_id, "t", "v" * 1001),
            "Experiment name '/Users": error_of(client.create_experiment, "/Users/ana/iris"),
        }


if __name__ == "__main__":
    track_runs()
    log_artifacts()
    register_models()
    exceed_limits()
    sys.stdout.write("RESULTS:" + json.dumps(results))
