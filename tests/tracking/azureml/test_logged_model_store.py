"""Logged models of MLflow 3 in Azure ML, whose runs other clients still see as ordinary ones."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.azureml import AzureMl
from tests.support.azureml.program import found_by

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

_MODEL = """
import pandas as pd
class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2
frame = pd.DataFrame({"x": [1.0, 2.0]})
def log_model(**options):
    return mlflow.pyfunc.log_model(
        name="model", python_model=Doubles(), pip_requirements=[], **options)
"""


def _ours(azureml: AzureMl, code: str, *arguments: str, **options: Any) -> dict[str, Any]:
    from textwrap import dedent

    return found_by(azureml, _MODEL + dedent(code), *arguments, plain=False, **options)


def test_a_model_in_azure_ml_is_an_ordinary_run_to_a_plain_client(
    azureml: AzureMl, tmp_path: Path
) -> None:
    made = _ours(
        azureml,
        """
        mlflow.set_experiment("models")
        with mlflow.start_run() as run:
            first, second = log_model(), log_model()
            mlflow.log_text("mine", "other/a.txt")
            third = mlflow.pyfunc.log_model(
                name="other", python_model=Doubles(), pip_requirements=[])
        found["run_id"] = run.info.run_id
        found["first"] = first.model_id
        uris = [mlflow.get_logged_model(i.model_id).artifact_location
                for i in (first, second, third)]
        found["folders"] = [uri.rpartition("/artifacts/")[2] for uri in uris]
        # The name means the newest model.
        download = mlflow.artifacts.download_artifacts
        text = open(download(f"runs:/{run.info.run_id}/model") + "/MLmodel").read()
        found["newest"] = second.model_id in text
        found["listed"] = sorted(f.path for f in client.list_artifacts(run.info.run_id))
        """,
    )
    folders = made["folders"]
    found = found_by(
        azureml,
        """
        import pandas as pd
        run = client.get_run(sys.argv[2])
        found["status"] = run.info.status
        found["listed"] = sorted(f.path for f in client.list_artifacts(sys.argv[2]))
        folder = mlflow.artifacts.download_artifacts(
            run.info.artifact_uri + "/model", dst_path=sys.argv[3])
        model = mlflow.pyfunc.load_model(folder)
        found["predicted"] = model.predict(pd.DataFrame({"x": [1.0]}))["x"].tolist()
        client.create_registered_model("plain")
        version = client.create_model_version(
            "plain", run.info.artifact_uri + "/model", run.info.run_id)
        found["version"] = [str(version.version), version.status]
        """,
        made["run_id"],
        str(tmp_path),
    )

    assert made["first"].startswith(f"m-{made['run_id']}-")
    assert folders[0] == "model"
    # What is taken, by a model or by a file, is left alone.
    assert folders[1].startswith("model-")
    assert folders[2].startswith("other-")
    assert made["newest"]
    assert made["listed"] == sorted([*folders, "other"])
    assert found["listed"] == made["listed"]
    assert found["status"] == "FINISHED"
    assert found["predicted"] == [2.0]
    assert found["version"] == ["1", "READY"]


def test_a_logged_model_is_found_changed_and_deleted(azureml: AzureMl) -> None:
    found = _ours(
        azureml,
        """
        from mlflow.entities import LoggedModelStatus
        experiment = mlflow.set_experiment("changed")
        with mlflow.start_run() as run:
            mlflow.log_params({f"p{i:03}": "v" * 60 for i in range(250)})
            info = log_model(params={"extra": 1})
        get = mlflow.get_logged_model
        found["params"] = len(get(info.model_id).params)
        client.set_logged_model_tags(info.model_id, {"a": "1", "b": "x" * 5000})
        client.delete_logged_model_tag(info.model_id, "a")
        found["no tag"] = error_of(client.delete_logged_model_tag, info.model_id, "a")[1]
        other = MlflowClient(sys.argv[1] + "?other")
        found["b"] = len(other.get_logged_model(info.model_id).tags["b"])
        search = mlflow.search_logged_models
        ids = [experiment.experiment_id]
        found["searched"] = len(search(ids, "params.extra = '1'", output_format="list"))
        found["not"] = len(search(ids, "params.extra = '2'", output_format="list"))
        failed = mlflow.initialize_logged_model(name="alone")
        found["pending"] = str(failed.status)
        client.finalize_logged_model(failed.model_id, LoggedModelStatus.FAILED)
        carriers = client.search_runs(ids, "attributes.run_name = 'alone'")
        tag = "dbx_aml.placeholder_run"
        found["carrier"] = [[r.info.status, r.data.tags[tag]] for r in carriers]
        found["source"] = get(failed.model_id).source_run_id
        found["failed"] = str(get(failed.model_id).status)
        client.delete_logged_model(info.model_id)
        found["deleted"] = error_of(get, info.model_id)[1]
        found["left"] = [m.name for m in search(ids, output_format="list")]
        found["unknown"] = error_of(get, "m-" + "0" * 32)[1]
        nowhere = "m-11111111-1111-4111-8111-111111111111-0a1b2c3d"
        found["no run"] = error_of(get, nowhere)[1]
        found["used"] = [run.info.run_id, info.model_id]
        client.log_inputs(run.info.run_id, models=[mlflow.entities.LoggedModelInput(info.model_id)])
        again = client.get_run(run.info.run_id)
        found["links"] = [
            [m.model_id for m in again.inputs.model_inputs],
            [[m.model_id, m.step] for m in again.outputs.model_outputs]]
        """,
    )

    assert found["params"] == 251
    assert "No tag with key 'a' found" in found["no tag"]
    assert found["b"] == 5000
    assert [found["searched"], found["not"]] == [1, 0]
    assert found["pending"] == "PENDING"
    (carrier,) = found["carrier"]
    assert carrier == [
        "FAILED",
        "this run only carries a logged model that was made without a run",
    ]
    assert found["source"] is None
    assert found["failed"] == "FAILED"
    model_id = found["used"][1]
    assert f"Logged model '{model_id}' not found" in found["deleted"]
    assert found["left"] == ["alone"]
    assert "not in Azure ML" in found["unknown"]
    assert "not found" in found["no run"]
    assert found["links"] == [[model_id], [[model_id, 0]]]


def test_metrics_of_a_model_are_sent_once_and_are_its_newest(azureml: AzureMl) -> None:
    found = _ours(
        azureml,
        """
        import pandas as pd
        mlflow.set_experiment("metrics")
        train = mlflow.data.from_pandas(pd.DataFrame({"x": [1.0]}), name="train")
        test = mlflow.data.from_pandas(pd.DataFrame({"x": [2.0]}), name="test")
        with mlflow.start_run() as run:
            mlflow.log_metric("before", 0.5)
            info = log_model()
            for step in range(50):
                mlflow.log_metric("loss", 1 / (step + 1), step=step, model_id=info.model_id)
            mlflow.log_metric("auc", 0.75, model_id=info.model_id, dataset=train)
            mlflow.log_metric("auc", 0.5, model_id=info.model_id, dataset=test)
            mlflow.log_metric("auc", 0.25, model_id=info.model_id, dataset=test)
        with mlflow.start_run() as other:
            mlflow.log_metric("later", 1.5, model_id=info.model_id)
        got = MlflowClient(sys.argv[1] + "?new").get_logged_model(info.model_id)
        found["metrics"] = sorted([m.key, m.dataset_name or "", m.value, m.step, m.run_id]
            for m in got.metrics)
        found["runs"] = [run.info.run_id, other.info.run_id]
        found["before"] = len(client.get_metric_history(run.info.run_id, "before"))
        found["run"] = client.get_run(run.info.run_id).data.metrics
        """,
    )
    run, other = found["runs"]

    assert found["metrics"] == [
        ["auc", "test", 0.25, 0, run],
        ["auc", "train", 0.75, 0, run],
        ["before", "", 0.5, 0, run],
        ["later", "", 1.5, 0, other],
        ["loss", "", 0.02, 49, run],
    ]
    assert found["before"] == 1
    assert set(found["run"]) == {"before", "loss", "auc"}
    # One request a value, and few more for what is new to the model.
    calls = azureml.requests(path="runs/log-batch")
    assert len(calls) < 50 + 25


def test_metrics_of_a_model_survive_a_killed_program(azureml: AzureMl) -> None:
    done = azureml.run(
        """
import mlflow, os, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("killed")
mlflow.start_run()
model = mlflow.initialize_logged_model(name="m")
for step in range(5):
    mlflow.log_metric("loss", 5 - step, step=step, model_id=model.model_id)
print(model.model_id, flush=True)
os._exit(1)
"""
    )
    model_id = done.stdout.split()[0]

    found = _ours(
        azureml,
        "found['m'] = [[m.key, m.value] for m in mlflow.get_logged_model(sys.argv[2]).metrics]",
        model_id,
    )

    assert found["m"] == [["loss", 1.0]]
