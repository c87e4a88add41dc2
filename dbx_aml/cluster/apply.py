"""Make a change on a cluster and see it through: wait, send, wait, and say how it ended."""

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.client import Client, WrongState
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.driver import logs_of
from dbx_aml.cluster.settings_change import Change, Say
from dbx_aml.cluster.wait import wait_until_restarting, wait_until_settled, why_ended

_TRIES = 5


def apply_change(client: Client, change: Change, say: Say, *, is_restart: bool) -> Cluster:
    """Change a cluster's settings; return it as it was right before.

    Args:
        client: Who changes.
        change: From what was shown to a person to what they agreed to.
        say: Is told what happens.
        is_restart: Restart it even where no setting differs: what it reads has changed.

    Raises:
        ClusterError: It cannot be changed.
    """
    is_sent = False
    attempt = 0
    while True:
        attempt += 1
        cluster = wait_until_settled(client, change.cluster, say)
        try:
            # What others have changed meanwhile must not be lost.
            change = change.anew(cluster)
            change.uninstall(client)
            is_due = bool(change.mask) or (is_restart and not is_sent)
            is_sent = is_sent or is_due
            if change.mask:
                change.send(client)
            elif is_due and cluster.state == "RUNNING":
                _restart(client, cluster)
            if is_due and cluster.state == "RUNNING":
                wait_until_restarting(client, cluster)
            change.install(client)
            return cluster
        except WrongState:
            # Somebody has started or stopped it since.
            if attempt == _TRIES:
                raise


def see_through(client: Client, cluster: Cluster, say: Say) -> Cluster:
    """Return a changed cluster once it is at rest again.

    Args:
        client: Who asks.
        cluster: As it was right before the change.
        say: Is told what happens.

    Raises:
        ClusterError: It does not come up again.
    """
    if cluster.state == "TERMINATED":
        return cluster
    found = wait_until_settled(client, cluster, say)
    if found.state == "TERMINATED":
        raise ClusterError(
            f"cluster {found} must come up again: it ended with {why_ended(found)!r}; look at "
            f"{logs_of(found)}, or take everything off with: dbx-aml cluster detach "
            f"{found.cluster_id}"
        )
    return found


def _restart(client: Client, cluster: Cluster) -> None:
    client.call(
        "POST",
        "/api/2.1/clusters/restart",
        what=f"restart cluster {cluster}",
        body={"cluster_id": cluster.cluster_id},
        hint="ask its owner for CAN RESTART",
    )
