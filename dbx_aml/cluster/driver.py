"""What the init script did to a cluster, read from outside: its marker, on the driver's disk.

A cluster's events only tell that scripts ran, and its logs are not always delivered. A command on
the driver is what can read a file there; it needs CAN ATTACH TO, and a cluster that runs.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.node.marker import MARKER_PATH, NodeMarker

_LIMIT_S = 180.0
_POLL_S = 1.0
_WHAT = "read the init script's marker on the driver"
_CODE = f"""
import os
print(open({str(MARKER_PATH)!r}).read() if os.path.exists({str(MARKER_PATH)!r}) else 'null')
"""


def read_outcome(client: Client, cluster: Cluster) -> NodeMarker | None:
    """Return the marker of a running cluster's driver, or None where there is none.

    Raises:
        ClusterError: It cannot be read; the message says where to look instead.
    """
    try:
        said = _on_driver(client, cluster.cluster_id, _CODE)
        content = json.loads(said)
        return None if content is None else NodeMarker.from_dict(content)
    except ClusterError as err:
        why = str(err)
    except (ValueError, TypeError, AttributeError):
        why = f"{MARKER_PATH} is no marker"
    raise ClusterError(
        f"init script's outcome must be readable: {why}; look at {logs_of(cluster)}, or run "
        "'dbx-aml doctor' on the cluster"
    )


def why_failed(marker: NodeMarker) -> str | None:
    """Return in one line why a node is not prepared; None where it is."""
    if marker.is_ok:
        return None
    return marker.reason or "it was killed, or is still at work"


def logs_of(cluster: Cluster) -> str:
    """Return where the output of a cluster's init scripts is."""
    places: Mapping[str, Any] = cluster.spec.get("cluster_log_conf") or {}
    for place in places.values():
        if place.get("destination"):
            return f"{place['destination'].rstrip('/')}/{cluster.cluster_id}/init_scripts"
    return "/databricks/init_scripts on its nodes (log delivery is not set up)"


def _on_driver(client: Client, cluster_id: str, code: str) -> str:
    """Return what a Python program prints on the driver.

    Raises:
        ClusterError: It cannot be run, or failed.
    """
    language = {"clusterId": cluster_id, "language": "python"}
    made = client.call("POST", "/api/1.2/contexts/create", what=_WHAT, body=language)
    context = {"clusterId": cluster_id, "contextId": str(made["id"])}
    try:
        _poll(client, "/api/1.2/contexts/status", context, done="Running")
        made = client.call(
            "POST",
            "/api/1.2/commands/execute",
            what=_WHAT,
            body={**context, "language": "python", "command": code},
        )
        command = {**context, "commandId": str(made["id"])}
        done = _poll(client, "/api/1.2/commands/status", command, done="Finished")
    finally:
        # A cluster takes a limited number of them.
        client.call("POST", "/api/1.2/contexts/destroy", what=_WHAT, body=context)
    results = done.get("results") or {}
    if results.get("resultType") != "text":
        raise ClusterError(f"the driver says {str(results.get('summary'))[:200]!r}")
    return str(results.get("data", ""))


def _poll(client: Client, path: str, query: Mapping[str, str], *, done: str) -> dict[str, Any]:
    deadline = time.monotonic() + _LIMIT_S
    while True:
        found = client.call("GET", path, what=_WHAT, query=query)
        if found.get("status") == done:
            return found
        if found.get("status") in ("Error", "Cancelled") or time.monotonic() > deadline:
            raise ClusterError(f"the driver is {found.get('status')}")
        time.sleep(_POLL_S)
