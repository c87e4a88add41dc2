"""Jobs and their runs: what a bundle deploys, changes, runs and removes.

A run's tasks are done in the order of their dependencies by what the test gives; a run is seen as
pending and running first.
"""

import time
from collections.abc import Callable, Mapping
from itertools import count
from threading import Thread
from typing import Any

from tests.support.databricks.job_check import TaskCheck, check_settings
from tests.support.databricks.permission import Permissions
from tests.support.databricks.route import Call, Handler, Problem, copied, invalid, page_of

# A task and the values of the job's parameters; what it puts out.
RunTask = Callable[[Mapping[str, Any], Mapping[str, str]], str]
# A client gives up on an answer that takes long.
_PATIENCE_S = 5.0
_STEPS = ("PENDING", "RUNNING", "TERMINATED")


class TaskFailed(Exception):
    """What a test's task raises to fail; the text is the run's error."""


def _succeeds(task: Mapping[str, Any], parameters: Mapping[str, str]) -> str:
    return ""


class Jobs:
    """All jobs of the workspace, with their runs.

    Args:
        permissions: A new job belongs to its maker there.
        check: Whether a task finds what it needs.

    Attributes:
        all: Jobs by id, as `jobs/get` shows them.
        runs: Runs by id, as `jobs/runs/get` shows them.
        run_task: What a task does; by default nothing, and it ends well.
    """

    def __init__(self, permissions: Permissions, check: TaskCheck) -> None:
        self._permissions = permissions
        self._check = check
        self._ids = count(1_001)
        self.all: dict[int, dict[str, Any]] = {}
        self.runs: dict[int, dict[str, Any]] = {}
        self.run_task: RunTask = _succeeds
        self._outputs: dict[int, dict[str, Any]] = {}
        self._polls: dict[int, int] = {}
        self._workers: dict[int, Thread] = {}

    def output(self, run_id: int) -> str:
        """Return what a task has put out, or the error that it failed with."""
        found = self._outputs.get(run_id, {})
        return str(found.get("logs") or found.get("error") or found.get("notebook_output", ""))

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
        path = "/api/2.*/jobs"
        return {
            f"POST {path}/create": self._create,
            f"POST {path}/reset": self._reset,
            f"POST {path}/update": self._update,
            f"GET {path}/get": lambda call: copied(self._job(call)),
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
        # Where the caller says who may what; a job has it beside its settings.
        settings.pop("access_control_list", None)
        check_settings(settings)
        made = next(self._ids)
        self.all[made] = {
            "job_id": made,
            "creator_user_name": call.user,
            "run_as_user_name": call.user,
            "created_time": int(time.time() * 1000),
            "settings": _with_defaults(settings),
        }
        self._permissions.own("jobs", str(made), call.user)
        return {"job_id": made}

    def _reset(self, call: Call) -> None:
        job = self._job(call)
        check_settings(call.needed("new_settings"))
        job["settings"] = _with_defaults(call.needed("new_settings"))

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
            {key: copied(value) for key, value in job.items()}
            for job in self.all.values()
            if not name or job["settings"].get("name", "").lower() == name.lower()
        ]
        if call.query.get("expand_tasks") != "true":
            for row in rows:
                row["settings"].pop("tasks", None)
        return page_of(rows, call, size=20, key="jobs", field_of_size="limit")

    def _delete(self, call: Call) -> None:
        del self.all[self._job(call)["job_id"]]

    def _run_now(self, call: Call) -> dict[str, Any]:
        job = self._job(call)
        settings = job["settings"]
        declared = {one["name"]: one.get("default", "") for one in settings.get("parameters", [])}
        given = call.body.get("job_parameters") or {}
        unknown = set(given) - set(declared)
        if unknown:
            raise invalid(f"Job parameters {sorted(unknown)} are not defined for the job.")
        run_id = next(self._ids)
        tasks = [
            {"run_id": next(self._ids), "attempt_number": 0, **copied(task)}
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
                {"name": name, "default": default, "value": given.get(name, default)}
                for name, default in declared.items()
            ],
        }
        self._polls[run_id] = 0
        return {"run_id": run_id, "number_in_job": run_id}

    def _run(self, call: Call) -> dict[str, Any]:
        run = self._found_run(call)
        step = _STEPS[min(self._polls[run["run_id"]], 2)]
        self._polls[run["run_id"]] += 1
        if step == "TERMINATED" and "end_time" not in run:
            self._go_on(run)
            step = "RUNNING"
        shown: dict[str, Any] = copied(run)
        if "end_time" not in run:
            for one in (shown, *shown["tasks"]):
                one["state"] = {"life_cycle_state": step, "state_message": ""}
        return shown

    def _run_list(self, call: Call) -> dict[str, Any]:
        job_id = call.query.get("job_id")
        rows = [run for run in self.runs.values() if not job_id or str(run["job_id"]) == job_id]
        rows.sort(key=lambda run: -run["run_id"])
        return page_of(copied(rows), call, size=20, key="runs", field_of_size="limit")

    def _output(self, call: Call) -> dict[str, Any]:
        run_id = int(call.needed("run_id"))
        for run in self.runs.values():
            for task in run["tasks"]:
                if task["run_id"] == run_id:
                    return {"metadata": copied(task), **self._outputs.get(run_id, {})}
        raise invalid(f"Run {run_id} does not exist, or has more than one task.")

    def _cancel(self, call: Call) -> None:
        run = self._found_run(call)
        if "end_time" not in run:
            _end(run, "CANCELED", "Run cancelled.")

    def _go_on(self, run: dict[str, Any]) -> None:
        """Let a run work; after a while an answer does not wait for its end."""
        worker = self._workers.get(run["run_id"])
        if worker is None:
            worker = self._workers[run["run_id"]] = Thread(target=self._work, args=[run])
            worker.start()
        worker.join(_PATIENCE_S)

    def _work(self, run: dict[str, Any]) -> None:
        """Do the tasks, each after those that it depends on."""
        values = {one["name"]: one["value"] for one in run["job_parameters"]}
        done: dict[str, str] = {}
        waiting = list(run["tasks"])
        while waiting:
            task = next(
                one
                for one in waiting
                if all(on["task_key"] in done for on in one.get("depends_on", []))
            )
            waiting.remove(task)
            needed = [done[on["task_key"]] for on in task.get("depends_on", [])]
            is_free = all(state == "SUCCESS" for state in needed)
            done[task["task_key"]] = self._do(run, task, values) if is_free else "UPSTREAM_FAILED"
            _end(task, done[task["task_key"]], "")
        wrong = [key for key, state in done.items() if state != "SUCCESS"]
        message = f"Task {wrong[0]} failed" if wrong else ""
        _end(run, "FAILED" if wrong else "SUCCESS", message)

    def _do(self, run: Mapping[str, Any], task: dict[str, Any], values: Mapping[str, str]) -> str:
        try:
            settings = self.all[run["job_id"]]["settings"]
            wrong = self._check.why_not(task, settings, task["run_id"])
            if wrong:
                raise TaskFailed(wrong)
            said = self.run_task(copied(task), values)
        except TaskFailed as err:
            self._outputs[task["run_id"]] = {"error": str(err), "error_trace": str(err)}
            return "FAILED"
        kind = "notebook_output" if "notebook_task" in task else "logs"
        result = {"result": said, "truncated": False}
        self._outputs[task["run_id"]] = {kind: result if kind == "notebook_output" else said}
        return "SUCCESS"

    def _job(self, call: Call) -> dict[str, Any]:
        job_id = int(call.needed("job_id"))
        if job_id not in self.all:
            raise Problem(404, "RESOURCE_DOES_NOT_EXIST", f"Job {job_id} does not exist.")
        return self.all[job_id]

    def _found_run(self, call: Call) -> dict[str, Any]:
        run_id = int(call.needed("run_id"))
        if run_id not in self.runs:
            raise invalid(f"Run {run_id} does not exist.")
        return self.runs[run_id]


def _end(one: dict[str, Any], result: str, message: str) -> None:
    state = "SKIPPED" if result == "UPSTREAM_FAILED" else "TERMINATED"
    one["state"] = {"life_cycle_state": state, "result_state": result, "state_message": message}
    one["end_time"] = int(time.time() * 1000)


def _with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with what the service adds: a plan must not take it for a difference."""
    found: dict[str, Any] = copied(settings)
    found.setdefault("format", "MULTI_TASK")
    found.setdefault("email_notifications", {})
    found.setdefault("webhook_notifications", {})
    found.setdefault("timeout_seconds", 0)
    found.setdefault("max_concurrent_runs", 1)
    for task in found.get("tasks", []):
        task.setdefault("run_if", "ALL_SUCCESS")
        task.setdefault("timeout_seconds", 0)
        task.setdefault("email_notifications", {})
        if "notebook_task" in task:
            task["notebook_task"].setdefault("source", "WORKSPACE")
    for trigger in ("schedule", "trigger", "continuous"):
        if trigger in found:
            found[trigger].setdefault("pause_status", "UNPAUSED")
    return found
