"""Plan an attach: read the cluster's settings and its last record; nothing is written."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from uuid import uuid4

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.allowlist import Allowlist
from dbx_aml.cluster.attach_record import (
    RECORD_NAME,
    AttachRecord,
    attached_folder,
    is_same_script,
    read_record,
    refuse_other_attach,
)
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.files import FolderFiles
from dbx_aml.cluster.libraries import present_libraries
from dbx_aml.cluster.runtimes import refusal_of
from dbx_aml.cluster.settings_change import (
    ClusterSettings,
    Script,
    SettingsChange,
    has_secret,
)


@dataclass(frozen=True, kw_only=True)
class AttachPlan:
    """Everything that an attach will write.

    Args:
        change: Change of the cluster's settings.
        files: Files of the cluster's folder.
        record: Record to write beside the files.
        last_record: Record that the folder has; None for a folder without.
        new_files: Names of the files to write; empty if none differs from the last upload.
        stale_files: Names of files of the last attach that are no longer needed.
    """

    change: SettingsChange
    files: FolderFiles
    record: AttachRecord
    last_record: AttachRecord | None
    new_files: tuple[str, ...]
    stale_files: tuple[str, ...]

    @property
    def has_new_files(self) -> bool:
        """Whether a file differs from the last upload, or is no longer needed."""
        return bool(self.new_files or self.stale_files)

    @property
    def is_first(self) -> bool:
        """Whether the folder has no record of an earlier attach."""
        return self.last_record is None

    def file_lines(self) -> list[str]:
        """Return the path of each file after "+ " if it is written, after "- " if it is deleted."""
        folder = self.files.folder
        written = [*self.new_files, RECORD_NAME]
        return [f"+ {folder.file_path(name)}" for name in written] + [
            f"- {folder.file_path(name)}" for name in self.stale_files
        ]

    @property
    def is_empty(self) -> bool:
        """Whether the cluster is attached already, with the same files and settings."""
        return self.change.is_empty and not self.has_new_files

    @property
    def restarts_cluster(self) -> bool:
        """Whether the attach restarts the cluster, which ends all work on it."""
        must_restart = bool(self.change.changed_fields) or self.has_new_files
        return self.change.cluster.is_active and must_restart

    @property
    def overriding_variables(self) -> list[str]:
        """The cluster's own variables that may override the values of the link."""
        uris = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
        return [
            name
            for name in self.change.desired.variables
            if (name in uris or name.startswith("DBX_AML_")) and name not in self.record.variables
        ]


def plan_attach(
    client: Client, cluster: Cluster, files: FolderFiles, *, skip_allowlist_check: bool = False
) -> AttachPlan:
    """Compare a cluster with the settings that it needs.

    Args:
        client: Databricks client of the caller.
        cluster: Cluster to attach.
        files: Files of the cluster's folder.
        skip_allowlist_check: Do not read the metastore's allowlist: it allows the script.

    Raises:
        ClusterError: The cluster cannot be attached in this way.
        ServiceError: The caller lacks a permission.
    """
    _check_cluster(client, cluster, files)
    last_record = read_record(files.folder)
    if last_record and last_record.is_at_work() and last_record.user != client.user:
        refuse_other_attach(cluster, last_record, None)
    is_attached = attached_folder(cluster) == files.folder.path
    # A record of an attach that was interrupted before it changed the cluster does not count.
    record = last_record if is_attached else None
    if record and record.method != files.method:
        raise ClusterError(
            f"cluster {cluster} must be attached by one method: it is attached by "
            f"{record.method}; run first: dbx-aml cluster detach {cluster.cluster_id}"
        )
    current = ClusterSettings.from_cluster(cluster)
    if record and record.libraries:
        # A library that failed, or was never requested, is requested again.
        libraries = present_libraries(client, cluster, record.libraries)
        current = replace(current, libraries=libraries)
    new_entries: tuple[str, ...] = ()
    own_entries: tuple[str, ...] = ()
    if files.script and cluster.is_standard and not skip_allowlist_check:
        new_entries, own_entries = _allowlist_entries(client, files, last_record)
    previous_values = _previous_values(current, files, record, is_attached=is_attached)
    kept = record.restore_variables(current.variables) if record else current.variables
    desired = ClusterSettings(
        init_scripts=_with_script(current.init_scripts, files.script),
        variables={**kept, **files.variables},
        libraries=files.libraries,
        allowlist_entries=new_entries,
    )
    hashes = files.sha256()
    last_hashes = dict(last_record.files) if last_record else {}
    return AttachPlan(
        change=SettingsChange(cluster=cluster, current=current, desired=desired),
        files=files,
        record=AttachRecord(
            method=files.method,
            script=files.script,
            variables=files.variables,
            previous_values=previous_values,
            libraries=files.libraries,
            allowlist_entries=own_entries,
            files=hashes,
            version=version("dbx-aml"),
            attach_id=uuid4().hex,
            user=client.user,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
        last_record=last_record,
        # All of them after any difference: others may have changed a file since its upload.
        new_files=tuple(hashes) if last_hashes != hashes else (),
        stale_files=tuple(name for name in last_hashes if name not in hashes),
    )


def _check_cluster(client: Client, cluster: Cluster, files: FolderFiles) -> None:
    """Refuse a cluster that an attach could not prepare.

    Raises:
        ClusterError: A job made the cluster, its runtime or its access mode is not supported, it is
            attached from another folder, or it could not read the files.
    """
    refusal = refusal_of(cluster.spark_version, files.runtime)
    if refusal:
        raise ClusterError(f"cluster {cluster} cannot be prepared: {refusal}")
    creator = cluster.spec.get("cluster_source", "UI")
    if creator not in ("UI", "API"):
        raise ClusterError(
            f"cluster must be an all-purpose cluster: {cluster} was made by a {creator.lower()}, "
            "which makes a new one for each run; put into its definition the text of 'dbx-aml "
            "cluster snippet job'"
        )
    folder = files.folder
    if folder.is_volume and not cluster.has_unity_catalog:
        raise ClusterError(
            f"cluster must be able to read a volume: {cluster} has no Unity Catalog; "
            "use --method libraries with --folder /Workspace/..., or change its access mode"
        )
    attached_path = attached_folder(cluster)
    if attached_path not in (None, folder.path):
        raise ClusterError(
            f"cluster {cluster} must be attached once: it reads from {attached_path}; leave out "
            f"--folder, or run first: dbx-aml cluster detach {cluster.cluster_id}"
        )
    reader = cluster.reader
    # On a cluster in standard access mode, libraries are read as the user who adds them.
    is_other = reader not in ("", client.user) and not (cluster.is_standard and not files.script)
    if is_other and not folder.may_read(reader):
        raise ClusterError(
            f"files of cluster {cluster} must be readable for {reader!r}, as whom the cluster "
            f"reads them: {folder} is not; {folder.grant_hint(reader)}"
        )


def _allowlist_entries(
    client: Client, files: FolderFiles, record: AttachRecord | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the entries that the allowlist lacks, and those that a detach has to remove."""
    allowlist = Allowlist(client, files.script_path)
    entries = (files.script_path,)
    if not allowlist.allows_script:
        return entries, entries
    is_ours = record is not None and bool(record.allowlist_entries) and allowlist.lists_script
    return (), entries if is_ours else ()


def _with_script(scripts: tuple[Script, ...], script: Script | None) -> tuple[Script, ...]:
    """Return a cluster's init scripts with ours once: at its place, or after all others."""
    if script is None or any(is_same_script(present, script) for present in scripts):
        return scripts
    return (*scripts, script)


def _previous_values(
    current: ClusterSettings,
    files: FolderFiles,
    record: AttachRecord | None,
    *,
    is_attached: bool,
) -> dict[str, str | None]:
    """Return the values that our variables had before the first attach, for a detach.

    Raises:
        ClusterError: A value to keep is a secret in plain text.
    """
    recorded: Mapping[str, str | None] = record.previous_values if record else {}
    values = dict(current.variables)
    if is_attached and record is None:
        # The record is lost: a variable with our value was set by the attach.
        ours = files.variables
        values = {name: value for name, value in values.items() if ours.get(name) != value}
    previous_values = {
        name: recorded[name] if name in recorded else values.get(name) for name in files.variables
    }
    for name, value in previous_values.items():
        if value is not None and has_secret(name, value):
            raise ClusterError(
                f"variable {name} must hold no secret in plain text, because the record for detach "
                "would keep it: the cluster has one; use {{secrets/<scope>/<key>}} or remove it"
            )
    return previous_values
