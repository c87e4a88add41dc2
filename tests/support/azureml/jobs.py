"""Command jobs: each runs for real in a folder with its files, with the token of a job.

The environment is not built: `interpreter` names the Python whose packages a job has, all but
dbx-aml, which the job installs by itself.

Source:
    Microsoft Learn, "Azure Machine Learning REST API", version 2025-12-01; azure-ai-ml 1.34
    `_job_ops_helper.py` for states, logs and errors; seen 2026-11.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any

from tests.support.azureml.blob import Blobs
from tests.support.azureml.errors import service_error
from tests.support.azureml.resources import Refusal, Resources
from tests.support.azureml.token import Tokens
from tests.support.azureml.tracking import Tracking
from tests.support.child_process import clean_environment, start_child
from tests.support.http.messages import Request, Response, json_response, match_path

# What a test can let happen to the jobs that start from now on.
JOB_FAULTS = ("image-build", "quota", "preempted", "not-responding", "endless-preparing", "paused")
_END_STATES = ("Completed", "Failed", "Canceled", "NotResponding")
_RUN_STATUS = {"Completed": "FINISHED", "Canceled": "KILLED"}
_LOG = "user_logs/std_log.txt"
_STEP_S = 0.1
_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,254}", re.ASCII)


class _Job:
    """A job while it runs."""

    def __init__(self, name: str, resource: dict[str, Any], folder: Path, fault: str) -> None:
        self.name = name
        self.resource = resource
        self.folder = folder
        self.fault = fault
        self.experiment_id = ""
        self.error: dict[str, Any] | None = None
        self.has_log = False
        self.is_canceled = Event()
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def properties(self) -> dict[str, Any]:
        properties: dict[str, Any] = self.resource["properties"]
        return properties

    @property
    def log_blob(self) -> str:
        return f"ExperimentRun/dcid.{self.name}/{_LOG}"


class Jobs:
    """The jobs of the workspace.

    Args:
        resources: Store of all resources.
        tokens: Issues the tokens of jobs.
        tracking: Makes the MLflow runs of jobs.
        blobs: Storage account, for logs.
        folder: Folder for the files of jobs.
        read_code: Function that returns the files of a code version.

    Attributes:
        fault: One of `JOB_FAULTS`, or "".
        interpreter: Python whose packages a job has.
        client_variables: Variables that lead a client to this service.
    """

    def __init__(
        self,
        resources: Resources,
        tokens: Tokens,
        tracking: Tracking,
        blobs: Blobs,
        folder: Path,
        read_code: Callable[[str], dict[str, bytes]],
    ) -> None:
        self._resources = resources
        self._tokens = tokens
        self._tracking = tracking
        self._blobs = blobs
        self._folder = folder
        self._read_code = read_code
        self._jobs: dict[str, _Job] = {}
        self.fault = ""
        self.interpreter = sys.executable
        self.client_variables: dict[str, str] = {}

    def clear(self) -> None:
        """End and forget every job."""
        for job in list(self._jobs.values()):
            job.is_canceled.set()
            _kill(job)
        self._jobs.clear()

    def respond(self, request: Request, path: str) -> Response | None:
        """Answer a request to jobs; None for another path."""
        if match_path(r"/jobs", path) and request.method == "GET":
            return self._resources.page(request, path, is_newest_first=True)
        match = match_path(r"(/jobs/([^/]+))(/cancel)?", path)
        if not match:
            return None
        path, name = match[1], match[2]
        if match[3] and request.method == "POST":
            return self._cancel(request, path, name)
        if request.method == "GET":
            return json_response(self._resources.get(path))
        if request.method == "PUT":
            return self._put(request, path, name)
        if request.method == "DELETE":
            if self._resources.get(path)["properties"]["status"] not in _END_STATES:
                raise Refusal(409, "Conflict", f"The job '{name}' has not ended.")
            return self._resources.start(request, path, lambda: self._remove(path, name))
        return Response(status=405)

    def details(self, name: str) -> Response:
        """Answer with what the run history has of a job."""
        job = self._jobs.get(name)
        if job is None:
            return service_error(404, f"Run {name} was not found.", code="UserError")
        logs = {_LOG: self._blobs.url(job.log_blob, write=False)} if job.has_log else {}
        return json_response(
            {
                "runId": name,
                "target": job.properties["computeId"].rpartition("/")[2],
                "status": job.properties["status"],
                "error": {"error": job.error} if job.error else None,
                "logFiles": logs,
            }
        )

    def _put(self, request: Request, path: str, name: str) -> Response:
        properties = dict(request.json().get("properties") or {})
        before = self._resources.find(path)
        if before is not None:
            same = all(before["properties"].get(key) == properties[key] for key in properties)
            if not same:
                message = f"A job with the name '{name}' exists, and its fields cannot change."
                raise Refusal(400, "UserError", message)
            return json_response(before)
        self._check(name, properties)
        host = self._resources.workspace.api_host
        services = {
            kind: {"jobServiceType": kind, "endpoint": f"{scheme}://{host}/{name}", "port": None}
            for kind, scheme in (("Tracking", "azureml"), ("Studio", "https"))
        }
        properties = {"tags": {}, "properties": {}, **properties, "status": "NotStarted"}
        properties["services"] = services
        resource = self._resources.set(path, "jobs", {"properties": properties})
        job = _Job(name, resource, self._folder / name, self.fault)
        job.experiment_id = self._tracking.start_job_run(
            name,
            str(properties.get("experimentName") or "Default"),
            {**properties["tags"], "mlflow.runName": properties["displayName"]},
        )
        self._jobs[name] = job
        answer = json_response(json.loads(json.dumps(resource)), 201)
        Thread(target=self._run, args=(job,), daemon=True).start()
        return answer

    def _check(self, name: str, properties: Mapping[str, Any]) -> None:
        if not _NAME.fullmatch(name):
            raise Refusal(400, "UserError", f"Job name '{name}' is not valid.")
        if properties.get("jobType") != "Command" or not properties.get("command"):
            raise Refusal(400, "UserError", "The job must be a command job with a command.")
        scope = self._resources.workspace.scope
        for field in ("computeId", "environmentId", "codeId"):
            target = str(properties.get(field) or "")
            if self._resources.find(target.removeprefix(scope)) is None:
                raise Refusal(400, "UserError", f"{field} '{target}' does not exist.")
        for field, value in (properties.get("inputs") or {}).items():
            if value.get("jobInputType") != "literal":
                raise Refusal(400, "UserError", f"The stand-in has no data for input '{field}'.")

    def _remove(self, path: str, name: str) -> None:
        self._resources.remove(path)
        if self._jobs.pop(name, None) is not None:
            self._tracking.delete_job_run(name)

    def _cancel(self, request: Request, path: str, name: str) -> Response:
        job = self._jobs.get(name)
        if job is None:
            self._resources.get(path)
            return Response(status=404)
        if job.properties["status"] not in _END_STATES:
            job.properties["status"] = "CancelRequested"
            job.is_canceled.set()
            _kill(job)

        def has_ended() -> bool | None:
            return None if job.properties["status"] in _END_STATES else False

        return self._resources.start(request, path, has_ended)

    def _run(self, job: _Job) -> None:
        try:
            state = self._run_to_end(job)
        except Exception as error:  # noqa: BLE001 - an error of the stand-in must be visible
            state = _failed(job, "StandInFailed", repr(error))
        if job.is_canceled.is_set():
            state, job.error = "Canceled", None
        self._tracking.end_job_run(job.name, _RUN_STATUS.get(state, "FAILED"))
        job.properties["status"] = state
        shutil.rmtree(job.folder, ignore_errors=True)

    def _run_to_end(self, job: _Job) -> str:
        """Take a job through its states; return the last one."""
        self._enter(job, "Preparing")
        if job.fault == "endless-preparing":
            job.is_canceled.wait()
        if job.fault == "image-build":
            message = "Image build failed. For more details, check the log of the build."
            return _failed(job, "ImageBuildFailure", message)
        self._enter(job, "Queued")
        if job.fault == "quota":
            message = "The specified subscription has a total vCPU quota of 0 for this VM family."
            return _failed(job, "QuotaExceeded", message)
        if job.fault == "paused":
            self._enter(job, "Paused")
            job.is_canceled.wait()
        if job.is_canceled.is_set():
            return "Canceled"
        self._enter(job, "Running")
        status = self._run_command(job)
        if job.fault == "not-responding":
            return "NotResponding"
        if job.fault == "preempted":
            return _failed(job, "JobNodesLost", "The node of the job was preempted.")
        self._enter(job, "Finalizing")
        if status == 0:
            return "Completed"
        message = (
            f"Execution failed. User process 'bash' exited with status code {status}. Please "
            f"check log file '{_LOG}' for error details."
        )
        return _failed(job, "UserError", message)

    def _enter(self, job: _Job, state: str) -> None:
        if not job.is_canceled.is_set():
            job.properties["status"] = state
            job.is_canceled.wait(_STEP_S)

    def _run_command(self, job: _Job) -> int:
        code = job.folder / "code"
        for name, content in self._read_code(job.properties["codeId"]).items():
            file = code / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        command = str(job.properties["command"])
        for key, value in (job.properties.get("inputs") or {}).items():
            command = re.sub(
                rf"\$\{{\{{\s*inputs\.{key}\s*\}}\}}", lambda _, text=value["value"]: text, command
            )
        python = make_python(Path(self.interpreter), job.folder / "python")
        log = job.folder / "std_log.txt"
        job.child = start_child(
            ["bash", "-c", command], log, environment=self._variables(job, python), folder=code
        )
        while job.child.poll() is None:
            self._upload_log(job, log)
            if job.fault in ("preempted", "not-responding") and log.stat().st_size:
                _kill(job)
            time.sleep(_STEP_S)
        self._upload_log(job, log)
        return int(job.child.returncode)

    def _upload_log(self, job: _Job, log: Path) -> None:
        content = log.read_bytes()
        if content:
            self._blobs.write(job.log_blob, content)
            job.has_log = True

    def _variables(self, job: _Job, python: Path) -> dict[str, str]:
        workspace = self._resources.workspace
        token, _ = self._tokens.issue("azureml-job", "https://ml.azure.com")
        return {
            **clean_environment(),
            **self.client_variables,
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONPATH": "",
            "MLFLOW_TRACKING_URI": workspace.tracking_uri,
            "MLFLOW_TRACKING_TOKEN": token,
            "MLFLOW_RUN_ID": job.name,
            "MLFLOW_EXPERIMENT_ID": job.experiment_id,
            "MLFLOW_EXPERIMENT_NAME": str(job.properties.get("experimentName") or "Default"),
            "AZUREML_RUN_ID": job.name,
            "AZUREML_ARM_SUBSCRIPTION": workspace.subscription_id,
            "AZUREML_ARM_RESOURCEGROUP": workspace.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": workspace.workspace_name,
            **(job.properties.get("environmentVariables") or {}),
        }


def make_python(interpreter: Path, folder: Path) -> Path:
    """Make a Python with pip and all packages of an interpreter except dbx-aml; return its path."""
    subprocess.run(
        [str(interpreter), "-m", "venv", "--without-pip", str(folder)],
        check=True,
        capture_output=True,
    )
    question = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    answer = subprocess.run(
        [str(interpreter), "-c", question], check=True, capture_output=True, text=True
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    for entry in Path(answer.stdout.strip()).iterdir():
        if not re.search(r"dbx_aml|__editable__", entry.name):
            (packages / entry.name).symlink_to(entry)
    pip = folder / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec {folder / "bin" / "python"} -m pip "$@"\n')
    pip.chmod(0o755)
    return folder / "bin" / "python"


def _failed(job: _Job, code: str, message: str) -> str:
    job.error = {"code": code, "message": message, "details": []}
    return "Failed"


def _kill(job: _Job) -> None:
    if job.child is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.child.pid, signal.SIGKILL)
