"""MLflow experiments, as far as a bundle makes and removes them; their runs are not here."""

import time
from itertools import count
from typing import Any

from tests.support.databricks.permission import Permissions
from tests.support.databricks.route import Call, Handler, Problem, copied, missing
from tests.support.databricks.workspace_file import WorkspaceFiles, plain

_TAG_PATH = "mlflow.experimentType"


class Experiments:
    """All experiments of the workspace.

    Args:
        permissions: A new one belongs to its maker there.
        files: An experiment's folder must be there.

    Attributes:
        all: By id, as `experiments/get` shows them.
    """

    def __init__(self, permissions: Permissions, files: WorkspaceFiles) -> None:
        self._permissions = permissions
        self._files = files
        self._ids = count(3_000_000_001)
        self.all: dict[str, dict[str, Any]] = {}

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
        path = "/api/2.0/mlflow/experiments"
        return {
            f"POST {path}/create": self._create,
            f"GET {path}/get": lambda call: {"experiment": copied(self._found(call))},
            f"GET {path}/get-by-name": self._by_name,
            f"POST {path}/update": self._update,
            f"POST {path}/delete": self._delete,
            f"POST {path}/set-experiment-tag": self._tag,
        }

    def _create(self, call: Call) -> dict[str, Any]:
        name = plain(call.needed("name"))
        if self._named(name):
            raise Problem(400, "RESOURCE_ALREADY_EXISTS", f"Node named '{name}' already exists")
        folder = name.rpartition("/")[0] or "/"
        if folder not in self._files.items:
            raise missing(f"Could not find folder with path={folder}")
        made = str(next(self._ids))
        now = int(time.time() * 1000)
        self.all[made] = {
            "experiment_id": made,
            "name": name,
            "artifact_location": call.body.get("artifact_location")
            or f"dbfs:/databricks/mlflow-tracking/{made}",
            "lifecycle_stage": "active",
            "creation_time": now,
            "last_update_time": now,
            "tags": [*call.body.get("tags", []), {"key": _TAG_PATH, "value": "MLFLOW_EXPERIMENT"}],
        }
        self._permissions.own("experiments", made, call.user)
        return {"experiment_id": made}

    def _by_name(self, call: Call) -> dict[str, Any]:
        name = plain(call.needed("experiment_name"))
        found = self._named(name)
        if found is None:
            raise missing(f"Node {name} does not exist.")
        return {"experiment": copied(found)}

    def _update(self, call: Call) -> None:
        found = self._found(call)
        found["name"] = plain(call.body.get("new_name") or found["name"])
        found["last_update_time"] = int(time.time() * 1000)

    def _delete(self, call: Call) -> None:
        self._found(call)["lifecycle_stage"] = "deleted"

    def _tag(self, call: Call) -> None:
        found = self._found(call)
        tag = {"key": call.needed("key"), "value": call.body.get("value", "")}
        found["tags"] = [one for one in found["tags"] if one["key"] != tag["key"]] + [tag]

    def _named(self, name: str) -> dict[str, Any] | None:
        active = (one for one in self.all.values() if one["lifecycle_stage"] == "active")
        return next((one for one in active if one["name"] == name), None)

    def _found(self, call: Call) -> dict[str, Any]:
        experiment_id = str(call.needed("experiment_id"))
        found = self.all.get(experiment_id)
        if found is None:
            raise missing(f"No experiment with id {experiment_id} exists.")
        return found
