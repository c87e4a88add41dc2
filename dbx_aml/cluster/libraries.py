"""Wheels as cluster libraries; a request returns before the library is installed."""

from collections.abc import Mapping
from typing import Any

from dbx_aml._common.deadline import poll_until
from dbx_aml._common.errors import ClusterError
from dbx_aml._common.text import one_line
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster, Reporter

_TIMEOUT_S = 900.0
_MAX_MESSAGE = 300
_INSTALLED_STATUSES = ("INSTALLED", "SKIPPED", "RESTORED")
_REMOVED_STATUSES = ("FAILED", "UNINSTALL_ON_RESTART")


def library_statuses(client: Client, cluster: Cluster) -> list[dict[str, Any]]:
    """Return a cluster's libraries and their statuses, as the libraries API has them."""
    with client.calls_to(f"see the libraries of cluster {cluster}") as databricks:
        statuses = databricks.libraries.cluster_status(cluster.cluster_id)
        return [row.as_dict() for row in statuses]


def present_libraries(
    client: Client, cluster: Cluster, libraries: tuple[Mapping[str, Any], ...]
) -> tuple[Mapping[str, Any], ...]:
    """Return the libraries of a list that the cluster has, or will have after its next start."""
    present = [
        row.get("library")
        for row in library_statuses(client, cluster)
        if row.get("status") not in _REMOVED_STATUSES
    ]
    return tuple(library for library in libraries if library in present)


def wait_for_libraries(
    client: Client,
    cluster: Cluster,
    libraries: tuple[Mapping[str, Any], ...],
    report: Reporter,
) -> None:
    """Wait until libraries are installed on a running cluster.

    Raises:
        ClusterError: A library failed, or 15 minutes have passed.
    """
    installed = -1

    def is_complete() -> bool:
        nonlocal installed
        statuses = library_statuses(client, cluster)
        rows = [row for row in statuses if row.get("library") in libraries]
        for row in rows:
            if row.get("status") == "FAILED":
                raise _failed_library(cluster, row)
        count = sum(row.get("status") in _INSTALLED_STATUSES for row in rows)
        if count != installed and count < len(libraries):
            report(f"{count} of {len(libraries)} libraries are installed, waiting")
        installed = count
        return count == len(libraries)

    if not poll_until(is_complete, _TIMEOUT_S, client.poll_interval_s):
        raise ClusterError(
            f"libraries must install on cluster {cluster} within {_TIMEOUT_S / 60:.0f} minutes: "
            f"{installed} of {len(libraries)} are installed; look at its Libraries page"
        )


def _failed_library(cluster: Cluster, row: Mapping[str, Any]) -> ClusterError:
    path = next(iter(row["library"].values()))
    message = " ".join(row.get("messages") or ["no reason given"]).split("\n")[0]
    return ClusterError(
        f"library must install on cluster {cluster}: {path} gave "
        f"{one_line(message, _MAX_MESSAGE)!r}; undo the attach with: dbx-aml cluster detach "
        f"{cluster.cluster_id}"
    )
