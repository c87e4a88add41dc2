"""The stand-in of Azure ML is what azureml-mlflow takes for the service.

Every client here is the unmodified one, in a process of its own.
"""

import os
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.azureml import AzureMl
from tests.support.azureml.program import found_by

pytestmark = pytest.mark.slow


def test_a_run_with_params_metrics_and_tags_is_kept(azureml: AzureMl) -> None:
    found = found_by(
        azureml,
        """
        mlflow.set_experiment("kept")
        with mlflow.start_run(run_name="first") as run:
            mlflow.log_param("depth", 3)
            mlflow.log_metric("loss", 0.5, step=1)
            mlflow.log_metric("loss", 0.25, step=2)
            mlflow.log_metrics({"auc": 0.75, "f1": 0.5})
            mlflow.set_tag("team", "risk")
            with mlflow.start_run(nested=True) as child:
                pass
        got = client.get_run(run.info.run_id)
        found["params"] = got.data.params
        found["metrics"] = got.data.metrics
        found["tag"] = got.data.tags["team"]
        history = client.get_metric_history(run.info.run_id, "loss")
        found["history"] = [(metric.step, metric.value) for metric in history]
        found["root"] = client.get_run(child.info.run_id).data.tags["mlflow.rootRunId"]
        found["run_id"] = got.info.run_id
        found["experiment_id"] = got.info.experiment_id
        found["artifact_uri"] = got.info.artifact_uri
        found["status"] = got.info.status
        def search(condition):
            return [r.info for r in client.search_runs([got.info.experiment_id], condition)]
        found["searched"] = [i.run_name for i in search("metrics.auc > 0.7 and params.depth = '3'")]
        by_id = search(f"attributes.run_id = '{got.info.run_id}'")
        found["by_id"] = [info.run_id for info in by_id]
        """,
    )

    assert found["params"] == {"depth": "3"}
    assert found["metrics"] == {"loss": 0.25, "auc": 0.75, "f1": 0.5}
    assert found["history"] == [[1, 0.5], [2, 0.25]]
    assert found["tag"] == "risk"
    assert found["status"] == "FINISHED"
    assert found["searched"] == ["first"]
    # Azure ML's identifiers are GUIDs, for runs and for experiments.
    assert len(found["run_id"]) == len(found["experiment_id"]) == 36
    assert found["by_id"] == [found["run_id"]]
    assert found["root"] == found["run_id"]
    assert found["artifact_uri"] == (
        f"azureml://westeurope.api.azureml.ms/mlflow/v2.0{azureml.workspace.scope}"
        f"/experiments/{found['experiment_id']}/runs/{found['run_id']}/artifacts"
    )
    assert azureml.requests(path="runs/log-batch")


def test_artifacts_go_to_the_blob_store_and_come_back(azureml: AzureMl, tmp_path: Path) -> None:
    big = tmp_path / "source" / "nested" / "big file.bin"
    big.parent.mkdir(parents=True)
    big.write_bytes(os.urandom(5 * 2**20))
    for number in range(120):
        (tmp_path / "source" / f"{number:03}.txt").write_text(str(number))

    found = found_by(
        azureml,
        """
        mlflow.set_experiment("artifacts")
        with mlflow.start_run() as run:
            mlflow.log_text("hello", "notes/a b.txt")
            mlflow.log_artifacts(sys.argv[2], "folder")
        run_id = run.info.run_id
        found["run_id"] = run_id
        found["top"] = [(f.path, f.is_dir) for f in client.list_artifacts(run_id)]
        folder = run.info.artifact_uri + "/folder"
        found["folder"] = len(mlflow.artifacts.list_artifacts(folder))
        mlflow.artifacts.download_artifacts(folder, dst_path=sys.argv[3])
        found["by_run"] = error_of(client.list_artifacts, run_id, "folder")
        download = client.download_artifacts
        found["file_by_run"] = error_of(download, run_id, "notes/a b.txt", sys.argv[3])
        found["folder_by_run"] = error_of(download, run_id, "folder", sys.argv[3])
        found["text"] = mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/a b.txt")
        """,
        str(tmp_path / "source"),
        str(tmp_path),
    )

    assert found["top"] == [["folder", True], ["notes", True]]
    # 121 of them: the listing comes in pages.
    assert found["folder"] == 121
    # MLflow 3 also looks for logged models below a path of a run.
    assert "/logged-models/search failed with error code 404" in found["by_run"][1]
    assert found["file_by_run"][0] == found["folder_by_run"][0] == ""
    assert found["text"] == "hello"
    assert (tmp_path / "folder" / "nested" / "big file.bin").read_bytes() == big.read_bytes()
    puts = [entry for entry in azureml.requests(host="blob.core") if entry.method == "PUT"]
    assert len(puts) == 122
    assert puts[0].path.startswith(f"/azureml/ExperimentRun/dcid.{found['run_id']}/")


_MODEL = """
class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2
mlflow.set_experiment("models")
mlflow.pyfunc.save_model(sys.argv[2], python_model=Doubles(), pip_requirements=[])
"""


def test_a_saved_model_is_registered_from_a_run_and_from_a_local_folder(
    azureml: AzureMl, tmp_path: Path
) -> None:
    found = found_by(
        azureml,
        _MODEL
        + dedent(
            """
            import pandas as pd
            with mlflow.start_run() as run:
                mlflow.log_artifacts(sys.argv[2], "saved")
            client.create_registered_model("doubles")
            source = run.info.artifact_uri + "/saved"
            first = client.create_model_version("doubles", source, run.info.run_id)
            second = client.create_model_version("doubles", "file://" + sys.argv[2])
            found["versions"] = [first.version, second.version]
            found["status"] = [first.status, second.status]
            found["sources"] = [first.source == source, second.source]
            frame = pd.DataFrame({"x": [1.0, 2.0]})
            for version in ("1", "2"):
                model = mlflow.pyfunc.load_model("models:/doubles/" + version)
                found["predicted" + version] = list(model.predict(frame)["x"])
            found["run"] = first.run_id == run.info.run_id
            client.set_model_version_tag("doubles", "1", "checked", "yes")
            found["tags"] = client.get_model_version("doubles", "1").tags
            found["renamed"] = error_of(client.rename_registered_model, "doubles", "triples")
            found["alias"] = error_of(client.set_registered_model_alias, "doubles", "champion", "1")
            found["nowhere"] = error_of(
                client.create_model_version, "doubles", run.info.artifact_uri + "/other")
            """
        ),
        str(tmp_path / "model"),
    )

    assert [str(version) for version in found["versions"]] == ["1", "2"]
    assert found["status"] == ["READY", "READY"]
    assert found["sources"][0] is True
    assert found["sources"][1].startswith("azureml://artifacts/LocalUpload/")
    assert found["predicted1"] == found["predicted2"] == [2.0, 4.0]
    assert found["run"]
    assert found["tags"] == {"checked": "yes"}
    assert "404" in found["renamed"][1]
    assert "404" in found["alias"][1]
    assert "No artifacts were found" in found["nowhere"][1]


def test_what_mlflow_3_added_is_not_there(azureml: AzureMl, tmp_path: Path) -> None:
    found = found_by(
        azureml,
        _MODEL
        + dedent(
            """
            with mlflow.start_run() as run:
                mlflow.log_artifacts(sys.argv[2], "saved")
                found["log_model"] = error_of(
                    mlflow.pyfunc.log_model, name="model", python_model=Doubles())
                found["outputs"] = error_of(
                    client.log_outputs, run.info.run_id,
                    [mlflow.entities.LoggedModelOutput(model_id="m-1", step=0)])
            runs_uri = f"runs:/{run.info.run_id}/saved"
            found["register"] = error_of(mlflow.register_model, runs_uri, "from_run")
            found["left"] = client.get_registered_model("from_run").latest_versions
            found["traces"] = error_of(client.search_traces, [run.info.experiment_id])

            from sklearn.linear_model import LinearRegression
            mlflow.sklearn.autolog(log_datasets=False)
            with mlflow.start_run() as run:
                LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
            automatic = client.get_run(run.info.run_id).data
            found["automatic"] = [automatic.params["fit_intercept"], automatic.metrics]
            """
        ),
        str(tmp_path / "model"),
    )

    assert "/logged-models failed with error code 404" in found["log_model"][1]
    assert "Response body: ''" in found["log_model"][1]
    assert "404" in found["outputs"][1]
    assert found["register"][0] == "MlflowException"
    assert found["left"] == []
    assert "403" in found["traces"][1]
    # Autologging warns only, and with the model the metrics are lost.
    assert found["automatic"] == ["True", {}]


def test_an_artifact_is_never_written_twice(azureml: AzureMl) -> None:
    found = found_by(
        azureml,
        """
        mlflow.set_experiment("immutable")
        with mlflow.start_run() as run:
            mlflow.log_text("one", "a.txt")
            found["again"] = error_of(mlflow.log_text, "two", "a.txt")
        found["run_id"] = run.info.run_id
        found["text"] = mlflow.artifacts.load_text(run.info.artifact_uri + "/a.txt")
        """,
    )

    assert found["again"][1] == (
        "UserError: Resource Conflict: ArtifactId "
        f"ExperimentRun/dcid.{found['run_id']}/a.txt already exists."
    )
    assert found["text"] == "one"


def test_a_failed_upload_leaves_an_entry_that_is_listed_and_not_there(azureml: AzureMl) -> None:
    azureml.blob_put_fails(count=1)

    found = found_by(
        azureml,
        """
        mlflow.set_experiment("lost")
        with mlflow.start_run() as run:
            found["failed"] = error_of(mlflow.log_text, "one", "a.txt")
            found["again"] = error_of(mlflow.log_text, "one", "a.txt")
        found["listed"] = [f.path for f in client.list_artifacts(run.info.run_id)]
        found["read"] = error_of(mlflow.artifacts.load_text, run.info.artifact_uri + "/a.txt")
        """,
    )

    assert "AuthorizationFailure" in found["failed"][1]
    assert "Resource Conflict" in found["again"][1]
    assert found["listed"] == ["a.txt"]
    assert "BlobNotFound" in found["read"][1]


def test_a_lost_answer_to_a_registration_takes_the_path_for_ever(azureml: AzureMl) -> None:
    found = found_by(
        azureml,
        """
        fault("lost-answer", path="artifacts/batch/metadata", count=1)
        with mlflow.start_run() as run:
            found["once"] = error_of(mlflow.log_text, "one", "a.txt")
            mlflow.log_text("two", "ab.txt")
        # The client compares how names begin, so the folder "a" has both files.
        listed = mlflow.artifacts.list_artifacts(run.info.artifact_uri + "/a")
        found["listed"] = [f.path for f in listed]
        """,
    )

    # The client's own second try meets what the first one did.
    assert "Resource Conflict" in found["once"][1]
    assert found["listed"] == ["a.txt", "ab.txt"]


def test_limits_are_refused_as_the_service_does(azureml: AzureMl) -> None:
    found = found_by(
        azureml,
        """
        mlflow.set_experiment("limits")
        store = client._tracking_client.store
        with mlflow.start_run() as run:
            run_id = run.info.run_id
            now = int(time.time() * 1000)
            metrics = [Metric("m", i, now, i) for i in range(251)]
            found["metrics"] = error_of(store.log_batch, run_id, metrics, [], [])
            store.log_batch(run_id, metrics[:250], [], [])
            params = [Param(f"p{i}", "v") for i in range(201)]
            store.log_batch(run_id, [], params[:100], [])
            store.log_batch(run_id, [], params[100:200], [])
            found["params"] = error_of(store.log_batch, run_id, [], params[200:], [])
            found["same"] = error_of(store.log_batch, run_id, [], params[:100], [])
            found["changed"] = error_of(client.log_param, run_id, "p1", "other")
            found["long_param"] = error_of(client.log_param, run_id, "p1", "v" * 501)
            tags = [RunTag(f"t{i}", "v") for i in range(51)]
            found["tags"] = error_of(store.log_batch, run_id, [], [], tags)
            found["long_tag"] = error_of(client.set_tag, run_id, "t", "v" * 1001)
        for name in ("/Users/ana@contoso.com/iris", "_iris", "a" * 257):
            found["name " + name[:5]] = error_of(client.create_experiment, name)
        """,
    )

    refused = "INVALID_PARAMETER_VALUE"
    assert refused in found["metrics"][1]
    assert "FieldName=MetricV2Dto.Value/Count, Limit=250, Size=251" in found["metrics"][1]
    assert "FieldName=Parameters, Limit=200, Size=201" in found["params"][1]
    assert found["same"][0] == ""
    assert refused in found["changed"][1]
    assert "No more than 500 characters per params Value" in found["long_param"][1]
    assert "FieldName=Tags, Limit=50, Size=51" in found["tags"][1]
    assert "FieldName=Tags.Value, Limit=1000, Size=1001" in found["long_tag"][1]
    for name in ("name /User", "name _iris", "name aaaaa"):
        assert refused in found[name][1], name
