"""Who may do what with jobs, experiments and other objects. Kept and shown, not enforced."""

from typing import Any

from tests.support.databricks.route import Call, Handler, copied


class Permissions:
    """Access control lists by kind and id of the object."""

    def __init__(self) -> None:
        self._lists: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def own(self, kind: str, object_id: str, user: str) -> None:
        """Give a new object to its maker."""
        self._lists[kind, object_id] = [{"user_name": user, "permission_level": "IS_OWNER"}]

    def let(self, kind: str, object_id: str, *principals: str) -> None:
        """Let these, and the admins, manage an object, and nobody else."""
        self._lists[kind, object_id] = [
            {
                "user_name" if "@" in who else "group_name": who,
                "permission_level": "CAN_MANAGE",
            }
            for who in (*principals, "admins")
        ]

    def of(self, kind: str, object_id: str) -> list[dict[str, Any]]:
        """Return who may do what, as it was given."""
        return copied(self._lists.get((kind, object_id), []))

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
        path = "/api/2.0/permissions/{kind}/{object_id}"
        return {f"GET {path}": self._get, f"PUT {path}": self._put, f"PATCH {path}": self._patch}

    def _get(self, call: Call) -> dict[str, Any]:
        kind, object_id = call.parts["kind"], call.parts["object_id"]
        shown = [
            {
                **{name: who for name, who in one.items() if name != "permission_level"},
                "all_permissions": [
                    {"permission_level": one["permission_level"], "inherited": False}
                ],
            }
            for one in self.of(kind, object_id)
        ]
        return {
            "object_id": f"/{kind}/{object_id}",
            "object_type": kind.removesuffix("s"),
            "access_control_list": shown,
        }

    def _put(self, call: Call) -> dict[str, Any]:
        """Replace the whole list."""
        key = call.parts["kind"], call.parts["object_id"]
        self._lists[key] = copied(call.body.get("access_control_list", []))
        return self._get(call)

    def _patch(self, call: Call) -> dict[str, Any]:
        """Add to the list."""
        key = call.parts["kind"], call.parts["object_id"]
        self._lists[key] = [*self.of(*key), *copied(call.body.get("access_control_list", []))]
        return self._get(call)
