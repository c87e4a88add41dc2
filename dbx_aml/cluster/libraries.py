"""Wheels as cluster libraries: their installation goes on after it was asked for."""

import time
from collections.abc import Mapping
from typing import Any

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.settings_change import Say

_LIMIT_S = 900.0
_POLL_S = 3.0
_DONE = ("INSTALLED", "SKIPPED", "RESTORED")
_GONE = ("FAILED", "UNINSTALL_ON_RESTART")


def library_statuses(client: Client, cluster: Cluster) -> list[dict[str, Any]]:
    """Return the libraries of a cluster with the status of each, as the service has them."""
    found = client.call(
        "GET",
        "/api/2.0/libraries/cluster-status",
        what=f"see the libraries of cluster {cluster}",
        query={"cluster_id": cluster.cluster_id},
    )
    return list(found.get("library_statuses", []))


def wanted_libraries(
    client: Client, cluster: Cluster, libraries: tuple[Mapping[str, Any], ...]
) -> tuple[Mapping[str, Any], ...]:
    """Return those of some libraries that a cluster has, or will have at its next start."""
    rows = library_statuses(client, cluster)
    there = [row.get("library") for row in rows if row.get("status") not in _GONE]
    return tuple(one for one in libraries if one in there)


def wait_for_libraries(
    client: Client, cluster: Cluster, libraries: tuple[Mapping[str, Any], ...], say: Say
) -> None:
    """Wait until libraries are installed on a running cluster.

    Raises:
        ClusterError: One of them failed, or a quarter of an hour has passed.
    """
    deadline = time.monotonic() + _LIMIT_S
    said = -1
    while True:
        rows = [row for row in library_statuses(client, cluster) if row.get("library") in libraries]
        wrong = [row for row in rows if row.get("status") == "FAILED"]
        if wrong:
            what = next(iter(wrong[0]["library"].values()))
            why = " ".join(wrong[0].get("messages") or ["no reason given"]).split("\n")[0]
            raise ClusterError(
                f"library must install on cluster {cluster}: {what} gave {why[:300]!r}; take all "
                f"off with: dbx-aml cluster detach {cluster.cluster_id}"
            )
        done = sum(row.get("status") in _DONE for row in rows)
        if done == len(libraries):
            return
        if time.monotonic() > deadline:
            raise ClusterError(
                f"libraries must install on cluster {cluster} within {_LIMIT_S / 60:.0f} minutes: "
                f"{done} of {len(libraries)} are; look at its Libraries page"
            )
        if done != said:
            say(f"{done} of {len(libraries)} libraries are installed, waiting")
            said = done
        time.sleep(_POLL_S)
