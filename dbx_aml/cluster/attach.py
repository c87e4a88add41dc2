"""Make an attach that was thought out.

Nothing of the cluster changes before everything it needs is uploaded and recorded; what is killed
anywhere can be run again.
"""

from dataclasses import dataclass, replace

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.allowlist import Allowlist
from dbx_aml.cluster.apply import apply_change, see_through
from dbx_aml.cluster.attach_record import RECORD, Record, is_same
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.driver import logs_of, read_outcome, why_failed
from dbx_aml.cluster.files import Files
from dbx_aml.cluster.folder import Folder
from dbx_aml.cluster.libraries import wait_for_libraries
from dbx_aml.cluster.node.marker import NodeMarker
from dbx_aml.cluster.policy import policy_definition, save_policy
from dbx_aml.cluster.settings_change import Change, Say

# A policy's id before the policy is made.
NEW_POLICY = "(a new one)"


@dataclass(frozen=True, kw_only=True)
class Attached:
    """How an attach ended.

    Args:
        cluster: As it is now.
        marker: What the init script did; None where there is none, or it cannot be known now.
        note: Why it cannot be read, where it is to be had.
    """

    cluster: Cluster
    marker: NodeMarker | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Attach:
    """An attach that is thought out and not yet made.

    Args:
        change: Of the cluster's settings.
        folder: Where its files go.
        files: All of its files.
        record: What will be written beside them.
        stale: Files of last time that are no longer needed.
        has_new_files: Whether a file differs from what was uploaded last time.
    """

    change: Change
    folder: Folder
    files: Files
    record: Record
    stale: tuple[str, ...]
    has_new_files: bool

    @property
    def is_empty(self) -> bool:
        """Whether everything is there already."""
        return self.change.is_empty and not self.has_new_files

    @property
    def restarts(self) -> bool:
        """Whether the cluster would restart, which ends what runs on it."""
        return self.change.cluster.is_up and (bool(self.change.mask) or self.has_new_files)

    @property
    def overriding(self) -> list[str]:
        """The cluster's own DBX_AML_* variables: they go before the link's values."""
        now = self.change.before.variables
        return [
            name
            for name in now
            if name.startswith("DBX_AML_") and name not in self.record.variables
        ]

    def run(self, client: Client, say: Say) -> Attached:
        """Make it.

        Args:
            client: Who makes it.
            say: Is told what happens.

        Raises:
            ClusterError: It could not be made, or the cluster did not come up, or the script
                failed on it; the message says which.
        """
        try:
            self._prepare(client, say)
        except ClusterError as err:
            raise ClusterError(f"{err} (cluster {self.change.cluster} is unchanged)") from err
        change, record = self._with_policy(client)
        cluster = apply_change(client, change, say, is_restart=self.has_new_files)
        self.folder.write(RECORD, record.to_bytes())
        cluster = see_through(client, cluster, say)
        if cluster.state != "RUNNING":
            say(f"{cluster.name} is {cluster.state}: it will be prepared at its next start")
            return Attached(cluster=cluster)
        wait_for_libraries(client, cluster, change.after.libraries, say)
        return self._outcome(client, cluster)

    def _prepare(self, client: Client, say: Say) -> None:
        """Upload, record, and let the allowlist take the script."""
        self.folder.write(RECORD, self._unread(self.record).to_bytes())
        if self.has_new_files:
            for name in self.files.content:
                self.folder.write(name, self.files.read(name))
            self.folder.delete(self.stale)
            say(f"uploaded {len(self.files.content)} files to {self.folder}")
        for script in set(self.change.after.allowlisted) - set(self.change.before.allowlisted):
            Allowlist(client, script).add()
            say(f"added {script} to the metastore's allowlist")

    def _unread(self, record: Record) -> Record:
        """Return a record of files that the cluster has not read yet.

        Killed now, the next attach finds no hashes and does not take them for read; a detach finds
        all names.
        """
        if not self.has_new_files:
            return record
        names = sorted({*self.stale, *self.files.content})
        return replace(record, files=dict.fromkeys(names, ""))

    def _with_policy(self, client: Client) -> tuple[Change, Record]:
        """Make the cluster's policy where it is to have one; its id is known only then."""
        change = self.change
        if self.record.method != "policy":
            return change, self.record
        scripts = change.after.init_scripts
        index = next(n for n, one in enumerate(scripts) if is_same(one, self.record.script))
        definition = policy_definition(self.record.script, self.record.variables, index=index)
        policy_id = save_policy(client, change.cluster, definition)
        record = replace(self.record, policy_id=policy_id)
        self.folder.write(RECORD, self._unread(record).to_bytes())
        return replace(change, after=replace(change.after, policy_id=policy_id)), record

    def _outcome(self, client: Client, cluster: Cluster) -> Attached:
        if self.record.script is None:
            return Attached(cluster=cluster)
        try:
            marker = read_outcome(client, cluster)
        except ClusterError as err:
            return Attached(cluster=cluster, note=str(err))
        if marker is None:
            raise ClusterError(
                f"init script must have run on cluster {cluster}: its driver has no marker; look "
                f"at {logs_of(cluster)}"
            )
        why = why_failed(marker)
        if why:
            raise ClusterError(
                f"init script must succeed on cluster {cluster}: got {why!r}; look at "
                f"{logs_of(cluster)}, or take it off with: dbx-aml cluster detach "
                f"{cluster.cluster_id}"
            )
        return Attached(cluster=cluster, marker=marker)
