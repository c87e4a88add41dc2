"""Owners of registered models in Unity Catalog, and effective privileges."""

import time
from typing import Any

from tests.support.databricks.catalog import Catalogs
from tests.support.databricks.principals import check_grantee
from tests.support.databricks.route import Call, Handler, resource_not_found
from tests.support.databricks.volume import Volumes


class Grants:
    """The effective privileges on registered models and volumes.

    Attributes:
        models: Owners of registered models, by full name.
    """

    def __init__(self, catalogs: Catalogs, volumes: Volumes) -> None:
        self._catalogs = catalogs
        self._volumes = volumes
        self.models: dict[str, str] = {}

    def grant(self, kind: str, name: str, principal: str, *privileges: str) -> None:
        """Give privileges to a principal.

        Args:
            kind: "function" for a registered model, "volume" for a volume.
            name: Full name of the model or volume.
            principal: User, or group of the account.
            privileges: Names of privileges, for example "EXECUTE".
        """
        check_grantee(principal)
        held = self._catalogs.grants.setdefault((kind, name), {})
        held.setdefault(principal, []).extend(privileges)

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        catalog = "/api/2.1/unity-catalog"
        return {
            f"GET {catalog}/models/{{name}}": self._model,
            f"GET {catalog}/effective-permissions/{{kind}}/{{name}}": self._effective,
        }

    def _model(self, call: Call) -> dict[str, Any]:
        name = call.path_values["name"]
        if name not in self.models:
            raise resource_not_found(f"Routine or Model '{name}' does not exist.")
        return {"full_name": name, "owner": self.models[name], "created_at": int(time.time())}

    def _effective(self, call: Call) -> dict[str, Any]:
        kind, name = call.path_values["kind"], call.path_values["name"]
        if kind == "volume":
            self._volumes.find(name)
        elif name not in self.models:
            raise resource_not_found(f"Function '{name}' does not exist.")
        requested = call.query.get("principal")
        return {
            "privilege_assignments": [
                {
                    "principal": principal,
                    "privileges": [{"privilege": privilege} for privilege in sorted(held)],
                }
                for principal, held in self._catalogs.grants.get((kind, name), {}).items()
                if requested in (None, principal)
            ]
        }
