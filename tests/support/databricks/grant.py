"""Who may do what: privileges in Unity Catalog, and who may write to folders and experiments."""

import time
from typing import Any

from tests.support.databricks.route import Call, Handler, missing
from tests.support.databricks.volume import Volumes
from tests.support.databricks.workspace_file import WorkspaceFiles, plain


class Grants:
    """Privileges and access lists; registered models and experiments, as far as they have some.

    Args:
        user: Who asks, and who manages their home.
        files: Whose folders have access lists.
        volumes: That privileges may be held on.

    Attributes:
        models: Owners of registered models, by full name.
        experiments: Ids by path.
        writers: Names of those who may manage a folder or an experiment, by path.
    """

    def __init__(self, user: str, files: WorkspaceFiles, volumes: Volumes) -> None:
        self._files = files
        self._volumes = volumes
        self._held: dict[tuple[str, str], dict[str, set[str]]] = {}
        self.models: dict[str, str] = {}
        self.experiments: dict[str, str] = {}
        self.writers: dict[str, list[str]] = {f"/Users/{user}": [user], "/Shared": ["users"]}

    def grant(self, kind: str, name: str, principal: str, *privileges: str) -> None:
        """Let someone hold privileges.

        Args:
            kind: "function" for a registered model, "volume" for a volume.
            name: Its full name.
            principal: A user or a group.
            privileges: For example "EXECUTE".
        """
        self._held.setdefault((kind, name), {}).setdefault(principal, set()).update(privileges)

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
        catalog = "/api/2.1/unity-catalog"
        return {
            f"GET {catalog}/models/{{name}}": self._model,
            f"GET {catalog}/effective-permissions/{{kind}}/{{name}}": self._effective,
            "GET /api/2.0/permissions/{kind}/{id}": self._access,
            "GET /api/2.0/mlflow/experiments/get-by-name": self._experiment,
        }

    def _model(self, call: Call) -> dict[str, Any]:
        name = call.parts["name"]
        if name not in self.models:
            raise missing(f"Routine or Model '{name}' does not exist.")
        return {"full_name": name, "owner": self.models[name], "created_at": int(time.time())}

    def _effective(self, call: Call) -> dict[str, Any]:
        kind, name = call.parts["kind"], call.parts["name"]
        if kind == "volume":
            self._volumes.find(name)
        elif name not in self.models:
            raise missing(f"Function '{name}' does not exist.")
        asked = call.query.get("principal")
        return {
            "privilege_assignments": [
                {
                    "principal": who,
                    "privileges": [{"privilege": one} for one in sorted(privileges)],
                }
                for who, privileges in self._held.get((kind, name), {}).items()
                if asked in (None, who)
            ]
        }

    def _access(self, call: Call) -> dict[str, Any]:
        kind, identifier = call.parts["kind"], call.parts["id"]
        known = {
            "directories": {
                str(item.object_id): path
                for path, item in self._files.items.items()
                if item.kind == "DIRECTORY"
            },
            "experiments": {one: path for path, one in self.experiments.items()},
        }.get(kind, {})
        if identifier not in known:
            raise missing(f"'{kind}/{identifier}' does not exist.")
        return {
            "object_id": f"/{kind}/{identifier}",
            "object_type": kind,
            "access_control_list": [
                {
                    "user_name" if "@" in who else "group_name": who,
                    "all_permissions": [{"permission_level": "CAN_MANAGE", "inherited": False}],
                }
                for who in (*self.writers.get(known[identifier], ()), "admins")
            ],
        }

    def _experiment(self, call: Call) -> dict[str, Any]:
        path = plain(call.needed("experiment_name"))
        if path not in self.experiments:
            raise missing(f"Node {path} does not exist.")
        return {"experiment": {"experiment_id": self.experiments[path], "name": path}}
