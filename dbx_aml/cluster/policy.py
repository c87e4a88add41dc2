"""A cluster policy that prepares every cluster made by it, for those who prefer one to a script."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster

_API = "/api/2.0/policies/clusters"
_HINT = "a workspace administrator makes policies; they can use 'dbx-aml cluster snippet policy'"


def policy_definition(
    script: Mapping[str, Mapping[str, Any]] | None, variables: Mapping[str, str], *, index: int = 0
) -> dict[str, Any]:
    """Return a policy's definition that fixes an init script and variables.

    Args:
        script: As the clusters API names it.
        variables: By name.
        index: Place of the script among the cluster's own.
    """
    fixed = {f"spark_env_vars.{name}": value for name, value in variables.items()}
    for kind, place in (script or {}).items():
        fixed[f"init_scripts.{index}.{kind}.destination"] = place["destination"]
    return {name: {"type": "fixed", "value": value} for name, value in fixed.items()}


def policy_libraries(wheels: Iterable[str]) -> list[dict[str, str]]:
    """Return wheels as a policy names the libraries of its clusters."""
    return [{"whl": path} for path in wheels]


def save_policy(client: Client, cluster: Cluster, definition: Mapping[str, Any]) -> str:
    """Make the policy of an attached cluster, or bring it up to date; return its id."""
    body = {"name": policy_name(cluster), "definition": json.dumps(definition, indent=2)}
    what = "make a cluster policy"
    known = _find(client, cluster)
    if known is None:
        made = client.call("POST", f"{_API}/create", what=what, body=body, hint=_HINT)
        return str(made["policy_id"])
    client.call("POST", f"{_API}/edit", what=what, body={**body, "policy_id": known}, hint=_HINT)
    return known


def remove_policy(client: Client, cluster: Cluster) -> None:
    """Remove the policy of an attached cluster, if there is one."""
    known = _find(client, cluster)
    if known is not None:
        body = {"policy_id": known}
        client.call("POST", f"{_API}/delete", what="remove a policy", body=body, hint=_HINT)


def policy_name(cluster: Cluster) -> str:
    """Return the name of an attached cluster's policy."""
    return f"dbx-aml {cluster.cluster_id}"


def _find(client: Client, cluster: Cluster) -> str | None:
    found = client.call("GET", f"{_API}/list", what="list the cluster policies", hint=_HINT)
    names = {one.get("name"): one.get("policy_id") for one in found.get("policies", [])}
    return names.get(policy_name(cluster))
