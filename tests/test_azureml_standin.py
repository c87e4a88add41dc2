"""The stand-in of Azure ML is what azureml-mlflow takes for the service, in good times and bad.

Every client here is the unmodified one, in a process of its own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest
import requests

from tests.support.azureml import EVERYTHING, RUNS_WRITE, AzureMl, Workspace, azureml_service
from tests.support.azureml.fixture import azureml, azureml_process

__all__ = ["azureml", "azureml_process"]

# A client that gives up early; the service's own default is about four minutes.
_FAST = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
}

_PRELUDE = """
import json, os, sys, time
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
mlflow.set_tracking_uri(sys.argv[1])
client = MlflowClient()
def error_of(call, *args, **kwargs):
    started = time.monotonic()
    try:
        call(*args, **kwargs)
    except Exception as error:
        return [type(error).__name__, str(error), round(time.monotonic() - started, 2)]
    return ["", "", round(time.monotonic() - started, 2)]
found = {}
"""
_EPILOGUE = "\nprint('FOUND' + json.dumps(found))\n"


def client(azureml: AzureMl, code: str, *arguments: str, **options: Any) -> dict[str, Any]:
    """Run code as a client and return what it put into `found`."""
    program = _PRELUDE + dedent(code) + _EPILOGUE
    done = azureml.run(program, *arguments, **options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.rpartition("FOUND")[2])
    return found


def test_a_run_with_params_metrics_and_tags_is_kept(azureml: AzureMl) -> None:
    found = client(
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

    found = client(
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
    found = client(
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
    found = client(
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


def test_an_artifact_is_never_written_twice(azureml: AzureMl) -> None:
    found = client(
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

    found = client(
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


def test_limits_are_refused_as_the_service_does(azureml: AzureMl) -> None:
    found = client(
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


@pytest.mark.parametrize("identity", ["certificate", "managed", "workload"])
def test_every_identity_of_a_job_gets_a_token(azureml: AzureMl, identity: str) -> None:
    found = client(
        azureml,
        'found["names"] = [e.name for e in client.search_experiments()]',
        identity=identity,
    )

    assert "Default" in found["names"]


def test_wrong_credentials_fail_at_once_and_as_entra_says(azureml: AzureMl) -> None:
    nobody = "11111111-1111-4111-8111-111111111111"
    found = client(
        azureml,
        f"""
        from azure.identity import EnvironmentCredential
        scope = "https://management.azure.com/.default"
        # The whole chain: a wrong secret ends it, nobody is asked to log in.
        found["secret"] = error_of(client.search_experiments)
        os.environ["AZURE_CLIENT_SECRET"] = os.environ["RIGHT"]
        tenant, os.environ["AZURE_TENANT_ID"] = os.environ["AZURE_TENANT_ID"], "{nobody}"
        found["tenant"] = error_of(EnvironmentCredential().get_token, scope)
        os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"] = tenant, "{nobody}"
        found["client"] = error_of(EnvironmentCredential().get_token, scope)
        """,
        environment={
            "AZURE_CLIENT_SECRET": "wrong",
            "RIGHT": azureml.environment()["AZURE_CLIENT_SECRET"],
        },
    )

    assert "AADSTS7000215" in found["secret"][1]
    assert found["secret"][2] < 3
    # MSAL keeps AADSTS90002 to itself.
    assert "Unable to get authority configuration" in found["tenant"][1]
    assert "AADSTS700016" in found["client"][1]


_ADMIN = """
from urllib.request import Request, urlopen
def admin(call, **value):
    body = json.dumps(value).encode()
    urlopen(Request(os.environ["ADMIN"] + call, data=body, method="POST")).read()
def fault(kind, **where):
    admin("reset")
    admin("faults", kind=kind, **where)
def retries(number, timeout_s=20):
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(number)
    os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_JITTER"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(timeout_s)
"""


def faulty_client(azureml: AzureMl, code: str, **options: Any) -> dict[str, Any]:
    """Run code as a client that switches faults on and off itself."""
    program = _ADMIN + dedent(code)
    return client(azureml, program, environment={"ADMIN": f"{azureml.proxy}/stand-in/"}, **options)


def test_each_fault_does_what_it_says(azureml: AzureMl) -> None:
    found = faulty_client(
        azureml,
        """
        experiment = client.create_experiment("faults")
        run = client.create_run(experiment).info.run_id
        def log(step):
            return error_of(client.log_metric, run, "m", step, step=step)

        retries(3)
        fault("status", status=429, retry_after_s=1, path="runs/log-metric", count=2)
        found["throttled"] = log(1)
        retries(1)
        fault("status", status=503, path="runs/log-metric")
        found["outage"] = log(2)
        fault("status", status=503, path="runs/log-metric", for_s=0)
        found["over"] = log(3)
        fault("status", status=503, host="blob")
        found["elsewhere"] = log(4)
        fault("delay", delay_s=1, count=1)
        found["slow"] = log(5)
        fault("drop", path="runs/log-metric", count=1)
        found["dropped"] = log(6)
        retries(0, timeout_s=1)
        fault("black-hole", path="runs/log-metric")
        found["black_hole"] = log(7)
        admin("reset")
        found["steps"] = [m.step for m in client.get_metric_history(run, "m")]

        retries(1)
        fault("lost-answer", path="runs/create", count=1)
        found["created"] = error_of(client.create_run, experiment, run_name="twice")
        twice = client.search_runs([experiment], "attributes.run_name = 'twice'")
        found["runs"] = len(twice)
        """,
    )

    assert found["throttled"][0] == ""
    # Retry-After is obeyed, twice.
    assert 2 <= found["throttled"][2] < 5
    assert "503" in found["outage"][1]
    assert found["over"][0] == found["elsewhere"][0] == found["slow"][0] == ""
    assert found["slow"][2] >= 1
    assert found["dropped"][0] == ""
    assert "timed out" in found["black_hole"][1]
    assert 1 <= found["black_hole"][2] < 3
    assert found["steps"] == [1, 3, 4, 5, 6]
    # The answer was lost, the run was not: the client's second try made another one.
    assert found["created"][0] == ""
    assert found["runs"] == 2


def test_a_host_in_a_black_hole_takes_connections_and_says_nothing(azureml: AzureMl) -> None:
    azureml.fault("black-hole", host="api.azureml.ms")

    found = client(
        azureml, "found['error'] = error_of(client.search_experiments)", environment=_FAST
    )

    assert "Max retries exceeded" in found["error"][1]
    # Two tries of three seconds.
    assert 5 < found["error"][2] < 15
    assert not azureml.requests(host="api.azureml.ms", path="/")


def test_tokens_end_and_can_be_taken_back(azureml: AzureMl) -> None:
    found = faulty_client(
        azureml,
        """
        retries(0)
        found["good"] = error_of(client.search_experiments)
        admin("state", revoke_tokens=True)
        # The client does not know, and sends what it has.
        found["revoked"] = [error_of(client.search_experiments) for _ in range(2)]
        admin("state", token_lifetime_s=250)
        from azureml.mlflow._internal.service_context_loader import _AzureMLServiceContextLoader
        _AzureMLServiceContextLoader._tracking_uri_to_service_context.clear()
        client = MlflowClient(sys.argv[1] + "?again")
        found["short"] = [error_of(client.search_experiments) for _ in range(3)]
        """,
    )

    assert found["good"][0] == ""
    for error in found["revoked"]:
        assert "could not be verified" in error[1]
    assert [error[0] for error in found["short"]] == ["", "", ""]
    # One for the first credential; the second one asks each time, for MSAL uses no token that has
    # less than 300 s left.
    assert len(azureml.requests(path="oauth2/v2.0/token")) >= 4


def test_what_is_denied_fails_and_shows_in_the_permissions(azureml: AzureMl) -> None:
    azureml.deny(RUNS_WRITE)

    found = client(
        azureml,
        """
        found["search"] = error_of(client.search_experiments)
        found["create"] = error_of(client.create_run, "0")
        """,
    )
    first = _management(azureml, "/providers/Microsoft.Authorization/permissions")
    azureml.deny(EVERYTHING)
    second = _management(azureml, "/providers/Microsoft.Authorization/permissions")

    assert found["search"][0] == ""
    assert "PERMISSION_DENIED" in found["create"][1]
    assert RUNS_WRITE in found["create"][1]
    assert RUNS_WRITE in first.json()["value"][0]["notActions"]
    assert second.json() == {"value": []}
    assert _management(azureml).status_code == 403


def test_a_workspace_that_does_not_exist_is_not_found(azureml: AzureMl) -> None:
    found = client(
        azureml,
        """
        for old in ("mlw-team", "rg-ml", "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42"):
            other = MlflowClient(sys.argv[1].replace(old, "other"))
            found[old] = error_of(other.search_experiments)
        """,
    )

    for error in found.values():
        assert "RESOURCE_DOES_NOT_EXIST" in error[1]
    for old, code in (
        (azureml.workspace.subscription_id, "SubscriptionNotFound"),
        (azureml.workspace.resource_group, "ResourceGroupNotFound"),
        (azureml.workspace.workspace_name, "ResourceNotFound"),
    ):
        answer = _management(azureml, replace=(old, "other"))
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == code


def test_the_management_endpoint_tells_the_tracking_uri(azureml: AzureMl) -> None:
    properties = _management(azureml).json()["properties"]

    assert properties["mlFlowTrackingUri"] == azureml.tracking_uri
    assert properties["workspaceId"] == azureml.workspace.workspace_id
    assert properties["discoveryUrl"] == "https://westeurope.api.azureml.ms/discovery"
    assert _management(azureml, token="").status_code == 401


def test_the_clouds_metadata_may_come_from_either_url(azureml: AzureMl) -> None:
    code = "found['names'] = [e.name for e in client.search_experiments()]"
    url = "https://management.azure.com/metadata/endpoints?api-version=2019-05-01"

    assert "Default" in client(azureml, code, skip_metadata=False)["names"]
    assert len(azureml.requests(path="/metadata/endpoints")) == 1
    environment = {"ARM_CLOUD_METADATA_URL": url}
    assert "Default" in client(azureml, code, environment=environment)["names"]
    assert len(azureml.requests(path="/metadata/endpoints")) == 2


def test_metrics_logged_in_the_background_are_there_in_the_end(azureml: AzureMl) -> None:
    found = client(
        azureml,
        """
        mlflow.set_experiment("background")
        with mlflow.start_run() as run:
            for step in range(5):
                mlflow.log_metric("m", step, step=step, synchronous=False)
        mlflow.flush_async_logging()
        found["steps"] = [m.step for m in client.get_metric_history(run.info.run_id, "m")]
        """,
    )

    assert found["steps"] == [0, 1, 2, 3, 4]
    assert azureml.requests(path="/preview/mlflow/runs/log-batch-async")
    assert azureml.requests(path="/preview/mlflow/runs/get-run-data-status")


def test_no_other_host_is_reached_and_no_secret_is_kept(azureml: AzureMl) -> None:
    with pytest.raises(requests.exceptions.ProxyError):
        _get(azureml, "https://example.com/")
    _management(azureml)

    entries = azureml.requests()
    assert [(entry.method, entry.host, entry.status) for entry in entries][:1] == [
        ("CONNECT", "example.com", 502)
    ]
    kept = json.dumps([vars(entry) for entry in entries])
    assert "Bearer" not in kept
    assert azureml.environment()["AZURE_CLIENT_SECRET"] not in kept


def test_two_stand_ins_are_two_worlds_and_end_with_their_starter(tmp_path: Path) -> None:
    other = Workspace(region="northeurope", workspace_name="mlw-other")
    with azureml_service(tmp_path / "one") as one:
        program = f"""
            import sys, time
            from pathlib import Path
            from tests.support.azureml import Workspace, azureml_service
            folder, workspace = Path({str(tmp_path / "two")!r}), Workspace(**{vars(other)!r})
            with azureml_service(folder, workspace) as two:
                print(two.proxy, two.tracking_uri, flush=True)
                time.sleep(600)
        """
        starter = subprocess.Popen(
            [sys.executable, "-c", dedent(program)], stdout=subprocess.PIPE, text=True
        )
        assert starter.stdout
        proxy, tracking_uri = starter.stdout.readline().split()
        assert proxy != one.proxy
        assert tracking_uri.startswith("azureml://northeurope.api.azureml.ms/")
        assert _pids_with(str(tmp_path / "two"))

        starter.send_signal(signal.SIGKILL)
        starter.wait()
        deadline = time.monotonic() + 10
        while _pids_with(str(tmp_path / "two")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _pids_with(str(tmp_path / "two"))
        assert _management(one).status_code == 200


def _pids_with(folder: str) -> list[int]:
    """Processes that have a folder as their current one, or in their command."""
    found = []
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        here = process.info["cwd"] == folder or folder in (process.info["cmdline"] or [])
        if here and process.pid != os.getpid():
            found.append(process.pid)
    return found


def _get(azureml: AzureMl, url: str, token: str = "") -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(
            url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            proxies={"https": azureml.proxy},
            verify=str(azureml.authority),
            timeout=30,
        )


def _management(
    azureml: AzureMl,
    rest: str = "",
    *,
    token: str | None = None,
    replace: tuple[str, str] = ("", ""),
) -> requests.Response:
    """Ask the management endpoint about the workspace, with a token of the managed identity."""
    environment = azureml.environment("managed")
    if token is None:
        answer = requests.get(
            environment["IDENTITY_ENDPOINT"],
            params={"resource": "https://management.azure.com", "api-version": "2019-08-01"},
            headers={"X-IDENTITY-HEADER": environment["IDENTITY_HEADER"]},
            timeout=30,
        )
        token = answer.json()["access_token"]
    path = azureml.workspace.scope + rest
    if replace[0]:
        path = path.replace(*replace)
    url = f"https://management.azure.com{path}?api-version=2024-10-01"
    return _get(azureml, url, token)
