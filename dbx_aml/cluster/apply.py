"""Apply a settings change to a cluster, and wait until the cluster is at rest."""

from typing import Literal

from dbx_aml._common.deadline import poll_until
from dbx_aml._common.errors import ClusterError, WrongStateError
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster, Reporter, get_cluster
from dbx_aml.cluster.settings_change import Library, SettingsChange

REST_TIMEOUT_S = 1800.0
_RESTART_BEGINS_WITHIN_S = 30.0
_MAX_ATTEMPTS = 5


def apply_change(
    client: Client, change: SettingsChange, report: Reporter, *, must_restart: bool
) -> Cluster:
    """Apply a change once the cluster accepts it.

    Args:
        client: Databricks client of the caller.
        change: Change that the user has agreed to.
        report: Receiver of progress messages.
        must_restart: Restart a running cluster even if no field changes: its files did.

    Returns:
        The cluster as it was right before the change.

    Raises:
        ClusterError: Another user has changed the cluster since, or it does not come to rest.
        ServiceError: The caller lacks the permission, or the cluster refuses the change.
    """
    is_sent = False
    attempt = 0
    while True:
        attempt += 1
        cluster = wait_until_at_rest(client, change.cluster, report)
        try:
            # Changes of other users between the plan and this moment must not be lost.
            change = change.rebase_on(cluster)
            _change_libraries(client, cluster, "uninstall", change.removed_libraries)
            is_due = bool(change.changed_fields) or (must_restart and not is_sent)
            is_sent = is_sent or is_due
            if change.changed_fields:
                _update_cluster(client, change)
            elif is_due and cluster.state == "RUNNING":
                _restart_cluster(client, cluster)
            if is_due and cluster.state == "RUNNING":
                _wait_until_restarting(client, cluster)
            _change_libraries(client, cluster, "install", change.new_libraries)
            return cluster
        except WrongStateError:
            # The cluster was started or stopped between the reading and the request.
            if attempt == _MAX_ATTEMPTS:
                raise


def wait_for_cluster(client: Client, cluster: Cluster, report: Reporter) -> Cluster:
    """Wait until a changed cluster is at rest again, and read it.

    Args:
        client: Databricks client of the caller.
        cluster: Cluster as it was right before the change.
        report: Receiver of progress messages.

    Raises:
        ClusterError: The cluster was running and has terminated.
    """
    if cluster.state == "TERMINATED":
        return cluster
    current = wait_until_at_rest(client, cluster, report)
    if current.state == "TERMINATED":
        raise ClusterError(
            f"cluster {current} must come up again: it ended with "
            f"{current.termination_message!r}; look at {current.init_script_logs}, or undo the "
            f"attach with: dbx-aml cluster detach {current.cluster_id}"
        )
    return current


def wait_until_at_rest(client: Client, cluster: Cluster, report: Reporter) -> Cluster:
    """Wait until a cluster is RUNNING or TERMINATED: it refuses changes in any other state.

    Args:
        client: Databricks client of the caller.
        cluster: Cluster to read again.
        report: Receiver of each new state.

    Raises:
        ClusterError: The cluster is in a state that it does not leave by itself, or 30 minutes
            have passed.
    """
    state = ""

    def read_cluster_at_rest() -> Cluster | None:
        nonlocal state
        current = get_cluster(client, cluster.cluster_id)
        if current.state in ("RUNNING", "TERMINATED"):
            return current
        if current.state in ("ERROR", "UNKNOWN"):
            message = str(current.spec.get("state_message") or "")
            raise ClusterError(
                f"cluster {cluster} must be RUNNING or TERMINATED to be changed: it is "
                f"{current.state} ({message}); restart it on its page"
            )
        if current.state != state:
            state = current.state
            report(f"{cluster.name} is {state}, waiting")
        return None

    current = poll_until(read_cluster_at_rest, REST_TIMEOUT_S, client.poll_interval_s)
    if current is None:
        raise ClusterError(
            f"cluster {cluster} must come to rest within {REST_TIMEOUT_S / 60:.0f} minutes: it is "
            f"still {state}; look with: dbx-aml cluster status {cluster.cluster_id}"
        )
    return current


def _wait_until_restarting(client: Client, cluster: Cluster) -> None:
    """Wait until the requested restart has begun: until then the API reports the old state."""

    def has_restart_begun() -> bool:
        current = get_cluster(client, cluster.cluster_id)
        return current.state != "RUNNING" or current.restarted_at != cluster.restarted_at

    poll_until(has_restart_begun, _RESTART_BEGINS_WITHIN_S, client.poll_interval_s)


def _update_cluster(client: Client, change: SettingsChange) -> None:
    """Send the changed fields; a running cluster restarts."""
    desired = change.desired.to_dict()
    client.call(
        "POST",
        "/api/2.1/clusters/update",
        operation=f"change cluster {change.cluster}",
        body={
            "cluster_id": change.cluster.cluster_id,
            "update_mask": ",".join(change.changed_fields),
            # The API removes a field that is in the mask and not in the cluster.
            "cluster": {name: desired[name] for name in change.changed_fields if desired[name]},
        },
        hint="ask its owner for CAN MANAGE",
    )


def _restart_cluster(client: Client, cluster: Cluster) -> None:
    hint = "ask its owner for CAN RESTART"
    with client.calls_to(f"restart cluster {cluster}", hint=hint) as databricks:
        databricks.clusters.restart(cluster.cluster_id)


def _change_libraries(
    client: Client,
    cluster: Cluster,
    action: Literal["install", "uninstall"],
    libraries: list[Library],
) -> None:
    """Request that libraries are installed, or uninstalled at the next restart."""
    from databricks.sdk.service import compute

    if not libraries:
        return
    wheels = [compute.Library.from_dict(dict(library)) for library in libraries]
    hint = "ask its owner for CAN MANAGE"
    with client.calls_to(f"{action} libraries on cluster {cluster}", hint=hint) as databricks:
        api = databricks.libraries
        change = api.install if action == "install" else api.uninstall
        change(cluster.cluster_id, wheels)
