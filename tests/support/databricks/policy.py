"""Cluster policies: made, changed, listed; a cluster is not held to one here."""

import json
from typing import Any
from uuid import uuid4

from tests.support.databricks.route import Call, Handler, copied, invalid, missing


class Policies:
    """All cluster policies, by id."""

    def __init__(self) -> None:
        self.policies: dict[str, dict[str, Any]] = {}

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
        path = "/api/2.0/policies/clusters"
        return {
            f"POST {path}/create": self._create,
            f"POST {path}/edit": self._edit,
            f"POST {path}/delete": self._delete,
            f"GET {path}/get": lambda call: copied(self._find(call)),
            f"GET {path}/list": lambda call: {"policies": copied(list(self.policies.values()))},
        }

    def _create(self, call: Call) -> dict[str, Any]:
        name = call.needed("name")
        if any(one["name"] == name for one in self.policies.values()):
            raise invalid(f"Policy name '{name}' must be unique.")
        made = uuid4().hex[:16].upper()
        self.policies[made] = {"policy_id": made, "is_default": False, **_checked(call.body)}
        return {"policy_id": made}

    def _edit(self, call: Call) -> None:
        found = self._find(call)
        found.update(_checked(call.body))

    def _delete(self, call: Call) -> None:
        del self.policies[self._find(call)["policy_id"]]

    def _find(self, call: Call) -> dict[str, Any]:
        policy_id = call.needed("policy_id")
        if policy_id not in self.policies:
            raise missing(f"Can't find a cluster policy with id: {policy_id}.")
        return self.policies[policy_id]


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    try:
        definition = json.loads(body.get("definition") or "{}")
    except ValueError as err:
        raise invalid("Validation failed: the definition is no JSON document") from err
    for name, rule in definition.items():
        kinds = ("fixed", "forbidden", "allowlist", "blocklist", "regex", "range", "unlimited")
        if not isinstance(rule, dict) or rule.get("type") not in kinds:
            raise invalid(f"Validation failed: unknown type of policy element {name}")
    return copied(body)
