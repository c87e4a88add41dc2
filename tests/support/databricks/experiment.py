"""MLflow experiments without runs: the part that a bundle uses."""

import time
from itertools import count
from typing import Any

from tests.support.databricks.permission import Permissions
from tests.support.databricks.route import Call, Handler, Problem, deep_copy, resource_not_found
from tests.support.databricks.workspace_file import WorkspaceFiles, without_prefix

_TAG_PATH = "mlflow.experimentType"


class Experiments:
    """All experiments of the workspace.

    Attributes:
        experiments: Experiments by id, as `experiments/get` returns them.
    """

    def __init__(self, permissions: Permissions, files: WorkspaceFiles) -> None:
        self._permissions = permissions
        self._files = files
        self._ids = count(3_000_000_001)
        self.experiments: dict[str, dict[str, Any]] = {}

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        path = "/api/2.0/mlflow/experiments"
        return {
            f"POST {path}/create": self._create,
            f"GET {path}/get": lambda call: {
                "experiment": deep_copy(self._requested_experiment(call))
            },
            f"GET {path}/get-by-name": self._get_by_name,
            f"POST {path}/update": self._update,
            f"POST {path}/delete": self._delete,
            f"POST {path}/set-experiment-tag": self._tag,
        }

    def _create(self, call: Call) -> dict[str, Any]:
        name = without_prefix(call.required("name"))
        if self._find_by_name(name):
            raise Problem(400, "RESOURCE_ALREADY_EXISTS", f"Node named '{name}' already exists")
        folder = name.rpartition("/")[0] or "/"
        if folder not in self._files.items:
            raise resource_not_found(f"Could not find folder with path={folder}")
        experiment_id = str(next(self._ids))
        now = int(time.time() * 1000)
        self.experiments[experiment_id] = {
            "experiment_id": experiment_id,
            "name": name,
            "artifact_location": call.body.get("artifact_location")
            or f"dbfs:/databricks/mlflow-tracking/{experiment_id}",
            "lifecycle_stage": "active",
            "creation_time": now,
            "last_update_time": now,
            "tags": [*call.body.get("tags", []), {"key": _TAG_PATH, "value": "MLFLOW_EXPERIMENT"}],
        }
        self._permissions.set_owner("experiments", experiment_id, call.user)
        return {"experiment_id": experiment_id}

    def _get_by_name(self, call: Call) -> dict[str, Any]:
        name = without_prefix(call.required("experiment_name"))
        experiment = self._find_by_name(name)
        if experiment is None:
            raise resource_not_found(f"Node {name} does not exist.")
        return {"experiment": deep_copy(experiment)}

    def _update(self, call: Call) -> None:
        experiment = self._requested_experiment(call)
        experiment["name"] = without_prefix(call.body.get("new_name") or experiment["name"])
        experiment["last_update_time"] = int(time.time() * 1000)

    def _delete(self, call: Call) -> None:
        self._requested_experiment(call)["lifecycle_stage"] = "deleted"

    def _tag(self, call: Call) -> None:
        experiment = self._requested_experiment(call)
        tag = {"key": call.required("key"), "value": call.body.get("value", "")}
        experiment["tags"] = [
            *(other_tag for other_tag in experiment["tags"] if other_tag["key"] != tag["key"]),
            tag,
        ]

    def _find_by_name(self, name: str) -> dict[str, Any] | None:
        all_experiments = self.experiments.values()
        return next(
            (
                experiment
                for experiment in all_experiments
                if experiment["name"] == name and experiment["lifecycle_stage"] == "active"
            ),
            None,
        )

    def _requested_experiment(self, call: Call) -> dict[str, Any]:
        experiment_id = str(call.required("experiment_id"))
        experiment = self.experiments.get(experiment_id)
        if experiment is None:
            raise resource_not_found(f"No experiment with id {experiment_id} exists.")
        return experiment
