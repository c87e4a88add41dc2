"""The record of an attach: its additions to a cluster, and the values that they replaced.

The record lies beside the uploaded files and is written before the cluster changes. A detach, or
an attach after an interrupted one, reads in it how the cluster was before.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, TypeVar

from dbx_aml._common.errors import ClusterError, UnsafePathError
from dbx_aml._common.json_content import parse_json, read_fields
from dbx_aml._common.paths import check_relative_path
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.folder import ClusterFolder, absolute_path, is_cluster_folder
from dbx_aml.cluster.init_script import SCRIPT_NAME
from dbx_aml.link.config_file import CONFIG_NAME

RECORD_NAME = "attached.json"
CONFIG_VARIABLE = "DBX_AML_CONFIG"
# Subfolder of the wheels in the cluster's folder.
WHEELHOUSE_FOLDER = "wheelhouse"
AttachMethod = Literal["init-script", "libraries"]
# An attach that has not ended after this time was interrupted.
_LONGEST_ATTACH = timedelta(hours=1)
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class AttachRecord:
    """The attach of one cluster; the fields are the keys of the JSON object.

    Args:
        method: "init-script" or "libraries".
        script: Our init script, as the clusters API names it; None with method "libraries".
        variables: Variables that the attach set.
        previous_values: Value that each of these variables had before; None if it was not set.
        libraries: Libraries that the attach added.
        allowlist_entries: Paths that the attach added to the metastore's allowlist.
        files: SHA-256 of each uploaded file, by its name in the folder.
        version: Version of dbx-aml.
        attach_id: Unique text of each attach.
        user: Databricks user who attached the cluster.
        time: Begin of the attach, ISO 8601 in UTC.
        is_complete: Whether the cluster has the settings of the attach; False while an attach is
            at work, and after it was interrupted.
    """

    method: AttachMethod
    script: Mapping[str, Mapping[str, str]] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    previous_values: Mapping[str, str | None] = field(default_factory=dict)
    libraries: tuple[Mapping[str, str], ...] = ()
    allowlist_entries: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    attach_id: str = ""
    user: str = ""
    time: str = ""
    is_complete: bool = True

    def is_at_work(self) -> bool:
        """Tell whether the attach has begun within the last hour and has not ended."""
        try:
            age = datetime.now(UTC) - datetime.fromisoformat(self.time)
        except (ValueError, TypeError):
            return False
        return not self.is_complete and timedelta(0) <= age < _LONGEST_ATTACH

    def restore_variables(self, current: Mapping[str, str]) -> dict[str, str]:
        """Return a cluster's variables with their values from before the attach.

        A variable whose value was changed after the attach keeps the new value.

        Args:
            current: All variables of the cluster.
        """
        restored = {}
        for name, value in current.items():
            is_unchanged = self.variables.get(name) == value
            previous = self.previous_values.get(name) if is_unchanged else value
            if previous is not None:
                restored[name] = previous
        return restored

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: bytes, folder: ClusterFolder) -> Self:
        """Return the record in a file; unknown keys of a later release are ignored.

        Others may be able to write the file: a detach removes what the record names, so all of it
        must be in the folder.

        Args:
            text: Content of the file.
            folder: Folder of the file.

        Raises:
            ClusterError: The file is no record, or names files outside of the folder. The message
                repeats no text of the file.
        """
        try:
            values = read_fields(parse_json(text), cls, "method")
            for name in ("libraries", "allowlist_entries"):
                values[name] = tuple(values.get(name, ()))
            record = cls(**values)
            record._check_paths(folder)
        except ValueError as err:
            problem = str(err)
        else:
            return record
        raise ClusterError(
            f"record of the attach must be readable: {folder.file_path(RECORD_NAME)} is damaged "
            f"({problem}); remove the script and its variables on the cluster's page, and delete "
            "the file"
        )

    def _check_paths(self, folder: ClusterFolder) -> None:
        """Refuse a record that names anything outside of its cluster's folder.

        Raises:
            ValueError: A path leads elsewhere.
        """
        for key, paths in self._named_paths(folder):
            for path in paths:
                if not path.startswith(f"{folder.path}/") or not _is_file_name(
                    path.removeprefix(f"{folder.path}/")
                ):
                    raise ValueError(f"{key} must name files of this folder only")

    def _named_paths(self, folder: ClusterFolder) -> Iterator[tuple[str, list[str]]]:
        """Yield the path of everything that the record names, by the field's name."""
        yield "files", [f"{folder.path}/{name}" for name in self.files]
        yield "allowlist_entries", list(self.allowlist_entries)
        yield "libraries", [_only_value(library, "whl") or "" for library in self.libraries]
        if self.script is not None:
            (storage,) = folder.script_location(RECORD_NAME)
            location = _only_value(self.script, storage) or {}
            yield "script", [_only_value(location, "destination") or ""]


def _only_value(mapping: Mapping[str, Value], key: str) -> Value | None:
    """Return the value of the key if the mapping has no other one."""
    return mapping[key] if mapping.keys() == {key} else None


def _is_file_name(name: str) -> bool:
    """Tell whether a name is one of an attach: a plain one, or one in the subfolder of wheels."""
    try:
        parts = check_relative_path(name).split("/")
    except UnsafePathError:
        return False
    return len(parts) == 1 or (len(parts) == 2 and parts[0] == WHEELHOUSE_FOLDER)


def read_record(folder: ClusterFolder) -> AttachRecord | None:
    """Return the record in a cluster's folder, or None if the folder has no record.

    Raises:
        ClusterError: The record is damaged, or names files outside of the folder.
        ServiceError: The caller may not read the folder.
    """
    text = folder.read_file(RECORD_NAME)
    return None if text is None else AttachRecord.from_json(text, folder)


def refuse_other_attach(
    cluster: Cluster, record: AttachRecord | None, known_record: AttachRecord | None
) -> None:
    """Refuse to write over the files of an attach that has begun meanwhile.

    Args:
        cluster: Cluster to attach or detach.
        record: Record that is in the folder now.
        known_record: Record that was there when the caller looked last.

    Raises:
        ClusterError: The records are of different attaches. The message says who is at work.
    """
    if record is None or (known_record and known_record.attach_id == record.attach_id):
        return
    raise ClusterError(
        f"cluster {cluster} must be attached by one user at a time: {record.user!r} has begun an "
        f"attach at {record.time!r}; wait for its end, then run the command again"
    )


def write_record(folder: ClusterFolder, record: AttachRecord) -> None:
    """Write the record into a cluster's folder.

    Raises:
        ServiceError: The caller may not write to the folder.
    """
    folder.write_file(RECORD_NAME, record.to_json().encode())


def is_same_script(script: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    """Tell whether two init scripts of the clusters API are the same file."""
    return other is not None and _script_location(script) == _script_location(other)


def attached_folder(cluster: Cluster) -> str | None:
    """Return the folder that an attached cluster reads from, None for any other cluster.

    The settings of the cluster name it: in the path of our init script, or in the variable with
    the path of `config.json`.
    """
    paths = [_script_location(script)[1] for script in cluster.init_scripts]
    paths.append(absolute_path(cluster.variables.get(CONFIG_VARIABLE, "")))
    for path in paths:
        folder, _, name = path.rpartition("/")
        is_ours = folder.endswith(f"/{cluster.cluster_id}") and name in (SCRIPT_NAME, CONFIG_NAME)
        if is_ours and is_cluster_folder(folder):
            return folder
    return None


def _script_location(script: Mapping[str, Any]) -> tuple[str, str]:
    kind, storage = next(iter(script.items()))
    return kind, absolute_path(str(storage.get("destination")))
