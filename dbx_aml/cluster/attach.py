"""Carry out the plan of an attach.

The cluster changes only after all files are uploaded and the record is written. If the change is
refused, the earlier steps are undone. An attach that was killed at any point can be run again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dbx_aml._common.errors import ClusterError, ServiceError
from dbx_aml.cluster.allowlist import Allowlist
from dbx_aml.cluster.apply import apply_change, wait_for_cluster
from dbx_aml.cluster.attach_record import (
    RECORD_NAME,
    AttachRecord,
    read_record,
    refuse_other_attach,
    write_record,
)
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster, Reporter, get_cluster
from dbx_aml.cluster.driver import failure_message, read_driver_marker
from dbx_aml.cluster.folder import ClusterFolder
from dbx_aml.cluster.libraries import wait_for_libraries
from dbx_aml.cluster.node.marker import NodeMarker
from dbx_aml.cluster.plan import AttachPlan
from dbx_aml.cluster.settings_change import ClusterSettings


@dataclass(frozen=True, kw_only=True)
class AttachResult:
    """The cluster after an attach.

    Args:
        cluster: Cluster after the change.
        marker: Marker of the init script on the driver; None if the cluster does not run, has no
            init script, or the marker could not be read.
        unverified_reason: Why the marker could not be read from the driver; empty if it was read.
    """

    cluster: Cluster
    marker: NodeMarker | None = None
    unverified_reason: str = ""


def attach_cluster(client: Client, plan: AttachPlan, report: Reporter) -> AttachResult:
    """Carry out an attach.

    Args:
        client: Databricks client of the caller.
        plan: Plan that the user has agreed to.
        report: Receiver of progress messages.

    Raises:
        ClusterError: The cluster is unchanged, did not come up again, or its init script failed;
            the message says which.
    """
    undo_steps: list[Callable[[], None]] = []
    try:
        _prepare_folder(client, plan, report, undo_steps)
        cluster = apply_change(client, plan.change, report, must_restart=plan.has_new_files)
    except (ClusterError, ServiceError) as err:
        raise ClusterError(f"{err} ({_undo(client, plan, undo_steps)})") from err
    write_record(plan.files.folder, plan.record)
    cluster = wait_for_cluster(client, cluster, report)
    if cluster.state != "RUNNING":
        report(f"{cluster.name} is {cluster.state}: it will be prepared at its next start")
        return AttachResult(cluster=cluster)
    wait_for_libraries(client, cluster, plan.files.libraries, report)
    if plan.files.script is None:
        return AttachResult(cluster=cluster)
    report("reading the result of the init script on the driver")
    return _read_result(client, cluster)


def _prepare_folder(
    client: Client, plan: AttachPlan, report: Reporter, undo_steps: list[Callable[[], None]]
) -> None:
    """Write the record, upload the files, and add the script to the metastore's allowlist.

    Args:
        client: Databricks client of the caller.
        plan: Plan that the user has agreed to.
        report: Receiver of progress messages.
        undo_steps: List to which the opposite of each step is added before the step.

    Raises:
        ClusterError: A step failed, or another attach is at work; the cluster is unchanged.
        ServiceError: The caller may not write to the folder or to the allowlist.
    """
    change, files, folder = plan.change, plan.files, plan.files.folder
    refuse_other_attach(change.cluster, read_record(folder), plan.last_record)
    names = [*plan.new_files, *plan.stale_files]
    if plan.last_record is None:
        undo_steps.append(lambda: folder.delete_folder([*names, RECORD_NAME]))
    else:
        last_record = plan.last_record
        last_content = {name: folder.read_file(name) for name in names}
        undo_steps.append(lambda: _restore_folder(folder, last_record, last_content))
    write_record(folder, _unconfirmed_record(plan))
    if plan.has_new_files:
        files.upload(report)
        folder.delete_files(plan.stale_files)
    for script in set(change.desired.allowlist_entries) - set(change.current.allowlist_entries):
        undo_steps.append(Allowlist(client, script).remove_script)
        Allowlist(client, script).add_script()
        report(f"added {script} to the metastore's allowlist")
    # Of two attaches that began at the same time, the one whose record was kept goes on.
    refuse_other_attach(change.cluster, read_record(folder), plan.record)


def _restore_folder(
    folder: ClusterFolder, record: AttachRecord, content: Mapping[str, bytes | None]
) -> None:
    """Write the files and the record of the earlier attach."""
    for name, data in content.items():
        if data is not None:
            folder.write_file(name, data)
    folder.delete_files([name for name, data in content.items() if data is None])
    write_record(folder, record)


def _undo(client: Client, plan: AttachPlan, undo_steps: list[Callable[[], None]]) -> str:
    """Undo the steps of a refused attach, the last one first; return its result as a phrase."""
    cluster, folder = plan.change.cluster, plan.files.folder
    detach = (
        f"dbx-aml cluster detach {cluster.cluster_id} --folder {folder.path.rpartition('/')[0]}"
    )
    try:
        latest = get_cluster(client, cluster.cluster_id)
        settings = ClusterSettings.from_cluster(latest)
        is_sent = plan.change.changed_fields and plan.change.desired.has_same_fields(settings)
        if is_sent or latest.restarted_at != cluster.restarted_at:
            return f"cluster {cluster} is changed; undo the attach with: {detach}"
        record = read_record(folder)
        if record and record.attach_id != plan.record.attach_id:
            return f"cluster {cluster} is unchanged"
        for step in reversed(undo_steps):
            step()
    except (ClusterError, ServiceError) as err:
        return (
            f"not all could be undone: {err}; remove the files in {folder} and the entry on the "
            f"metastore's allowlist with: {detach}"
        )
    return f"cluster {cluster} is unchanged, and nothing of the attach is left"


def _unconfirmed_record(plan: AttachPlan) -> AttachRecord:
    """Return the record to write before the cluster has read its new files.

    It says who is at work. If the attach is killed now, the next attach finds no hashes and uploads
    all files again, and a detach finds the names of all files.
    """
    record = replace(plan.record, is_complete=False)
    if not plan.has_new_files:
        return record
    names = sorted({*plan.stale_files, *plan.files.content})
    return replace(record, files=dict.fromkeys(names, ""))


def _read_result(client: Client, cluster: Cluster) -> AttachResult:
    """Read the marker of the init script on the driver.

    Raises:
        ClusterError: The script did not run, or failed.
    """
    try:
        marker = read_driver_marker(client, cluster)
    except ClusterError as err:
        return AttachResult(cluster=cluster, unverified_reason=str(err))
    if marker is None:
        raise ClusterError(
            f"init script must have run on cluster {cluster}: its driver has no marker; look at "
            f"{cluster.init_script_logs}"
        )
    failure = failure_message(marker)
    if failure:
        raise ClusterError(
            f"init script must succeed on cluster {cluster}: got {failure!r}; look at "
            f"{cluster.init_script_logs}, or undo the attach with: dbx-aml cluster detach "
            f"{cluster.cluster_id}"
        )
    return AttachResult(cluster=cluster, marker=marker)
