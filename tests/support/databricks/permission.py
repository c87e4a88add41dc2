"""Access lists of jobs, experiments and other objects: stored and returned, not enforced."""

from typing import Any

from tests.support.databricks.principals import check_access_list, is_application_id
from tests.support.databricks.route import Call, Handler, deep_copy


class Permissions:
    """Access lists by kind and id of the object."""

    def __init__(self) -> None:
        self._lists: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def set_owner(self, kind: str, object_id: str, user: str) -> None:
        """Make a user the owner of a new object."""
        self._lists[kind, object_id] = [{_field_of(user): user, "permission_level": "IS_OWNER"}]

    def set_managers(self, kind: str, object_id: str, *principals: str) -> None:
        """Let only these principals, and the admins, manage an object."""
        self._lists[kind, object_id] = [
            {_field_of(principal): principal, "permission_level": "CAN_MANAGE"}
            for principal in (*principals, "admins")
        ]

    def access_list(self, kind: str, object_id: str) -> list[dict[str, Any]]:
        """Return the access list of an object, as it was set."""
        return deep_copy(self._lists.get((kind, object_id), []))

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        path = "/api/2.0/permissions/{kind}/{object_id}"
        return {f"GET {path}": self._get, f"PUT {path}": self._put, f"PATCH {path}": self._patch}

    def _get(self, call: Call) -> dict[str, Any]:
        kind, object_id = call.path_values["kind"], call.path_values["object_id"]
        entries = [
            {
                **{
                    name: principal
                    for name, principal in entry.items()
                    if name != "permission_level"
                },
                "all_permissions": [
                    {"permission_level": entry["permission_level"], "inherited": False}
                ],
            }
            for entry in self.access_list(kind, object_id)
        ]
        return {
            "object_id": f"/{kind}/{object_id}",
            "object_type": kind.removesuffix("s"),
            "access_control_list": entries,
        }

    def _put(self, call: Call) -> dict[str, Any]:
        """Replace the whole list."""
        check_access_list(call.body.get("access_control_list", []))
        key = call.path_values["kind"], call.path_values["object_id"]
        self._lists[key] = deep_copy(call.body.get("access_control_list", []))
        return self._get(call)

    def _patch(self, call: Call) -> dict[str, Any]:
        """Add to the list."""
        check_access_list(call.body.get("access_control_list", []))
        key = call.path_values["kind"], call.path_values["object_id"]
        self._lists[key] = [
            *self.access_list(*key),
            *deep_copy(call.body.get("access_control_list", [])),
        ]
        return self._get(call)


def _field_of(principal: str) -> str:
    """Return the field of an access list that names a principal."""
    if is_application_id(principal):
        return "service_principal_name"
    return "user_name" if "@" in principal else "group_name"
