"""Registered models of Unity Catalog, as far as they have owners, and privileges with inherited."""

import time
from typing import Any

from tests.support.databricks.catalog import Catalogs
from tests.support.databricks.route import Call, Handler, missing
from tests.support.databricks.volume import Volumes


class Grants:
    """Who holds what in the end.

    Args:
        catalogs: Keep the privileges.
        volumes: That privileges may be held on.

    Attributes:
        models: Owners of registered models, by full name.
    """

    def __init__(self, catalogs: Catalogs, volumes: Volumes) -> None:
        self._catalogs = catalogs
        self._volumes = volumes
        self.models: dict[str, str] = {}

    def grant(self, kind: str, name: str, principal: str, *privileges: str) -> None:
        """Let someone hold privileges.

        Args:
            kind: "function" for a registered model, "volume" for a volume.
            name: Its full name.
            principal: A user or a group.
            privileges: For example "EXECUTE".
        """
        held = self._catalogs.grants.setdefault((kind, name), {})
        held.setdefault(principal, []).extend(privileges)

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
        catalog = "/api/2.1/unity-catalog"
        return {
            f"GET {catalog}/models/{{name}}": self._model,
            f"GET {catalog}/effective-permissions/{{kind}}/{{name}}": self._effective,
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
                {"principal": who, "privileges": [{"privilege": one} for one in sorted(held)]}
                for who, held in self._catalogs.grants.get((kind, name), {}).items()
                if asked in (None, who)
            ]
        }
