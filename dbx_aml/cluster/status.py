"""What an attached cluster is: its settings against the record, what the script did, libraries."""

from dataclasses import dataclass, field
from typing import Any

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.attach_record import Record, attached_path, read_record
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.driver import read_outcome, why_failed
from dbx_aml.cluster.folder import Folder
from dbx_aml.cluster.libraries import library_statuses
from dbx_aml.cluster.node.marker import NodeMarker
from dbx_aml.cluster.wait import why_ended


@dataclass(frozen=True, kw_only=True)
class Status:
    """A cluster, and what of us is on it.

    Args:
        cluster: As it is.
        path: Folder that it reads from; None where it is not attached.
        record: What was attached; None where there is no record, or the caller may not read it.
        marker: What the init script did; None where there is none.
        libraries: Status by path of each library of ours.
        problems: What is wrong or cannot be known, one line each.
    """

    cluster: Cluster
    path: str | None
    record: Record | None = None
    marker: NodeMarker | None = None
    libraries: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        record = self.record
        return {
            "cluster_id": self.cluster.cluster_id,
            "cluster_name": self.cluster.name,
            "state": self.cluster.state,
            "access_mode": self.cluster.access_mode,
            "spark_version": self.cluster.spec.get("spark_version"),
            "is_attached": self.path is not None,
            "path": self.path,
            "method": record.method if record else None,
            "version": record.version if record else None,
            "variables": dict(record.variables) if record else {},
            "libraries": self.libraries,
            "marker": self.marker.status if self.marker else None,
            "problems": list(self.problems),
        }


def cluster_status(client: Client, cluster: Cluster) -> Status:
    """Return what a cluster is; only reads.

    Raises:
        ClusterError: The service does not answer.
    """
    path = attached_path(cluster)
    if path is None:
        return Status(cluster=cluster, path=None)
    problems = []
    try:
        record = read_record(Folder(client, path))
        if record is None:
            problems.append(f"there is no record in {path}: detach cannot know what was before")
    except ClusterError as err:
        record = None
        problems.append(str(err))
    if record:
        now = cluster.variables
        problems += [
            f"variable {name} is not as attached: somebody has changed it"
            for name, value in record.variables.items()
            if now.get(name) != value
        ]
    if cluster.state == "TERMINATED" and cluster.spec.get("termination_reason"):
        reason = why_ended(cluster)
        if "INIT_SCRIPT" in reason:
            problems.append(reason)
    libraries = {}
    ours = record.libraries if record else ()
    if ours:
        for row in library_statuses(client, cluster):
            if row.get("library") in ours:
                libraries[next(iter(row["library"].values()))] = str(row.get("status"))
        problems += [f"{path} is {one}" for path, one in libraries.items() if one == "FAILED"]
    marker = None
    if cluster.state == "RUNNING" and not (record and record.script is None):
        try:
            marker = read_outcome(client, cluster)
            if marker is None:
                problems.append("its driver has no marker: the init script has not run; restart it")
            elif why_failed(marker):
                problems.append(f"init script failed: {why_failed(marker)}")
        except ClusterError as err:
            problems.append(str(err))
    return Status(
        cluster=cluster,
        path=path,
        record=record,
        marker=marker,
        libraries=libraries,
        problems=tuple(problems),
    )
