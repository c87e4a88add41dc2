"""The part of Unity Catalog that a bundle uses: catalogs, schemas, grants."""

import time
from typing import Any
from uuid import uuid4

from tests.support.databricks.principals import check_grantee
from tests.support.databricks.route import Call, Handler, Problem, deep_copy, page_of
from tests.support.databricks.volume import Volumes

_PATH = "/api/2.1/unity-catalog"


class Catalogs:
    """Catalogs, their schemas, and the privileges on both.

    Attributes:
        names: Names of the catalogs.
        schemas: Schemas by full name, as the API returns them.
        grants: Privileges by principal, by kind and full name of the securable.
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
        """Return the handlers of the API."""
        schemas, volumes = f"{_PATH}/schemas", f"{_PATH}/volumes"
        grants = f"{_PATH}/permissions/{{kind}}/{{name}}"
        return {
            f"GET {_PATH}/catalogs/{{name}}": self._catalog,
            f"GET {_PATH}/current-metastore-assignment": self._metastore,
            f"POST {schemas}": self._create,
            f"GET {schemas}/{{name}}": lambda call: deep_copy(
                self._schema(call.path_values["name"])
            ),
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
        name = call.path_values["name"]
        self._check_catalog(name)
        return {"name": name, "owner": "admin@contoso.com", "catalog_type": "MANAGED_CATALOG"}

    def _metastore(self, call: Call) -> dict[str, Any]:
        metastore = "5a8f5a3e-0000-4000-8000-000000000001"
        return {"metastore_id": metastore, "default_catalog_name": "main"}

    def _create(self, call: Call) -> dict[str, Any]:
        catalog = call.required("catalog_name")
        self._check_catalog(catalog)
        name = f"{catalog}.{call.required('name')}"
        if name in self.schemas:
            raise Problem(400, "SCHEMA_ALREADY_EXISTS", f"Schema '{name}' already exists")
        request_fields = call.body
        fields = {
            key: request_fields[key] for key in ("comment", "properties") if key in request_fields
        }
        self.add_schema(name, call.user, **fields)
        return deep_copy(self.schemas[name])

    def _list(self, call: Call) -> dict[str, Any]:
        catalog = call.required("catalog_name")
        rows = [schema for schema in self.schemas.values() if schema["catalog_name"] == catalog]
        return page_of(deep_copy(rows), call, size=100, key="schemas", field_of_size="max_results")

    def _change(self, call: Call) -> dict[str, Any]:
        entry = self._schema(call.path_values["name"])
        request_fields = call.body
        entry |= {
            key: request_fields[key]
            for key in ("comment", "owner", "properties")
            if key in request_fields
        }
        return deep_copy(entry)

    def _delete(self, call: Call) -> None:
        name = self._schema(call.path_values["name"])["full_name"]
        inside = [volume for volume in self._volumes.names if volume.startswith(f"{name}.")]
        if inside and call.query.get("force") != "true":
            raise Problem(400, "INVALID_STATE", f"Schema '{name}' is not empty.")
        for volume in inside:
            self._volumes.remove(volume)
        del self.schemas[name]

    def _create_volume(self, call: Call) -> dict[str, Any]:
        request_fields = call.body
        schema = f"{request_fields.get('catalog_name')}.{request_fields.get('schema_name')}"
        self._schema(schema)
        name = f"{schema}.{call.required('name')}"
        if name in self._volumes.names:
            raise Problem(400, "VOLUME_ALREADY_EXISTS", f"Volume '{name}' already exists")
        fields = {
            key: request_fields[key]
            for key in ("comment", "volume_type", "storage_location")
            if key in request_fields
        }
        return deep_copy(self._volumes.add(name, owner=call.user, **fields))

    def _change_volume(self, call: Call) -> dict[str, Any]:
        entry = self._volumes.find(call.path_values["name"])
        request_fields = call.body
        entry |= {key: request_fields[key] for key in ("comment", "owner") if key in request_fields}
        return deep_copy(entry)

    def _delete_volume(self, call: Call) -> None:
        self._volumes.remove(self._volumes.find(call.path_values["name"])["full_name"])

    def _grants(self, call: Call) -> dict[str, Any]:
        privileges = self.grants.get(
            (call.path_values["kind"].lower(), call.path_values["name"]), {}
        )
        rows = [
            {"principal": principal, "privileges": names}
            for principal, names in privileges.items()
            if names
        ]
        return {"privilege_assignments": deep_copy(rows)}

    def _grant(self, call: Call) -> dict[str, Any]:
        privileges = self.grants.setdefault(
            (call.path_values["kind"].lower(), call.path_values["name"]), {}
        )
        for change in call.body.get("changes", []):
            check_grantee(change["principal"])
            held = privileges.setdefault(change["principal"], [])
            removed = change.get("remove", [])
            held[:] = [
                privilege
                for privilege in held
                if privilege not in removed and "ALL_PRIVILEGES" not in removed
            ]
            held += [privilege for privilege in change.get("add", []) if privilege not in held]
        return self._grants(call)

    def _check_catalog(self, name: str) -> None:
        if name not in self.names:
            raise Problem(404, "CATALOG_DOES_NOT_EXIST", f"Catalog '{name}' does not exist.")

    def _schema(self, name: str) -> dict[str, Any]:
        if name not in self.schemas:
            raise Problem(404, "SCHEMA_DOES_NOT_EXIST", f"Schema '{name}' does not exist.")
        return self.schemas[name]
