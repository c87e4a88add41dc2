"""Cluster policies: made, changed and listed, but not enforced on clusters."""

import json
from typing import Any
from uuid import uuid4

from tests.support.databricks.route import (
    Call,
    Handler,
    deep_copy,
    invalid_parameter,
    resource_not_found,
)


class Policies:
    """All cluster policies, by id."""

    def __init__(self) -> None:
        self.policies: dict[str, dict[str, Any]] = {}

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        path = "/api/2.0/policies/clusters"
        return {
            f"POST {path}/create": self._create,
            f"POST {path}/edit": self._edit,
            f"POST {path}/delete": self._delete,
            f"GET {path}/get": lambda call: deep_copy(self._find(call)),
            f"GET {path}/list": lambda call: {"policies": deep_copy(list(self.policies.values()))},
        }

    def _create(self, call: Call) -> dict[str, Any]:
        name = call.required("name")
        if any(policy["name"] == name for policy in self.policies.values()):
            raise invalid_parameter(f"Policy name '{name}' must be unique.")
        policy_id = uuid4().hex[:16].upper()
        self.policies[policy_id] = {
            "policy_id": policy_id,
            "is_default": False,
            **_checked(call.body),
        }
        return {"policy_id": policy_id}

    def _edit(self, call: Call) -> None:
        policy = self._find(call)
        policy.update(_checked(call.body))

    def _delete(self, call: Call) -> None:
        del self.policies[self._find(call)["policy_id"]]

    def _find(self, call: Call) -> dict[str, Any]:
        policy_id = call.required("policy_id")
        if policy_id not in self.policies:
            raise resource_not_found(f"Can't find a cluster policy with id: {policy_id}.")
        return self.policies[policy_id]


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    try:
        definition = json.loads(body.get("definition") or "{}")
    except ValueError as err:
        raise invalid_parameter("Validation failed: the definition is no JSON document") from err
    for name, rule in definition.items():
        kinds = ("fixed", "forbidden", "allowlist", "blocklist", "regex", "range", "unlimited")
        if not isinstance(rule, dict) or rule.get("type") not in kinds:
            raise invalid_parameter(f"Validation failed: unknown type of policy element {name}")
    return deep_copy(body)
