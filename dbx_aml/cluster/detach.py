"""Undo an attach by means of its record; later changes of other users stay."""

from dataclasses import dataclass, replace

from dbx_aml._common.errors import ClusterError, PermissionDeniedError, ServiceError
from dbx_aml.cluster.allowlist import Allowlist
from dbx_aml.cluster.apply import apply_change, wait_for_cluster
from dbx_aml.cluster.attach_record import (
    RECORD_NAME,
    AttachRecord,
    is_same_script,
    read_record,
    refuse_other_attach,
)
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster, Reporter
from dbx_aml.cluster.folder import ClusterFolder
from dbx_aml.cluster.settings_change import ClusterSettings, SettingsChange


@dataclass(frozen=True, kw_only=True)
class DetachPlan:
    """Everything that a detach will change.

    Args:
        change: Change of the cluster's settings.
        folder: Folder of the cluster's files, which are deleted last.
        record: Record of the attach.
        messages: Settings that a detach leaves, with the reason, one line each.
    """

    change: SettingsChange
    folder: ClusterFolder
    record: AttachRecord
    messages: tuple[str, ...] = ()

    @property
    def restarts_cluster(self) -> bool:
        """Whether the detach restarts the cluster, which ends all work on it."""
        return self.change.cluster.is_active and bool(self.change.changed_fields)


def plan_detach(client: Client, cluster: Cluster, folder: ClusterFolder) -> DetachPlan:
    """Compare an attached cluster with its record; nothing is written.

    Args:
        client: Databricks client of the caller.
        cluster: Cluster to detach.
        folder: Folder with the record of the attach.

    Raises:
        ClusterError: The folder has no record.
        ServiceError: The caller lacks a permission.
    """
    record = read_record(folder)
    if record is None:
        raise ClusterError(
            f"cluster {cluster} must be attached: {folder} has no record; give the folder of the "
            "attach with --folder"
        )
    current = ClusterSettings.from_cluster(cluster)
    messages = [
        f"variable {name} stays: its value was changed after the attach"
        for name, value in record.variables.items()
        if current.variables.get(name, value) != value
    ]
    entries: tuple[str, ...] = ()
    try:
        entries = tuple(
            script for script in record.allowlist_entries if Allowlist(client, script).lists_script
        )
    except PermissionDeniedError:
        messages.append(
            f"{record.allowlist_entries[0]} stays on the metastore's allowlist: {client.user} may "
            "not change it; a metastore administrator can"
        )
    desired = ClusterSettings(
        init_scripts=tuple(
            script for script in current.init_scripts if not is_same_script(script, record.script)
        ),
        variables=record.restore_variables(current.variables),
    )
    current = replace(current, libraries=record.libraries, allowlist_entries=entries)
    return DetachPlan(
        change=SettingsChange(cluster=cluster, current=current, desired=desired),
        folder=folder,
        record=record,
        messages=tuple(messages),
    )


def detach_cluster(client: Client, plan: DetachPlan, report: Reporter) -> Cluster:
    """Carry out a detach; return the cluster after it.

    Args:
        client: Databricks client of the caller.
        plan: Plan that the user has agreed to.
        report: Receiver of progress messages.

    Raises:
        ClusterError: The cluster was attached again since the plan; or the detach is incomplete,
            and the message names the rest and how to remove it.
        ServiceError: The caller may not change the cluster.
    """
    refuse_other_attach(plan.change.cluster, read_record(plan.folder), plan.record)
    cluster = apply_change(client, plan.change, report, must_restart=False)
    cluster = wait_for_cluster(client, cluster, report)
    try:
        for script in plan.change.current.allowlist_entries:
            Allowlist(client, script).remove_script()
            report(f"removed {script} from the metastore's allowlist")
        plan.folder.delete_folder([*plan.record.files, RECORD_NAME])
    except (ClusterError, ServiceError) as err:
        raise ClusterError(
            f"{err} (cluster {cluster} is as it was before; to remove the rest, run the same "
            f"again with --folder {plan.folder.path.rpartition('/')[0]})"
        ) from err
    report(f"removed the files of {plan.folder}")
    return cluster
