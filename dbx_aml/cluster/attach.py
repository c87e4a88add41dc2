"""Carry out the plan of an attach.

The cluster changes only after all files are uploaded and the record is written. An attach that was
killed at any point can be run again.
"""

from dataclasses import dataclass, replace

from dbx_aml._common.errors import ClusterError, ServiceError
from dbx_aml.cluster.allowlist import Allowlist
from dbx_aml.cluster.apply import apply_change, wait_for_cluster
from dbx_aml.cluster.attach_record import (
    AttachRecord,
    is_same_script,
    read_record,
    refuse_other_attach,
    write_record,
)
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster, Reporter
from dbx_aml.cluster.driver import failure_message, read_driver_marker
from dbx_aml.cluster.libraries import wait_for_libraries
from dbx_aml.cluster.node.marker import NodeMarker
from dbx_aml.cluster.plan import AttachPlan
from dbx_aml.cluster.policy import policy_definition, save_policy


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
        ServiceError: The caller may not change the cluster.
    """
    _prepare_folder(client, plan, report)
    plan = _with_policy(client, plan)
    cluster = apply_change(client, plan.change, report, must_restart=plan.has_new_files)
    write_record(plan.files.folder, plan.record)
    cluster = wait_for_cluster(client, cluster, report)
    if cluster.state != "RUNNING":
        report(f"{cluster.name} is {cluster.state}: it will be prepared at its next start")
        return AttachResult(cluster=cluster)
    wait_for_libraries(client, cluster, plan.files.libraries, report)
    if plan.files.script is None:
        return AttachResult(cluster=cluster)
    return _read_result(client, cluster)


def _prepare_folder(client: Client, plan: AttachPlan, report: Reporter) -> None:
    """Write the record, upload the files, and add the script to the metastore's allowlist.

    Raises:
        ClusterError: A step failed, or another attach is at work; the cluster is unchanged.
    """
    change, files = plan.change, plan.files
    try:
        refuse_other_attach(change.cluster, read_record(files.folder), plan.last_record)
        write_record(files.folder, _unconfirmed_record(plan))
        if plan.has_new_files:
            files.upload(report)
            files.folder.delete_files(plan.stale_files)
        for script in set(change.desired.allowlist_entries) - set(change.current.allowlist_entries):
            Allowlist(client, script).add_script()
            report(f"added {script} to the metastore's allowlist")
        # Of two attaches that began at the same time, the one whose record was kept goes on.
        refuse_other_attach(change.cluster, read_record(files.folder), plan.record)
    except (ClusterError, ServiceError) as err:
        raise ClusterError(f"{err} (cluster {change.cluster} is unchanged)") from err


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


def _with_policy(client: Client, plan: AttachPlan) -> AttachPlan:
    """Save the cluster's policy with method "policy"; return the plan with the policy's id."""
    change, script = plan.change, plan.files.script
    if plan.files.method != "policy" or script is None:
        return plan
    scripts = change.desired.init_scripts
    index = next(n for n, present in enumerate(scripts) if is_same_script(present, script))
    definition = policy_definition(script, plan.files.variables, script_index=index)
    policy_id = save_policy(client, change.cluster, definition)
    plan = replace(
        plan,
        change=replace(change, desired=replace(change.desired, policy_id=policy_id)),
        record=replace(plan.record, policy_id=policy_id),
    )
    write_record(plan.files.folder, _unconfirmed_record(plan))
    return plan


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
