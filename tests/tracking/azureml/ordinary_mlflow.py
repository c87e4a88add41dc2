"""Ordinary MLflow code, as MLflow's documentation shows it, for any tracking server.

    MLFLOW_TRACKING_URI=... python ordinary_mlflow.py <a folder to work in>

prints as JSON the data that it reads back. With MLflow 2 it leaves out the logged models.
"""

import hashlib
import json
import sys
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

FOLDER = Path(sys.argv[1])
FOLDER.mkdir(parents=True, exist_ok=True)
results = {}
HAS_LOGGED_MODELS = hasattr(mlflow, "get_logged_model")
client = MlflowClient()
iris = load_iris(as_frame=True)
features, target = iris.data, iris.target


class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2


def run_content(run_id):
    """Return the content of a run, without times and identifiers."""
    run = client.get_run(run_id)
    data = run.data
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": data.params,
        "metrics": {key: round(value, 9) for key, value in data.metrics.items()},
        "tags": {key: text for key, text in data.tags.items() if not key.startswith("mlflow.")},
        "datasets": sorted(
            [
                used.dataset.name,
                used.dataset.digest,
                *(tag.value for tag in used.tags),
            ]
            for used in run.inputs.dataset_inputs
        ),
        "models": len(run.outputs.model_outputs) if HAS_LOGGED_MODELS else None,
    }


def list_paths(run_id, path=None):
    infos = client.list_artifacts(run_id, path)
    return sorted([info.path, info.is_dir] for info in infos)


def logged_model(model_id):
    model = mlflow.get_logged_model(model_id)
    return {
        "name": model.name,
        "status": str(model.status),
        "params": model.params,
        "metrics": {
            metric.key: [round(metric.value, 9), metric.dataset_name]
            for metric in model.metrics or []
        },
        "tags": {key: text for key, text in model.tags.items() if not key.startswith("mlflow.")},
    }


def rounded(values):
    return [round(float(value), 9) for value in np.asarray(values, dtype=float).ravel()[:20]]


mlflow.set_experiment("ordinary")

# Parameters, metrics, tags, artifacts, nested runs.
with mlflow.start_run(run_name="parent", tags={"team": "risk"}) as parent:
    mlflow.log_params({f"p{number:03}": number * 1.5 for number in range(300)})
    mlflow.log_param("text", "ü " * 250)
    mlflow.set_tag("mlflow.note.content", "what this run is about")
    mlflow.set_tag("long", "0123456789" * 300)
    for number in range(3):
        with mlflow.start_run(run_name=f"child {number}", nested=True):
            mlflow.log_metric("score", number / 4)
    values = [
        mlflow.entities.Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step)
        for step in range(4_000)
    ]
    client.log_batch(parent.info.run_id, metrics=values)
    for step in range(1_000):
        mlflow.log_metric("background", step, step=step, synchronous=False)
    mlflow.log_text("hello", "notes/a b ü.txt")
    mlflow.log_text("other", "notes2/other.txt")
    mlflow.log_dict({"a": [1, 2]}, "data.json")
    mlflow.log_table({"x": [1, 2], "y": ["a", "b"]}, "table.json")
    big = FOLDER / "big.bin"
    big.write_bytes(np.random.default_rng(1).bytes(50 * 2**20))
    mlflow.log_artifact(str(big), "large")
    dataset = mlflow.data.from_pandas(features, name="flowers", targets=None)
    mlflow.log_input(dataset, context="training")

run_id = parent.info.run_id
results["parent"] = run_content(run_id)
results["loss"] = [
    [metric.step, metric.value] for metric in client.get_metric_history(run_id, "loss")
][::250]
results["background"] = [m.step for m in client.get_metric_history(run_id, "background")] == list(
    range(1_000)
)
results["listed"] = {path or "": list_paths(run_id, path) for path in (None, "notes", "large")}
local = Path(mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(FOLDER / "all")))
results["downloaded"] = {
    file.relative_to(local).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
    for file in sorted(local.rglob("*"))
    if file.is_file()
}
results["text"] = mlflow.artifacts.load_text(f"runs:/{run_id}/notes/a b ü.txt")
results["dict"] = mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/data.json")
children = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{run_id}'")
results["children"] = sorted(children["metrics.score"].tolist())

# scikit-learn, by autologging.
mlflow.sklearn.autolog()
with mlflow.start_run(run_name="sklearn") as run:
    sklearn_model = LogisticRegression(max_iter=300).fit(features, target)
mlflow.sklearn.autolog(disable=True)
results["sklearn"] = run_content(run.info.run_id)
results["sklearn listed"] = list_paths(run.info.run_id, "model")
by_run = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
results["sklearn predicted"] = rounded(by_run.predict(features))
by_run = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
results["sklearn signature"] = by_run.metadata.signature.to_dict()
if HAS_LOGGED_MODELS:
    (output,) = client.get_run(run.info.run_id).outputs.model_outputs
    results["sklearn model"] = logged_model(output.model_id)
    by_id = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    results["sklearn predicted by id"] = rounded(by_id.predict(features))
    results["sklearn signature by id"] = by_id.metadata.signature.to_dict()
registered = mlflow.register_model(f"runs:/{run.info.run_id}/model", "flowers")
results["registered"] = [registered.name, str(registered.version), registered.status]

# LightGBM, by autologging.
mlflow.lightgbm.autolog()
with mlflow.start_run(run_name="lightgbm") as run:
    train = lightgbm.Dataset(features, target)
    settings = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(settings, train, 5, valid_sets=[train], valid_names=["train"])
mlflow.lightgbm.autolog(disable=True)
results["lightgbm"] = run_content(run.info.run_id)
history = client.get_metric_history(run.info.run_id, "train-multi_logloss")
results["lightgbm history"] = [[metric.step, round(metric.value, 9)] for metric in history]
model_uri = f"runs:/{run.info.run_id}/model"
if HAS_LOGGED_MODELS:
    (output,) = client.get_run(run.info.run_id).outputs.model_outputs
    results["lightgbm model"] = logged_model(output.model_id)
    model_uri = f"models:/{output.model_id}"
registered = mlflow.register_model(model_uri, "flowers", tags={"kind": "gbm"})
results["lightgbm registered"] = [str(registered.version), registered.tags]

# A custom model with signature and input example, and a model without a run.
frame = pd.DataFrame({"x": [1.0, 2.0]})
MODEL_ARGUMENTS = (
    {"name": "doubles", "params": {"factor": 2}, "tags": {"stage": "trial"}}
    if HAS_LOGGED_MODELS
    else {"artifact_path": "doubles"}
)
with mlflow.start_run(run_name="pyfunc") as run:
    mlflow.log_metric("auc", 0.75)
    info = mlflow.pyfunc.log_model(
        python_model=Doubles(),
        signature=infer_signature(frame, frame * 2),
        input_example=frame,
        pip_requirements=["mlflow"],
        registered_model_name="doubles",
        **MODEL_ARGUMENTS,
    )
    if HAS_LOGGED_MODELS:
        again = mlflow.pyfunc.log_model(
            name="doubles", python_model=Doubles(), pip_requirements=["mlflow"]
        )
        mlflow.log_metric("mae", 0.5, model_id=info.model_id, dataset=dataset)
results["pyfunc"] = run_content(run.info.run_id)
if HAS_LOGGED_MODELS:
    example = mlflow.pyfunc.load_model(info.model_uri).input_example
    results["example"] = example.to_dict("list")
    results["pyfunc model"] = logged_model(info.model_id)
    results["two models"] = info.model_id != again.model_id
    mlflow.set_logged_model_tags(info.model_id, {"checked": "yes"})
    mlflow.delete_logged_model_tag(info.model_id, "stage")
    results["tags"] = logged_model(info.model_id)["tags"]
    models = mlflow.search_logged_models(
        filter_string="metrics.mae < 0.6 AND params.factor = '2'",
        order_by=[{"field_name": "creation_timestamp", "ascending": False}],
        output_format="list",
    )
    results["searched"] = [model.model_id == info.model_id for model in models]
    external = mlflow.initialize_logged_model(name="elsewhere", params={"a": "1"})
    mlflow.finalize_logged_model(external.model_id, "READY")
    results["external"] = logged_model(external.model_id)

# The registry.
client.set_registered_model_alias("flowers", "champion", "1")
client.set_registered_model_alias("flowers", "champion", "2")
client.set_registered_model_alias("flowers", "first", "1")
client.set_model_version_tag("flowers", "1", "checked", "yes")
for uri in ("models:/flowers/1", "models:/flowers@champion", "models:/flowers@first"):
    results[uri] = rounded(mlflow.pyfunc.load_model(uri).predict(features))
champion = client.get_model_version_by_alias("flowers", "champion")
results["champion"] = [str(champion.version), sorted(champion.aliases)]
results["aliases"] = {
    alias: str(version) for alias, version in client.get_registered_model("flowers").aliases.items()
}
client.delete_registered_model_alias("flowers", "first")
results["one alias"] = sorted(client.get_registered_model("flowers").aliases)
results["version"] = client.get_model_version("flowers", "1").tags
results["versions"] = sorted(
    str(version.version) for version in client.search_model_versions("name = 'flowers'")
)
results["doubles"] = mlflow.pyfunc.load_model("models:/doubles/1").predict(frame).to_dict("list")

sys.stdout.write("RESULTS:" + json.dumps(results, ensure_ascii=False))
