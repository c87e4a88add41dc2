"""Client programs of tests: a few lines of MLflow, run against a stand-in, that report back."""

import json
from textwrap import dedent
from typing import Any

from tests.support.azureml.service_process import AzureMl

# The plain stores of azureml-mlflow, not this package's, which MLflow would find by itself.
_PLAIN = """
import sys
sys.modules["dbx_aml"] = None
"""
_PRELUDE = """
import json, os, sys, time
from urllib.request import Request, urlopen
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
def admin(call, **value):
    body = json.dumps(value).encode()
    urlopen(Request(os.environ["STAND_IN_ADMIN"] + call, data=body, method="POST")).read()
def fault(kind, **where):
    admin("reset")
    admin("faults", kind=kind, **where)
def retries(number, timeout_s=20):
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(number)
    os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_JITTER"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(timeout_s)
found = {}
"""
_IS_PLAIN = """
store = type(client._tracking_client.store)
assert store.__module__ == "azureml.mlflow._store.tracking.store", store
del store
"""
_MARK = "FOUND:"


def found_by(
    azureml: AzureMl, code: str, *arguments: str, plain: bool = True, **options: Any
) -> dict[str, Any]:
    """Run code as a client and return what it put into `found`.

    It has `mlflow`, a `client`, `found`, and these: `error_of(call, *args)` returns the error's
    class, its text and the seconds it took, both texts empty where nothing was raised;
    `fault(kind, ...)` ends all faults and switches one on; `retries(number, timeout_s)` says how
    long MLflow tries; `admin(call, ...)` is any call of the admin port.

    Args:
        azureml: The stand-in.
        code: The program's lines.
        arguments: From `sys.argv[2]` on.
        plain: With azureml-mlflow's own stores instead of this package's.
        options: As `AzureMl.run` takes them.
    """
    given = options.pop("environment", {})
    prelude = f"{_PLAIN}{_PRELUDE}{_IS_PLAIN}" if plain else _PRELUDE
    done = azureml.run(
        f"{prelude}\n{dedent(code)}\nprint('{_MARK}' + json.dumps(found))",
        *arguments,
        environment={"STAND_IN_ADMIN": f"{azureml.proxy}/stand-in/", **given},
        **options,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.rpartition(_MARK)[2])
    return found
