"""Outages of Azure ML: waited for as long as the user says, then one clear error, nothing twice."""

from typing import Any

import pytest

from tests.support.azureml import AzureMl
from tests.support.azureml.program import found_by

pytestmark = [pytest.mark.azureml, pytest.mark.slow]


def _ours(azureml: AzureMl, code: str, *arguments: str, **options: Any) -> dict[str, Any]:
    return found_by(azureml, code, *arguments, plain=False, **options)


def test_a_throttled_call_waits_as_the_service_says_and_an_outage_ends_in_one_error(
    azureml: AzureMl,
) -> None:
    found = _ours(
        azureml,
        """
        experiment = client.create_experiment("outages")
        run = client.create_run(experiment).info.run_id
        def log(step):
            return error_of(client.log_metric, run, "m", step, step=step)
        fault("status", status=429, retry_after_s=2, path="runs/log-metric", count=2)
        found["throttled"] = log(1)
        fault("status", status=503, path="runs/log-metric", for_s=3)
        found["short"] = log(2)
        fault("drop", path="runs/log-metric", count=1)
        found["dropped"] = log(3)
        os.environ["DBX_AML_RETRY_TIMEOUT_S"] = "3"
        fault("status", status=503, path="runs/log-metric")
        found["long"] = log(4)
        fault("status", status=429, retry_after_s=60, path="runs/log-metric")
        found["too long"] = log(5)
        fault("black-hole", path="runs/log-metric")
        found["black hole"] = log(6)
        os.environ["DBX_AML_RETRY_TIMEOUT_S"] = "soon"
        found["words"] = log(7)
        os.environ["DBX_AML_RETRY_TIMEOUT_S"] = "60"
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
        fault("status", status=503, path="runs/log-metric")
        found["counted"] = log(8)
        admin("reset")
        found["steps"] = [m.step for m in client.get_metric_history(run, "m")]
        found["refused"] = error_of(client.log_metric, "0" * 36, "m", 1)
        """,
    )

    assert found["throttled"][0] == found["short"][0] == found["dropped"][0] == ""
    assert 4 <= found["throttled"][2] < 7
    assert "within 3 s at POST runs/log-metric: answered 503" in found["long"][1]
    assert "wait longer with DBX_AML_RETRY_TIMEOUT_S" in found["long"][1]
    assert found["long"][2] < 4
    assert found["too long"][2] < 1
    assert "answered 429" in found["too long"][1]
    assert found["black hole"][0] == "MlflowException"
    assert found["black hole"][2] < 6
    assert "DBX_AML_RETRY_TIMEOUT_S must be a number of seconds: got 'soon'" in found["words"][1]
    assert "failed 2 times" in found["counted"][1]
    assert found["steps"] == [1, 2, 3]
    # What is wrong for good is said at once.
    assert found["refused"][2] < 2


def test_a_run_whose_answer_was_lost_is_not_made_twice(azureml: AzureMl) -> None:
    found = _ours(
        azureml,
        """
        experiment = client.create_experiment("once")
        fault("lost-answer", path="runs/create", count=1)
        run = client.create_run(experiment, run_name="lost")
        fault("drop", path="runs/create", count=2)
        client.create_run(experiment, run_name="dropped")
        fault("status", status=500, path="runs/create", count=1)
        client.create_run(experiment, run_name="failed")
        runs = client.search_runs([experiment])
        found["names"] = sorted(r.info.run_name for r in runs)
        found["same"] = run.info.run_id in [r.info.run_id for r in runs]
        found["tags"] = [key for r in runs for key in r.data.tags if key.startswith("dbx_aml")]
        fault("lost-answer", path="experiments/create", count=1)
        found["experiment"] = mlflow.set_experiment("lost experiment").name
        """,
    )

    assert found["names"] == ["dropped", "failed", "lost"]
    assert found["same"]
    assert found["tags"] == []
    assert found["experiment"] == "lost experiment"


def test_a_version_whose_answer_was_lost_is_not_made_twice(azureml: AzureMl) -> None:
    found = _ours(
        azureml,
        """
        class Doubles(mlflow.pyfunc.PythonModel):
            def predict(self, context, model_input, params=None):
                return model_input * 2
        mlflow.set_experiment("versions")
        with mlflow.start_run():
            info = mlflow.pyfunc.log_model(
                name="m", python_model=Doubles(), pip_requirements=[])
        fault("lost-answer", path="model-versions/create", count=1)
        version = mlflow.register_model(info.model_uri, "once")
        found["version"] = str(version.version)
        found["all"] = [str(v.version) for v in client.search_model_versions("name='once'")]
        found["tags"] = client.get_model_version("once", "1").tags
        """,
    )

    assert found == {"version": "1", "all": ["1"], "tags": {}}


def test_an_error_shows_no_token_and_no_signature(azureml: AzureMl) -> None:
    done = azureml.run(
        """
import mlflow, sys, traceback
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("secrets")
run = mlflow.start_run()
for kind in ("drop", "status"):
    from urllib.request import Request, urlopen
    import json, os
    body = json.dumps({"kind": kind, "status": 403, "host": sys.argv[2]}).encode()
    urlopen(Request(os.environ["ADMIN"] + "reset", data=b"{}", method="POST")).read()
    urlopen(Request(os.environ["ADMIN"] + "faults", data=body, method="POST")).read()
    for call in (lambda: mlflow.log_text("a", kind + ".txt"), lambda: mlflow.log_metric("m", 1)):
        try:
            call()
        except Exception:
            traceback.print_exc()
urlopen(Request(os.environ["ADMIN"] + "reset", data=b"{}", method="POST")).read()
""",
        ".",
        environment={"DBX_AML_RETRY_TIMEOUT_S": "2", "ADMIN": f"{azureml.proxy}/stand-in/"},
    )
    azureml.fault("drop", host="blob")
    on_blob = azureml.run(
        """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("secrets")
mlflow.log_text("a", "a.txt")
""",
        environment={"DBX_AML_RETRY_TIMEOUT_S": "2"},
    )

    said = done.stdout + done.stderr + on_blob.stdout + on_blob.stderr
    assert "Azure ML failed" in done.stderr
    assert "PUT a.txt" in on_blob.stderr
    for secret in ("Bearer", "sig=", azureml.environment()["AZURE_CLIENT_SECRET"], "eyJ"):
        assert secret not in said


def test_a_token_that_ends_is_renewed_during_a_run(azureml: AzureMl) -> None:
    azureml.token_lifetime(2)

    found = _ours(
        azureml,
        """
        mlflow.set_experiment("token")
        with mlflow.start_run() as run:
            for step in range(8):
                mlflow.log_metric("m", step, step=step)
                time.sleep(0.5)
            mlflow.log_text("hello", "a.txt")
        found["steps"] = len(client.get_metric_history(run.info.run_id, "m"))
        """,
    )

    assert found["steps"] == 8
    assert all(entry.status != 401 for entry in azureml.requests())
