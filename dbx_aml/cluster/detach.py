"""Detach a cluster: all as it was before the attach; what others changed since stays."""

from dataclasses import dataclass, replace

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.allowlist import Allowlist
from dbx_aml.cluster.apply import apply_change, see_through
from dbx_aml.cluster.attach_record import RECORD, Record, is_same, read_record
from dbx_aml.cluster.client import Client, Forbidden
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.folder import Folder
from dbx_aml.cluster.policy import remove_policy
from dbx_aml.cluster.settings_change import Change, Say, Settings


@dataclass(frozen=True, kw_only=True)
class Detach:
    """A detach that is thought out and not yet made.

    Args:
        change: Of the cluster's settings.
        folder: Where the files are, which go last.
        record: What the attach had put there.
        notes: What stays as it is and why, one line each.
    """

    change: Change
    folder: Folder
    record: Record
    notes: tuple[str, ...] = ()

    @property
    def restarts(self) -> bool:
        """Whether the cluster would restart, which ends what runs on it."""
        return self.change.cluster.is_up and bool(self.change.mask)

    def run(self, client: Client, say: Say) -> Cluster:
        """Make it; return the cluster as it is then.

        Raises:
            ClusterError: It could not be made whole; the message says what is left.
        """
        cluster = apply_change(client, self.change, say, is_restart=False)
        cluster = see_through(client, cluster, say)
        try:
            for script in self.change.before.allowlisted:
                Allowlist(client, script).remove()
                say(f"took {script} off the metastore's allowlist")
            if self.record.method == "policy":
                remove_policy(client, cluster)
            self.folder.remove([*self.record.files, RECORD])
        except ClusterError as err:
            raise ClusterError(
                f"{err} (cluster {cluster} is as it was before; to remove the rest, run the same "
                f"again with --folder {self.folder.path.rpartition('/')[0]})"
            ) from err
        say(f"removed the files of {self.folder}")
        return cluster


def plan_detach(client: Client, cluster: Cluster, folder: Folder) -> Detach:
    """Look at an attached cluster and think out its detach; nothing is written.

    Args:
        client: Who looks.
        cluster: Which.
        folder: Where its record is.

    Raises:
        ClusterError: There is no record of an attach, or the caller may not do it.
    """
    record = read_record(folder)
    if record is None:
        raise ClusterError(
            f"cluster {cluster} must be attached: there is no record in {folder}; give the folder "
            "of the attach with --folder"
        )
    now = Settings.of(cluster)
    notes = [
        f"variable {name} stays: somebody has changed it since"
        for name, value in record.variables.items()
        if now.variables.get(name, value) != value
    ]
    allowlisted: tuple[str, ...] = ()
    try:
        if record.allowlisted and Allowlist(client, record.allowlisted).names_it:
            allowlisted = (record.allowlisted,)
    except Forbidden:
        notes.append(
            f"{record.allowlisted} stays on the metastore's allowlist: {client.user} may not "
            "change it; a metastore administrator can"
        )
    before = replace(now, libraries=record.libraries, allowlisted=allowlisted)
    is_our_policy = record.policy_id is not None and now.policy_id == record.policy_id
    after = Settings(
        init_scripts=tuple(one for one in now.init_scripts if not is_same(one, record.script)),
        variables=record.without_ours(now.variables),
        policy_id=None if is_our_policy else now.policy_id,
    )
    return Detach(
        change=Change(cluster=cluster, before=before, after=after),
        folder=folder,
        record=record,
        notes=tuple(notes),
    )
