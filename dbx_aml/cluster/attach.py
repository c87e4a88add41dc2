"""Attach a cluster: look, say what would change, then change it.

Nothing of the cluster changes before everything it needs is uploaded and recorded; what is killed
anywhere can be run again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from dbx_aml.cluster.allowlist import Allowlist
from dbx_aml.cluster.apply import apply_change
from dbx_aml.cluster.change import Change, Say, Settings, has_secret
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.found import Cluster
from dbx_aml.cluster.library import wait_for_libraries
from dbx_aml.cluster.outcome import logs_of, read_outcome
from dbx_aml.cluster.part import Files
from dbx_aml.cluster.policy import policy_definition, save_policy
from dbx_aml.cluster.record import (
    RECORD,
    SCRIPT,
    Record,
    attached_path,
    is_same,
    read_record,
)
from dbx_aml.cluster.storage import Folder
from dbx_aml.errors import ClusterError
from dbx_aml.marker import Marker

# A policy's id before the policy is made.
_NEW_POLICY = "(a new one)"


@dataclass(frozen=True, kw_only=True)
class Attached:
    """How an attach ended.

    Args:
        cluster: As it is now.
        marker: What the init script did; None where there is none, or it cannot be known now.
        note: Why it cannot be read, where it is to be had.
    """

    cluster: Cluster
    marker: Marker | None = None
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
        is_change = bool(self.change.mask) or self.has_new_files
        return self.change.cluster.state == "RUNNING" and is_change

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
        change = self._with_policy(client)
        cluster = apply_change(client, change, say, is_restart=self.has_new_files)
        if cluster.state != "RUNNING":
            say(f"{cluster.name} is {cluster.state}: it will be prepared at its next start")
            return Attached(cluster=cluster)
        wait_for_libraries(client, cluster, change.after.libraries, say)
        return self._outcome(client, cluster)

    def _prepare(self, client: Client, say: Say) -> None:
        """Upload, record, and let the allowlist take the script."""
        if self.has_new_files:
            # Killed in the middle, a detach knows all names, and no attach trusts a hash.
            names = {*self.stale, *self.files.content}
            record = replace(self.record, files=dict.fromkeys(sorted(names), ""))
            self.folder.write(RECORD, record.to_bytes())
            for name in self.files.content:
                self.folder.write(name, self.files.read(name))
            self.folder.delete(self.stale)
            say(f"uploaded {len(self.files.content)} files to {self.folder}")
        self.folder.write(RECORD, self.record.to_bytes())
        for script in set(self.change.after.allowlisted) - set(self.change.before.allowlisted):
            Allowlist(client, script).add()
            say(f"added {script} to the metastore's allowlist")

    def _with_policy(self, client: Client) -> Change:
        """Make the cluster's policy where it is to have one; its id is known only then."""
        change = self.change
        if self.record.via != "policy":
            return change
        scripts = change.after.init_scripts
        index = next(n for n, one in enumerate(scripts) if is_same(one, self.record.script))
        definition = policy_definition(self.record.script, self.record.variables, index=index)
        policy_id = save_policy(client, change.cluster, definition)
        self.folder.write(RECORD, replace(self.record, policy_id=policy_id).to_bytes())
        return replace(change, after=replace(change.after, policy_id=policy_id))

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
        if not marker.is_good:
            raise ClusterError(
                f"init script must succeed on cluster {cluster}: got {marker.reason!r}; look at "
                f"{logs_of(cluster)}, or take it off with: dbx-aml cluster detach "
                f"{cluster.cluster_id}"
            )
        return Attached(cluster=cluster, marker=marker)


def plan_attach(
    client: Client,
    cluster: Cluster,
    folder: Folder,
    *,
    via: str,
    files: Files,
    variables: Mapping[str, str],
    wheels: tuple[str, ...] = (),
    is_allowlisted: bool = False,
) -> Attach:
    """Look at a cluster and think out its attach; nothing is written.

    Args:
        client: Who looks.
        cluster: Which.
        folder: Where its files go.
        via: "init-script", "libraries" or "policy".
        files: What it needs, the init script too unless it goes via libraries.
        variables: Environment variables that it gets.
        wheels: Names among the files that are to be cluster libraries.
        is_allowlisted: The metastore's allowlist is known to take the script: do not look.

    Raises:
        ClusterError: It cannot be attached so.
    """
    _check(cluster, folder, via)
    old = read_record(folder)
    is_attached = attached_path(cluster) == folder.path
    if is_attached and old and old.via != via:
        raise ClusterError(
            f"cluster {cluster} must be attached in one way: it is via {old.via}; run first: "
            f"dbx-aml cluster detach {cluster.cluster_id}"
        )
    known = old if is_attached else None
    script = None if via == "libraries" else folder.location(SCRIPT)
    libraries = tuple({"whl": folder.file(name)} for name in wheels)
    before = Settings.of(cluster)
    if before.policy_id and via == "policy" and not (known and known.policy_id == before.policy_id):
        raise ClusterError(
            f"cluster {cluster} must have no policy of its own: it has {before.policy_id}; let its "
            "owner add what 'dbx-aml cluster policy' prints to that one"
        )
    if known:
        before = replace(before, libraries=known.libraries)
    must_add, is_ours = False, False
    if script and cluster.is_standard and not is_allowlisted:
        allowlist = Allowlist(client, folder.file(SCRIPT))
        must_add = not allowlist.takes_it
        is_ours = must_add or bool(old and old.allowlisted and allowlist.names_it)
    earlier = _earlier(before.variables, variables, known)
    kept = known.without_ours(before.variables) if known else before.variables
    after = Settings(
        init_scripts=_with_script(before.init_scripts, script),
        variables={**kept, **variables},
        libraries=libraries,
        allowlisted=(folder.file(SCRIPT),) if must_add else (),
        policy_id=(before.policy_id or _NEW_POLICY) if via == "policy" else before.policy_id,
    )
    hashes = files.hashes()
    record = Record(
        via=via,
        script=script,
        variables=dict(variables),
        before=earlier,
        libraries=libraries,
        allowlisted=folder.file(SCRIPT) if is_ours else None,
        policy_id=known.policy_id if known else None,
        files=hashes,
        version=version("dbx-aml"),
    )
    return Attach(
        change=Change(cluster=cluster, before=before, after=after),
        folder=folder,
        files=files,
        record=record,
        stale=tuple(name for name in (old.files if old else ()) if name not in hashes),
        has_new_files=not old or dict(old.files) != hashes,
    )


def _check(cluster: Cluster, folder: Folder, via: str) -> None:
    source = cluster.spec.get("cluster_source", "UI")
    if source not in ("UI", "API"):
        raise ClusterError(
            f"cluster must be one for all purposes: {cluster} was made by a {source.lower()}, "
            "which makes a new one each time; put into it what 'dbx-aml cluster snippet' prints"
        )
    if via != "libraries" and folder.is_volume and cluster.access_mode == "no isolation":
        raise ClusterError(
            "a cluster without Unity Catalog must have its init script in the workspace: got "
            f"{folder.path!r} for cluster {cluster}; leave --to out, or give a folder in /Workspace"
        )
    if via != "libraries" and cluster.is_standard and not folder.is_volume:
        raise ClusterError(
            "standard access mode must have its init script in a volume: got "
            f"{folder.path!r} for cluster {cluster}; give --to "
            "/Volumes/<catalog>/<schema>/<volume>"
        )
    where = attached_path(cluster)
    if where not in (None, folder.path):
        raise ClusterError(
            f"cluster {cluster} must be attached once: it reads from {where}; leave --to out, or "
            f"run first: dbx-aml cluster detach {cluster.cluster_id}"
        )


def _with_script(
    scripts: tuple[Mapping[str, Any], ...], script: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], ...]:
    """Return a cluster's scripts with ours once: where it is, else after all others."""
    if script is None or any(is_same(one, script) for one in scripts):
        return scripts
    return (*scripts, script)


def _earlier(
    now: Mapping[str, str], ours: Mapping[str, str], known: Record | None
) -> dict[str, str | None]:
    """Return what our variables were before us."""
    earlier = {
        name: known.before[name] if known and name in known.before else now.get(name)
        for name in ours
    }
    for name, value in earlier.items():
        if value is not None and has_secret(name, value):
            raise ClusterError(
                f"variable {name} must hold no secret in plain text, as it would have to be kept "
                "for detach: the cluster has one there; use {{secrets/<scope>/<key>}} or remove it"
            )
    return earlier
