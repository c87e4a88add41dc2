"""Jobs and their runs: a bundle deploys, changes, runs and removes them.

A test decides the effect of a task. Tasks run in the order of their dependencies. The API reports a
run as PENDING and RUNNING first.
"""

import time
from collections.abc import Callable, Mapping
from itertools import count
from threading import Thread
from typing import Any

from tests.support.databricks.job_check import TaskCheck, check_settings
from tests.support.databricks.permission import Permissions
from tests.support.databricks.route import (
    Call,
    Handler,
    Problem,
    deep_copy,
    invalid_parameter,
    page_of,
)

# Arguments: a task and the values of the job's parameters. Result: the output of the task.
RunTask = Callable[[Mapping[str, Any], Mapping[str, str]], str]
# Seconds after which an answer no longer waits for the end of the run: clients have timeouts.
_ANSWER_AFTER_S = 5.0
_STATES = ("PENDING", "RUNNING", "TERMINATED")


class TaskFailed(Exception):
    """Raised by a test's task to fail; the text is the run's error."""


def _succeed(task: Mapping[str, Any], parameters: Mapping[str, str]) -> str:
    return ""


class Jobs:
    """All jobs of the workspace, with their runs.

    Attributes:
        jobs: Jobs by id, as `jobs/get` returns them.
        runs: Runs by id, as `jobs/runs/get` returns them.
        run_task: Effect of a task; by default none, and it succeeds.
    """

    def __init__(self, permissions: Permissions, check: TaskCheck) -> None:
        self._permissions = permissions
        self._check = check
        self._ids = count(1_001)
        self.jobs: dict[int, dict[str, Any]] = {}
        self.runs: dict[int, dict[str, Any]] = {}
        self.run_task: RunTask = _succeed
        self._outputs: dict[int, dict[str, Any]] = {}
        self._polls: dict[int, int] = {}
        self._workers: dict[int, Thread] = {}

    def output(self, run_id: int) -> str:
        """Return the output of a task, or its error."""
        output = self._outputs.get(run_id, {})
        return str(output.get("logs") or output.get("error") or output.get("notebook_output", ""))

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        path = "/api/2.*/jobs"
        return {
            f"POST {path}/create": self._create,
            f"POST {path}/reset": self._reset,
            f"POST {path}/update": self._update,
            f"GET {path}/get": lambda call: deep_copy(self._job(call)),
            f"GET {path}/list": self._list,
            f"POST {path}/delete": self._delete,
            f"POST {path}/run-now": self._run_now,
            f"GET {path}/runs/get": self._run,
            f"GET {path}/runs/list": self._run_list,
            f"GET {path}/runs/get-output": self._output,
            f"POST {path}/runs/cancel": self._cancel,
        }

    def _create(self, call: Call) -> dict[str, Any]:
        settings = call.body
        # The API takes access control beside the settings; the job does not show it.
        settings.pop("access_control_list", None)
        check_settings(settings)
        job_id = next(self._ids)
        self.jobs[job_id] = {
            "job_id": job_id,
            "creator_user_name": call.user,
            "run_as_user_name": call.user,
            "created_time": int(time.time() * 1000),
            "settings": _with_defaults(settings),
        }
        self._permissions.set_owner("jobs", str(job_id), call.user)
        return {"job_id": job_id}

    def _reset(self, call: Call) -> None:
        job = self._job(call)
        check_settings(call.required("new_settings"))
        job["settings"] = _with_defaults(call.required("new_settings"))

    def _update(self, call: Call) -> None:
        job = self._job(call)
        settings = {**job["settings"], **call.body.get("new_settings", {})}
        for name in call.body.get("fields_to_remove", []):
            settings.pop(name, None)
        check_settings(settings)
        job["settings"] = _with_defaults(settings)

    def _list(self, call: Call) -> dict[str, Any]:
        name = call.query.get("name")
        rows = [
            {key: deep_copy(value) for key, value in job.items()}
            for job in self.jobs.values()
            if not name or job["settings"].get("name", "").lower() == name.lower()
        ]
        if call.query.get("expand_tasks") != "true":
            for row in rows:
                row["settings"].pop("tasks", None)
        return page_of(rows, call, size=20, key="jobs", field_of_size="limit")

    def _delete(self, call: Call) -> None:
        del self.jobs[self._job(call)["job_id"]]

    def _run_now(self, call: Call) -> dict[str, Any]:
        job = self._job(call)
        settings = job["settings"]
        declared = {
            parameter["name"]: parameter.get("default", "")
            for parameter in settings.get("parameters", [])
        }
        values = call.body.get("job_parameters") or {}
        unknown = set(values) - set(declared)
        if unknown:
            raise invalid_parameter(
                f"Job parameters {sorted(unknown)} are not defined for the job."
            )
        run_id = next(self._ids)
        tasks = [
            {"run_id": next(self._ids), "attempt_number": 0, **deep_copy(task)}
            for task in settings.get("tasks", [])
        ]
        now = int(time.time() * 1000)
        self.runs[run_id] = {
            "job_id": job["job_id"],
            "run_id": run_id,
            "run_name": settings.get("name", ""),
            "run_page_url": f"http://{call.request.headers.get('host')}/jobs/{job['job_id']}/"
            f"runs/{run_id}",
            "run_type": "JOB_RUN",
            "format": "MULTI_TASK",
            "creator_user_name": call.user,
            "start_time": now,
            "tasks": tasks,
            "job_parameters": [
                {"name": name, "default": default, "value": values.get(name, default)}
                for name, default in declared.items()
            ],
        }
        self._polls[run_id] = 0
        return {"run_id": run_id, "number_in_job": run_id}

    def _run(self, call: Call) -> dict[str, Any]:
        run = self._found_run(call)
        step = _STATES[min(self._polls[run["run_id"]], 2)]
        self._polls[run["run_id"]] += 1
        if step == "TERMINATED" and "end_time" not in run:
            self._continue_run(run)
            step = "RUNNING"
        answer: dict[str, Any] = deep_copy(run)
        if "end_time" not in run:
            for run_or_task in (answer, *answer["tasks"]):
                run_or_task["state"] = {"life_cycle_state": step, "state_message": ""}
        return answer

    def _run_list(self, call: Call) -> dict[str, Any]:
        job_id = call.query.get("job_id")
        rows = [run for run in self.runs.values() if not job_id or str(run["job_id"]) == job_id]
        rows.sort(key=lambda run: -run["run_id"])
        return page_of(deep_copy(rows), call, size=20, key="runs", field_of_size="limit")

    def _output(self, call: Call) -> dict[str, Any]:
        run_id = int(call.required("run_id"))
        for run in self.runs.values():
            for task in run["tasks"]:
                if task["run_id"] == run_id:
                    return {"metadata": deep_copy(task), **self._outputs.get(run_id, {})}
        raise invalid_parameter(f"Run {run_id} does not exist, or has more than one task.")

    def _cancel(self, call: Call) -> None:
        run = self._found_run(call)
        if "end_time" not in run:
            _finish(run, "CANCELED", "Run cancelled.")

    def _continue_run(self, run: dict[str, Any]) -> None:
        """Start a run's tasks, and wait for their end for a bounded time."""
        worker = self._workers.get(run["run_id"])
        if worker is None:
            worker = self._workers[run["run_id"]] = Thread(target=self._run_tasks, args=[run])
            worker.start()
        worker.join(_ANSWER_AFTER_S)

    def _run_tasks(self, run: dict[str, Any]) -> None:
        """Run the tasks, each after its dependencies."""
        values = {parameter["name"]: parameter["value"] for parameter in run["job_parameters"]}
        done: dict[str, str] = {}
        waiting = list(run["tasks"])
        while waiting:
            task = next(
                task
                for task in waiting
                if all(dependency["task_key"] in done for dependency in task.get("depends_on", []))
            )
            waiting.remove(task)
            if task.get("disabled"):
                done[task["task_key"]] = "DISABLED"
                _finish(task, "DISABLED", "")
                continue
            needed = [done[dependency["task_key"]] for dependency in task.get("depends_on", [])]
            is_free = all(state == "SUCCESS" for state in needed)
            done[task["task_key"]] = (
                self._run_task(run, task, values) if is_free else "UPSTREAM_FAILED"
            )
            _finish(task, done[task["task_key"]], "")
        failed = [key for key, state in done.items() if state not in ("SUCCESS", "DISABLED")]
        message = f"Task {failed[0]} failed" if failed else ""
        _finish(run, "FAILED" if failed else "SUCCESS", message)

    def _run_task(
        self, run: Mapping[str, Any], task: dict[str, Any], values: Mapping[str, str]
    ) -> str:
        try:
            settings = self.jobs[run["job_id"]]["settings"]
            error = self._check.start_error(task, settings, task["run_id"])
            if error:
                raise TaskFailed(error)
            output = self.run_task(deep_copy(task), values)
        except TaskFailed as err:
            self._outputs[task["run_id"]] = {"error": str(err), "error_trace": str(err)}
            return "FAILED"
        kind = "notebook_output" if "notebook_task" in task else "logs"
        result = {"result": output, "truncated": False}
        self._outputs[task["run_id"]] = {kind: result if kind == "notebook_output" else output}
        return "SUCCESS"

    def _job(self, call: Call) -> dict[str, Any]:
        job_id = int(call.required("job_id"))
        if job_id not in self.jobs:
            raise Problem(404, "RESOURCE_DOES_NOT_EXIST", f"Job {job_id} does not exist.")
        return self.jobs[job_id]

    def _found_run(self, call: Call) -> dict[str, Any]:
        run_id = int(call.required("run_id"))
        if run_id not in self.runs:
            raise invalid_parameter(f"Run {run_id} does not exist.")
        return self.runs[run_id]


def _finish(run_or_task: dict[str, Any], result: str, message: str) -> None:
    state = "SKIPPED" if result in ("UPSTREAM_FAILED", "DISABLED") else "TERMINATED"
    run_or_task["state"] = {
        "life_cycle_state": state,
        "result_state": result,
        "state_message": message,
    }
    run_or_task["end_time"] = int(time.time() * 1000)


def _with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the defaults of the service, which a plan must not show as changes."""
    complete: dict[str, Any] = deep_copy(settings)
    complete.setdefault("format", "MULTI_TASK")
    complete.setdefault("email_notifications", {})
    complete.setdefault("webhook_notifications", {})
    complete.setdefault("timeout_seconds", 0)
    complete.setdefault("max_concurrent_runs", 1)
    for task in complete.get("tasks", []):
        task.setdefault("run_if", "ALL_SUCCESS")
        task.setdefault("timeout_seconds", 0)
        task.setdefault("email_notifications", {})
        if "notebook_task" in task:
            task["notebook_task"].setdefault("source", "WORKSPACE")
    for trigger in ("schedule", "trigger", "continuous"):
        if trigger in complete:
            complete[trigger].setdefault("pause_status", "UNPAUSED")
    return complete
