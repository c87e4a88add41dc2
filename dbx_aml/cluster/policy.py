"""A cluster policy that fixes the init script and the variables of a cluster."""

import json
from collections.abc import Mapping
from typing import Any

from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.settings_change import Script

_API = "/api/2.0/policies/clusters"
_HINT = "a workspace administrator makes policies; they can use 'dbx-aml cluster snippet policy'"


def policy_definition(
    script: Script | None, variables: Mapping[str, str], *, script_index: int = 0
) -> dict[str, Any]:
    """Return the definition of a policy with an init script and variables.

    Args:
        script: Init script as the clusters API names it; None for a policy without.
        variables: Environment variables by name.
        script_index: Position of the script among all init scripts of the cluster.
    """
    fixed = {f"spark_env_vars.{name}": value for name, value in variables.items()}
    for kind, storage in (script or {}).items():
        fixed[f"init_scripts.{script_index}.{kind}.destination"] = storage["destination"]
    return {name: {"type": "fixed", "value": value} for name, value in fixed.items()}


def save_policy(client: Client, cluster: Cluster, definition: Mapping[str, Any]) -> str:
    """Create or update the policy of an attached cluster; return its id.

    Raises:
        PermissionDeniedError: The caller may not make cluster policies.
    """
    body = {"name": policy_name(cluster), "definition": json.dumps(definition, indent=2)}
    operation = "make a cluster policy"
    policy_id = _find_policy(client, cluster)
    if policy_id is None:
        answer = client.call("POST", f"{_API}/create", operation=operation, body=body, hint=_HINT)
        return str(answer["policy_id"])
    body["policy_id"] = policy_id
    client.call("POST", f"{_API}/edit", operation=operation, body=body, hint=_HINT)
    return policy_id


def delete_policy(client: Client, cluster: Cluster) -> None:
    """Delete the policy of an attached cluster if it exists.

    Raises:
        PermissionDeniedError: The caller may not delete cluster policies.
    """
    policy_id = _find_policy(client, cluster)
    if policy_id is not None:
        body = {"policy_id": policy_id}
        client.call("POST", f"{_API}/delete", operation="remove a policy", body=body, hint=_HINT)


def policy_name(cluster: Cluster) -> str:
    """Return the name of an attached cluster's policy."""
    return f"dbx-aml {cluster.cluster_id}"


def _find_policy(client: Client, cluster: Cluster) -> str | None:
    answer = client.call("GET", f"{_API}/list", operation="list the cluster policies", hint=_HINT)
    ids = {policy.get("name"): policy.get("policy_id") for policy in answer.get("policies", [])}
    return ids.get(policy_name(cluster))
