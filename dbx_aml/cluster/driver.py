"""Read the init script's marker on the driver's disk, from outside of the cluster.

The events of a cluster only tell that its init scripts ran, and log delivery may be off. A command
on the driver can read the file. It needs a running cluster and the permission CAN ATTACH TO.
"""

from collections.abc import Callable
from typing import Any

from dbx_aml._common.deadline import poll_until
from dbx_aml._common.errors import ClusterError, ServiceError
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.node.marker import MARKER_PATH, NodeMarker

_TIMEOUT_S = 180.0
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
    from databricks.sdk.service.compute import Language, ResultType

    with client.calls_to("read the init script's marker on the driver") as databricks:
        commands = databricks.command_execution
        python = Language.PYTHON
        context_id = commands.create(cluster_id=cluster_id, language=python).context_id
        ids = (cluster_id, context_id)
        try:
            _wait_for_status(client, "Running", commands.context_status, *ids)
            command_id = commands.execute(
                cluster_id=cluster_id, context_id=context_id, language=python, command=program
            ).command_id
            finished = _wait_for_status(
                client, "Finished", commands.command_status, *ids, command_id
            )
        finally:
            # The number of contexts of a cluster is limited.
            commands.destroy(*ids)
    results = finished.results
    if results is None or results.result_type != ResultType.TEXT:
        raise ClusterError(f"the driver answers {str(results and results.summary)[:200]!r}")
    return str(results.data or "")


def _wait_for_status(
    client: Client, target_status: str, read_status: Callable[..., Any], *ids: str
) -> Any:
    """Ask for the status of a context or a command until it is the target status.

    The SDK's own waits sleep for a second or longer after each question.
    """
    status = None

    def read_answer() -> Any:
        nonlocal status
        answer = read_status(*ids)
        status = answer.status.value if answer.status else None
        if status in ("Error", "Cancelled"):
            raise ClusterError(f"the driver's status is {status}")
        return answer if status == target_status else None

    answer = poll_until(read_answer, _TIMEOUT_S, client.poll_interval_s)
    if answer is None:
        raise ClusterError(f"the driver's status is {status} after {_TIMEOUT_S:.0f} s")
    return answer
