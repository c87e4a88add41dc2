"""Without a credential, the first call of a process to Azure ML fails in seconds.

azureml-mlflow would open a browser, then wait 15 minutes until its device code is entered.
"""

import json
import os
from typing import Any

import pytest

from tests.support.azureml import AzureMl

pytestmark = [pytest.mark.azureml, pytest.mark.slow]
# A call that waits for a login is stopped after this time.
_STOP_AFTER_S = 30
_FIRST_CALLS = {
    "an artifact by its azureml:// address": """
from mlflow.artifacts import load_text
load_text(f"{uri}/experiments/e/runs/r/artifacts/a.txt")
""",
    "an artifact of a shared registry": """
from mlflow.artifacts import load_text
load_text("azureml://westeurope.api.azureml.ms/mlflow/v2.0/registries/shared/models/m/versions/1/f")
""",
    "a client for deployments": """
from mlflow.deployments import get_deploy_client
get_deploy_client(uri).list_endpoints()
""",
    "a read of the registry": """
from mlflow import MlflowClient
MlflowClient(registry_uri=uri).get_model_version("delay", "1")
""",
    "a model of the registry": """
import mlflow
mlflow.set_registry_uri(uri)
mlflow.pyfunc.load_model("models:/delay/1")
""",
    "a run": """
import mlflow
mlflow.start_run()
""",
    "a run in a child process": """
import subprocess, sys
code = (
    "import time, mlflow\\nstarted = time.monotonic()\\n"
    "try: mlflow.start_run()\\n"
    "except Exception as error: print(time.monotonic() - started, error)"
)
child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
seconds, _, message = child.stdout.partition(" ")
raise RuntimeError(message.strip())
""",
    "azureml-mlflow's own store": """
from azureml.mlflow.entry_point_loaders import azureml_store_builder
azureml_store_builder(uri).search_experiments()
""",
    "azureml-mlflow's own artifacts": """
from azureml.mlflow.entry_point_loaders import azureml_artifacts_builder
azureml_artifacts_builder(f"{uri}/experiments/e/runs/r/artifacts").list_artifacts()
""",
}
# Each call is the first call of a new process, which has only imported MLflow.
_PROGRAM = """
import json, os, signal, sys, time
import mlflow, mlflow.pyfunc
uri = sys.argv[1]
def stop(*_):
    raise TimeoutError("the call waits")
children = {}
for name, code in json.loads(sys.argv[2]).items():
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write_end, 1)
        signal.signal(signal.SIGALRM, stop)
        signal.alarm(int(sys.argv[3]))
        started, error, names = time.monotonic(), None, {"uri": uri}
        try:
            exec(code, names)
        except Exception as raised:
            error = f"{raised}"
        # A child process tells its own time, without its import of MLflow.
        seconds = float(names.get("seconds", time.monotonic() - started))
        print(json.dumps({"error": error, "seconds": seconds}), flush=True)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        children[name] = json.loads(pipe.read().splitlines()[-1])
    os.waitpid(child, 0)
print(json.dumps(children))
"""


@pytest.fixture(scope="module")
def first_calls(
    azureml_process: AzureMl, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Error and seconds of each first call, pages that were opened, requests for a device code."""
    azureml_process.reset()
    folder = tmp_path_factory.mktemp("browser")
    browser, page = folder / "browser", folder / "page"
    browser.write_text(f'#!/bin/sh\necho "$@" >> {page}\n')
    browser.chmod(0o755)
    program = azureml_process.run(
        _PROGRAM,
        json.dumps(_FIRST_CALLS),
        str(_STOP_AFTER_S),
        identity="none",
        environment={
            "BROWSER": str(browser),
            "HOME": str(folder),
            "PATH": os.defpath,
            "MLFLOW_TRACKING_URI": azureml_process.tracking_uri,
        },
        timeout_s=300,
    )
    assert program.returncode == 0, program.stderr[-2000:]
    return {
        **json.loads(program.stdout.splitlines()[-1]),
        "opened pages": page.read_text() if page.exists() else "",
        "device codes": azureml_process.requests(path="devicecode"),
    }


@pytest.mark.parametrize("name", _FIRST_CALLS)
def test_a_first_call_without_a_credential_says_in_one_line_what_to_set(
    first_calls: dict[str, Any], name: str
) -> None:
    error, seconds = first_calls[name]["error"], first_calls[name]["seconds"]
    assert "must give a token" in error
    assert "AZURE_CLIENT_SECRET" in error
    assert "\n" not in error
    assert seconds < _STOP_AFTER_S


def test_a_first_call_opens_no_browser_and_requests_no_device_code(
    first_calls: dict[str, Any],
) -> None:
    assert first_calls["opened pages"] == ""
    assert first_calls["device codes"] == []
