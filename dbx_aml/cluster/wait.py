"""Wait for a cluster, with a word at each new state."""

import time
from collections.abc import Callable
from typing import Any

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster, get_cluster

_LIMIT_S = 1800.0
_BEGIN_S = 30.0
_POLL_S = 5.0


def wait_until_settled(client: Client, cluster: Cluster, say: Callable[[str], None]) -> Cluster:
    """Return the cluster once it is RUNNING or TERMINATED: in other states it takes no change.

    Args:
        client: Who asks.
        cluster: As it was.
        say: Is told each new state.

    Raises:
        ClusterError: It has come to a state that it does not leave, or half an hour has passed.
    """
    deadline = time.monotonic() + _LIMIT_S
    said = ""
    while True:
        found = get_cluster(client, cluster.cluster_id)
        if found.state in ("RUNNING", "TERMINATED"):
            return found
        message = str(found.spec.get("state_message") or "")
        if found.state in ("ERROR", "UNKNOWN"):
            raise ClusterError(
                f"cluster {cluster} must be RUNNING or TERMINATED to be changed: it is "
                f"{found.state} ({message}); restart it on its page"
            )
        if time.monotonic() > deadline:
            raise ClusterError(
                f"cluster {cluster} must come to rest within {_LIMIT_S / 60:.0f} minutes: it is "
                f"still {found.state}; look with: dbx-aml cluster status {cluster.cluster_id}"
            )
        if found.state != said:
            say(f"{cluster.name} is {found.state}, waiting")
            said = found.state
        time.sleep(_POLL_S)


def wait_until_restarting(client: Client, cluster: Cluster) -> None:
    """Wait until a running cluster has begun the restart that was asked for.

    The service answers first; what is read too early is the state of before.

    Args:
        client: Who asks.
        cluster: As it was before.
    """
    deadline = time.monotonic() + _BEGIN_S
    while time.monotonic() < deadline:
        found = get_cluster(client, cluster.cluster_id)
        if found.state != "RUNNING" or found.restarted_at != cluster.restarted_at:
            return
        time.sleep(min(_POLL_S, 1.0))


def why_ended(cluster: Cluster) -> str:
    """Return in one line why a cluster has ended, for example an init script that failed."""
    reason: dict[str, Any] = cluster.spec.get("termination_reason") or {}
    parameters = reason.get("parameters") or {}
    details = parameters.get("databricks_error_message") or cluster.spec.get("state_message") or ""
    code = str(reason.get("code") or "no reason given")
    return f"{code}: {details}" if details else code
