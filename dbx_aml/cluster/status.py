"""The status of an attached cluster: its settings, its record, its libraries and its marker."""

from dataclasses import dataclass, field
from typing import Any

from dbx_aml._common.errors import ClusterError, ServiceError
from dbx_aml.cluster.attach_record import AttachRecord, attached_folder, read_record
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.driver import failure_message, read_driver_marker
from dbx_aml.cluster.folder import ClusterFolder
from dbx_aml.cluster.libraries import library_statuses
from dbx_aml.cluster.node.marker import NodeMarker


@dataclass(frozen=True, kw_only=True)
class ClusterStatus:
    """A cluster and the state of its attach.

    Args:
        cluster: Cluster at the time of reading.
        folder: Path of the folder that the cluster reads from; None if it is not attached.
        record: Record of the attach; None if it does not exist or cannot be read.
        marker: Marker of the init script on the driver; None if it was not read.
        libraries: Status of each of our libraries, by the path of its wheel.
        problems: Everything that is wrong or could not be read, one line each.
    """

    cluster: Cluster
    folder: str | None
    record: AttachRecord | None = None
    marker: NodeMarker | None = None
    libraries: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def variables(self) -> dict[str, str]:
        """Variables of the attach: those of the cluster, and those that its init script has set."""
        record, marker = self.record, self.marker
        return {**(record.variables if record else {}), **(marker.variables if marker else {})}

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of 'dbx-aml cluster status --json'."""
        record = self.record
        return {
            "cluster_id": self.cluster.cluster_id,
            "cluster_name": self.cluster.name,
            "state": self.cluster.state,
            "access_mode": self.cluster.access_mode,
            "spark_version": self.cluster.spark_version,
            "is_attached": self.folder is not None,
            "folder": self.folder,
            "method": record.method if record else None,
            "version": record.version if record else None,
            "variables": self.variables,
            "libraries": self.libraries,
            "marker": self.marker.status if self.marker else None,
            "problems": list(self.problems),
        }


def read_status(client: Client, cluster: Cluster) -> ClusterStatus:
    """Read the status of a cluster.

    A part that cannot be read becomes a problem of the status.

    Raises:
        ServiceError: The libraries of the cluster cannot be read.
    """
    folder = attached_folder(cluster)
    if folder is None:
        return ClusterStatus(cluster=cluster, folder=None)
    problems: list[str] = []
    record = _read_record(client, folder, problems)
    if record:
        values = cluster.variables
        problems += [
            f"variable {name} is not as attached: its value was changed since"
            for name, value in record.variables.items()
            if values.get(name) != value
        ]
    if cluster.state == "TERMINATED" and "INIT_SCRIPT" in cluster.termination_message:
        problems.append(cluster.termination_message)
    libraries: dict[str, str] = {}
    if record and record.libraries:
        for row in library_statuses(client, cluster):
            if row.get("library") in record.libraries:
                libraries[next(iter(row["library"].values()))] = str(row.get("status"))
        problems += [f"{path} is FAILED" for path, text in libraries.items() if text == "FAILED"]
    marker = None
    if cluster.state == "RUNNING" and not (record and record.script is None):
        marker = _read_marker(client, cluster, problems)
    return ClusterStatus(
        cluster=cluster,
        folder=folder,
        record=record,
        marker=marker,
        libraries=libraries,
        problems=tuple(problems),
    )


def _read_record(client: Client, folder: str, problems: list[str]) -> AttachRecord | None:
    try:
        record = read_record(ClusterFolder(client, folder))
    except (ClusterError, ServiceError) as err:
        problems.append(str(err))
        return None
    if record is None:
        problems.append(f"{folder} has no record: detach cannot restore the earlier settings")
    return record


def _read_marker(client: Client, cluster: Cluster, problems: list[str]) -> NodeMarker | None:
    try:
        marker = read_driver_marker(client, cluster)
    except ClusterError as err:
        problems.append(str(err))
        return None
    if marker is None:
        problems.append("its driver has no marker: the init script has not run; restart it")
    elif failure_message(marker):
        problems.append(f"init script failed: {failure_message(marker)}")
    return marker
