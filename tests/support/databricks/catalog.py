"""Unity Catalog as far as a bundle needs it: catalogs, schemas, grants."""

import time
from typing import Any
from uuid import uuid4

from tests.support.databricks.route import Call, Handler, Problem, copied, page_of
from tests.support.databricks.volume import Volumes

_PATH = "/api/2.1/unity-catalog"


class Catalogs:
    """Catalogs, the schemas in them, and who may do what with them.

    Args:
        volumes: Are in schemas; their module knows the rest of them.

    Attributes:
        names: Names of the catalogs that there are.
        schemas: By full name, as the service shows them.
        grants: Privileges by principal, by kind and full name of the thing.
    """

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self.names = {"main"}
        self.schemas: dict[str, dict[str, Any]] = {}
        self.grants: dict[tuple[str, str], dict[str, list[str]]] = {}

    def add_schema(self, name: str, owner: str = "admin@contoso.com", **fields: Any) -> None:
        """Make a schema, for example "main.ml"."""
        catalog, _, schema = name.partition(".")
        now = int(time.time() * 1000)
        self.schemas[name] = {
            "catalog_name": catalog,
            "name": schema,
            "full_name": name,
            "owner": owner,
            "schema_id": str(uuid4()),
            "catalog_type": "MANAGED_CATALOG",
            "created_at": now,
            "updated_at": now,
            **fields,
        }

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
        schemas, volumes = f"{_PATH}/schemas", f"{_PATH}/volumes"
        grants = f"{_PATH}/permissions/{{kind}}/{{name}}"
        return {
            f"GET {_PATH}/catalogs/{{name}}": self._catalog,
            f"GET {_PATH}/current-metastore-assignment": self._metastore,
            f"POST {schemas}": self._create,
            f"GET {schemas}/{{name}}": lambda call: copied(self._schema(call.parts["name"])),
            f"GET {schemas}": self._list,
            f"PATCH {schemas}/{{name}}": self._change,
            f"DELETE {schemas}/{{name}}": self._delete,
            f"POST {volumes}": self._create_volume,
            f"PATCH {volumes}/{{name}}": self._change_volume,
            f"DELETE {volumes}/{{name}}": self._delete_volume,
            f"GET {grants}": self._grants,
            f"PATCH {grants}": self._grant,
        }

    def _catalog(self, call: Call) -> dict[str, Any]:
        name = call.parts["name"]
        self._check_catalog(name)
        return {"name": name, "owner": "admin@contoso.com", "catalog_type": "MANAGED_CATALOG"}

    def _metastore(self, call: Call) -> dict[str, Any]:
        metastore = "5a8f5a3e-0000-4000-8000-000000000001"
        return {"metastore_id": metastore, "default_catalog_name": "main"}

    def _create(self, call: Call) -> dict[str, Any]:
        catalog = call.needed("catalog_name")
        self._check_catalog(catalog)
        name = f"{catalog}.{call.needed('name')}"
        if name in self.schemas:
            raise Problem(400, "SCHEMA_ALREADY_EXISTS", f"Schema '{name}' already exists")
        given = call.body
        fields = {key: given[key] for key in ("comment", "properties") if key in given}
        self.add_schema(name, call.user, **fields)
        return copied(self.schemas[name])

    def _list(self, call: Call) -> dict[str, Any]:
        catalog = call.needed("catalog_name")
        rows = [one for one in self.schemas.values() if one["catalog_name"] == catalog]
        return page_of(copied(rows), call, size=100, key="schemas", field_of_size="max_results")

    def _change(self, call: Call) -> dict[str, Any]:
        found = self._schema(call.parts["name"])
        given = call.body
        found |= {key: given[key] for key in ("comment", "owner", "properties") if key in given}
        return copied(found)

    def _delete(self, call: Call) -> None:
        name = self._schema(call.parts["name"])["full_name"]
        inside = [one for one in self._volumes.names if one.startswith(f"{name}.")]
        if inside and call.query.get("force") != "true":
            raise Problem(400, "INVALID_STATE", f"Schema '{name}' is not empty.")
        for one in inside:
            self._volumes.remove(one)
        del self.schemas[name]

    def _create_volume(self, call: Call) -> dict[str, Any]:
        given = call.body
        schema = f"{given.get('catalog_name')}.{given.get('schema_name')}"
        self._schema(schema)
        name = f"{schema}.{call.needed('name')}"
        if name in self._volumes.names:
            raise Problem(400, "VOLUME_ALREADY_EXISTS", f"Volume '{name}' already exists")
        fields = {
            key: given[key]
            for key in ("comment", "volume_type", "storage_location")
            if key in given
        }
        return copied(self._volumes.add(name, owner=call.user, **fields))

    def _change_volume(self, call: Call) -> dict[str, Any]:
        found = self._volumes.find(call.parts["name"])
        given = call.body
        found |= {key: given[key] for key in ("comment", "owner") if key in given}
        return copied(found)

    def _delete_volume(self, call: Call) -> None:
        self._volumes.remove(self._volumes.find(call.parts["name"])["full_name"])

    def _grants(self, call: Call) -> dict[str, Any]:
        given = self.grants.get((call.parts["kind"].lower(), call.parts["name"]), {})
        rows = [{"principal": who, "privileges": what} for who, what in given.items() if what]
        return {"privilege_assignments": copied(rows)}

    def _grant(self, call: Call) -> dict[str, Any]:
        given = self.grants.setdefault((call.parts["kind"].lower(), call.parts["name"]), {})
        for change in call.body.get("changes", []):
            has = given.setdefault(change["principal"], [])
            gone = change.get("remove", [])
            has[:] = [one for one in has if one not in gone and "ALL_PRIVILEGES" not in gone]
            has += [one for one in change.get("add", []) if one not in has]
        return self._grants(call)

    def _check_catalog(self, name: str) -> None:
        if name not in self.names:
            raise Problem(404, "CATALOG_DOES_NOT_EXIST", f"Catalog '{name}' does not exist.")

    def _schema(self, name: str) -> dict[str, Any]:
        if name not in self.schemas:
            raise Problem(404, "SCHEMA_DOES_NOT_EXIST", f"Schema '{name}' does not exist.")
        return self.schemas[name]
