"""The MLflow part of the service: supported calls go to an MLflow server, other calls fail.

Only calls of MLflow 2 are known here; those that MLflow 3 added are answered as Azure ML does.
"""

import json
import time
from contextlib import nullcontext
from threading import Lock
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from tests.support.azureml.errors import tracking_error
from tests.support.azureml.identifiers import (
    experiment_guid,
    experiment_number,
    inward,
    inward_query,
    name_run,
    outward,
    run_hex,
)
from tests.support.azureml.limits import broken_limit, unsupported_filter
from tests.support.azureml.model_sources import SourceCheck
from tests.support.azureml.upstream import Upstream
from tests.support.azureml.workspace import Workspace
from tests.support.http.messages import Request, Response, json_response, match_path

_API = r"/api/[23]\.0/(?:preview/)?mlflow/(.+)"
_SUPPORTED = {
    "experiments": "create search list get get-by-name delete restore set-experiment-tag",
    "runs": "create get update delete restore search log-metric log-batch log-parameter set-tag "
    "delete-tag log-model log-inputs",
    "metrics": "get-history",
    "registered-models": "create get search list update delete get-latest-versions set-tag "
    "delete-tag",
    "model-versions": "create get search update delete transition-stage get-download-uri set-tag "
    "delete-tag",
}
_CALLS = frozenset(f"{noun}/{call}" for noun, calls in _SUPPORTED.items() for call in calls.split())
_JSON = {"Content-Type": "application/json"}
_ROOT_TAG, _PARENT_TAG = "mlflow.rootRunId", "mlflow.parentRunId"
# What MLflow 3 sends along and the service does not know.
_UNKNOWN_FIELDS = {
    "runs/log-inputs": ("models",),
    "model-versions/create": ("model_id",),
    # Azure keeps artifacts where it wants.
    "experiments/create": ("artifact_location",),
}


class Tracking:
    """Runs, metrics and the model registry of the workspace."""

    def __init__(self, workspace: Workspace, server: Upstream) -> None:
        self._workspace = workspace
        self._server = server
        # Parameters are counted before they are written, one call at a time.
        self._counting = Lock()

    def respond(self, request: Request, path: str, source_check: SourceCheck) -> Response:
        """Answer under /mlflow/v2.0; `path` is the path below the workspace."""
        match = match_path(_API, path)
        call = match[1] if match else ""
        if call.split("/")[0] == "traces":
            return Response(status=403)
        if call == "runs/log-batch-async":
            return self._log_batch_async(request)
        if call == "runs/get-run-data-status":
            return json_response({"is_complete": True})
        # Azure ML lacks logged-models, aliases, runs/outputs, the rename of a model or experiment.
        if call not in _CALLS:
            return Response(status=404)
        body = request.json() if request.body else {}
        if call == "model-versions/create":
            refused = source_check.problem(str(body.get("source", "")))
            if refused:
                return refused
        if call == "registered-models/search":
            refused = unsupported_filter(urlsplit(request.target).query)
            if refused:
                return refused
        return self._call(request, call, body)

    def run_exists(self, experiment: str, run: str) -> bool:
        """Tell whether an experiment, by its GUID or its name, has a run."""
        info = self._run(run_hex(run)).get("info", {})
        if not info:
            return False
        if info["experiment_id"] == experiment_number(experiment):
            return True
        got = self._get("experiments/get", f"experiment_id={info['experiment_id']}")
        return bool(got.get("experiment", {}).get("name") == experiment)

    def start_job_run(self, job: str, experiment: str, job_tags: dict[str, str]) -> str:
        """Make the run of a job, with the job's tags; return the GUID of its experiment."""
        query = urlencode({"experiment_name": experiment})
        found = self._get("experiments/get-by-name", query).get("experiment")
        number = str((found or self._post("experiments/create", name=experiment))["experiment_id"])
        tags = [{"key": key, "value": value} for key, value in {**job_tags, _ROOT_TAG: job}.items()]
        run = self._post(
            "runs/create", experiment_id=number, start_time=int(time.time() * 1000), tags=tags
        )
        name_run(run["run"]["info"]["run_id"], job)
        return experiment_guid(number)

    def end_job_run(self, job: str, status: str) -> None:
        """End the run of a job."""
        end_time = int(time.time() * 1000)
        self._post("runs/update", run_id=run_hex(job), status=status, end_time=end_time)

    def delete_job_run(self, job: str) -> None:
        """Delete the run of a job, as the service does with the job."""
        self._post("runs/delete", run_id=run_hex(job))

    def source_of_version(self, name: str, version: str) -> str | None:
        """Return the source of a model version, None if there is no such version."""
        query = urlencode({"name": name, "version": version})
        got = self._get("model-versions/get", query).get("model_version", {})
        return str(got["source"]) if got.get("source") else None

    def _call(self, request: Request, call: str, body: dict[str, Any]) -> Response:
        body = {key: body[key] for key in body if key not in _UNKNOWN_FIELDS.get(call, ())}
        with self._counting if _logs_params(call, body) else nullcontext():
            refusal = broken_limit(call, body, self._params_before(call, body))
            if refusal:
                return refusal
            query = inward_query(urlsplit(request.target).query)
            answer = self._server.send(
                request.method,
                f"/api/2.0/mlflow/{call}?{query}",
                _JSON,
                json.dumps(inward(body)).encode() if request.body else None,
            )
        return self._translate_response(call, body, answer)

    def _translate_response(self, call: str, body: dict[str, Any], response: Response) -> Response:
        try:
            value = json.loads(response.body)
        except ValueError:
            return tracking_error(response.status, response.body.decode(errors="replace"))
        if response.status != 200:
            return tracking_error(
                response.status, str(value.get("message")), error_code=value.get("error_code")
            )
        if call == "runs/create":
            self._tag_root(value["run"], body)
        return json_response(self._with_locations(outward(value)))

    def _log_batch_async(self, request: Request) -> Response:
        """Write at once and hand out a number: the client asks later whether it is done."""
        answer = self._call(request, "runs/log-batch", request.json())
        metrics = request.json().get("metrics")
        if answer.status != 200:
            return answer
        return json_response({"batch_tracking_id": str(uuid4()) if metrics else ""})

    def _params_before(self, call: str, body: dict[str, Any]) -> frozenset[str]:
        if not _logs_params(call, body):
            return frozenset()
        run = self._run(run_hex(str(body.get("run_id") or body.get("run_uuid"))))
        return frozenset(param["key"] for param in run.get("data", {}).get("params", []))

    def _tag_root(self, run: dict[str, Any], body: dict[str, Any]) -> None:
        """Name the topmost run, as the service does for every run that it creates."""
        tags = {tag["key"]: tag["value"] for tag in body.get("tags", [])}
        root = outward(run["info"]["run_id"], "run_id")
        if _PARENT_TAG in tags:
            root = tags[_PARENT_TAG]
            parent = self._run(run_hex(root)).get("data", {}).get("tags", [])
            root = {tag["key"]: tag["value"] for tag in parent}.get(_ROOT_TAG, root)
        tag = {"run_id": run["info"]["run_id"], "key": _ROOT_TAG, "value": root}
        self._server.send("POST", "/api/2.0/mlflow/runs/set-tag", _JSON, json.dumps(tag).encode())
        run["data"].setdefault("tags", []).append({"key": _ROOT_TAG, "value": root})

    def _with_locations(self, value: Any) -> Any:
        """Put Azure's artifact URI where the MLflow server wrote its own."""
        if isinstance(value, list):
            return [self._with_locations(item) for item in value]
        if not isinstance(value, dict):
            return value
        changed = {key: self._with_locations(item) for key, item in value.items()}
        if "artifact_location" in changed:
            changed["artifact_location"] = ""
        if "artifact_uri" in changed and "experiment_id" in changed:
            changed["artifact_uri"] = (
                f"azureml://{self._workspace.api_host}/mlflow/v2.0{self._workspace.scope}"
                f"/experiments/{changed['experiment_id']}/runs/{changed['run_id']}/artifacts"
            )
        return changed

    def _run(self, run_id: str) -> dict[str, Any]:
        run: dict[str, Any] = self._get("runs/get", f"run_id={run_id}").get("run", {})
        return run

    def _post(self, call: str, **body: Any) -> dict[str, Any]:
        content = json.dumps(body).encode()
        answer = self._server.send("POST", f"/api/2.0/mlflow/{call}", _JSON, content)
        got: dict[str, Any] = json.loads(answer.body)
        return got

    def _get(self, call: str, query: str) -> dict[str, Any]:
        answer = self._server.send("GET", f"/api/2.0/mlflow/{call}?{query}", {}, None)
        got: dict[str, Any] = json.loads(answer.body)
        return got


def _logs_params(call: str, body: dict[str, Any]) -> bool:
    return call == "runs/log-parameter" or (call == "runs/log-batch" and "params" in body)
