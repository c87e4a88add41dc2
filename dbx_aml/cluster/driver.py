"""Read the init script's marker on the driver's disk, from outside of the cluster.

The events of a cluster only tell that its init scripts ran, and log delivery may be off. A command
on the driver can read the file. It needs a running cluster and the permission CAN ATTACH TO.
"""

from collections.abc import Mapping
from typing import Any

from dbx_aml._common.deadline import poll_until
from dbx_aml._common.errors import ClusterError, ServiceError
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.node.marker import MARKER_PATH, NodeMarker

_TIMEOUT_S = 180.0
_OPERATION = "read the init script's marker on the driver"
_PROGRAM = f"""
import os
print(open({str(MARKER_PATH)!r}).read() if os.path.exists({str(MARKER_PATH)!r}) else 'null')
"""


def read_driver_marker(client: Client, cluster: Cluster) -> NodeMarker | None:
    """Return the marker on the driver of a running cluster, or None if it does not exist.

    Raises:
        ClusterError: The marker cannot be read; the message names other places to look.
    """
    try:
        return NodeMarker.from_json(_run_on_driver(client, cluster.cluster_id, _PROGRAM))
    except (ClusterError, ServiceError) as err:
        reason = str(err)
    except ValueError:
        reason = f"{MARKER_PATH} is damaged"
    raise ClusterError(
        f"init script's marker must be readable: {reason}; look at {cluster.init_script_logs}, or "
        "run 'dbx-aml doctor' on the cluster"
    )


def failure_message(marker: NodeMarker) -> str | None:
    """Return on one line why a node is not prepared; None for a prepared node."""
    if marker.is_ok:
        return None
    return marker.reason or "its marker has no reason"


def _run_on_driver(client: Client, cluster_id: str, program: str) -> str:
    """Run a Python program on the driver and return its output."""
    answer = client.call(
        "POST",
        "/api/1.2/contexts/create",
        operation=_OPERATION,
        body={"clusterId": cluster_id, "language": "python"},
    )
    context = {"clusterId": cluster_id, "contextId": str(answer["id"])}
    try:
        _wait_for_status(client, "/api/1.2/contexts/status", context, "Running")
        answer = client.call(
            "POST",
            "/api/1.2/commands/execute",
            operation=_OPERATION,
            body={**context, "language": "python", "command": program},
        )
        command = {**context, "commandId": str(answer["id"])}
        finished = _wait_for_status(client, "/api/1.2/commands/status", command, "Finished")
    finally:
        # The number of contexts of a cluster is limited.
        client.call("POST", "/api/1.2/contexts/destroy", operation=_OPERATION, body=context)
    results = finished.get("results") or {}
    if results.get("resultType") != "text":
        raise ClusterError(f"the driver answers {str(results.get('summary'))[:200]!r}")
    return str(results.get("data", ""))


def _wait_for_status(
    client: Client, path: str, query: Mapping[str, str], target_status: str
) -> dict[str, Any]:
    """Ask for the status of a context or a command until it is the target status."""
    status = None

    def read_answer() -> dict[str, Any] | None:
        nonlocal status
        answer = client.call("GET", path, operation=_OPERATION, query=query)
        status = answer.get("status")
        if status in ("Error", "Cancelled"):
            raise ClusterError(f"the driver's status is {status}")
        return answer if status == target_status else None

    answer = poll_until(read_answer, _TIMEOUT_S, client.poll_interval_s)
    if answer is None:
        raise ClusterError(f"the driver's status is {status} after {_TIMEOUT_S:.0f} s")
    return answer
