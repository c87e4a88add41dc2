"""The record of an attach: its additions to a cluster, and the values that they replaced.

The record lies beside the uploaded files and is written before the cluster changes. A detach, or
an attach after an interrupted one, reads in it how the cluster was before.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.folder import ClusterFolder, absolute_path
from dbx_aml.cluster.init_script import SCRIPT_NAME
from dbx_aml.link.config_file import CONFIG_NAME

RECORD_NAME = "attached.json"
CONFIG_VARIABLE = "DBX_AML_CONFIG"


@dataclass(frozen=True, kw_only=True)
class AttachRecord:
    """The attach of one cluster; the fields are the keys of the JSON object.

    Args:
        method: "init-script", "libraries" or "policy".
        script: Our init script, as the clusters API names it; None with method "libraries".
        variables: Variables that the attach set.
        previous_values: Value that each of these variables had before; None if it was not set.
        libraries: Libraries that the attach added.
        allowlist_entries: Paths that the attach added to the metastore's allowlist.
        policy_id: Cluster policy that the attach set.
        files: SHA-256 of each uploaded file, by its name in the folder.
        version: Version of dbx-aml.
    """

    method: str
    script: Mapping[str, Any] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    previous_values: Mapping[str, str | None] = field(default_factory=dict)
    libraries: tuple[Mapping[str, Any], ...] = ()
    allowlist_entries: tuple[str, ...] = ()
    policy_id: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    version: str = ""

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
    def from_json(cls, text: bytes, path: str) -> Self:
        """Return the record in a file; unknown keys of a later release are ignored.

        Args:
            text: Content of the file.
            path: Path of the file, for the error.

        Raises:
            ClusterError: The file is not a record.
        """
        try:
            content = json.loads(text)
            fields = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
            for name in ("libraries", "allowlist_entries"):
                fields[name] = tuple(fields.get(name, ()))
            return cls(**fields)
        except (ValueError, TypeError) as err:
            raise ClusterError(
                f"record of the attach must be readable: {path} is damaged; remove the script and "
                "its variables on the cluster's page, and delete the file"
            ) from err


def read_record(folder: ClusterFolder) -> AttachRecord | None:
    """Return the record in a cluster's folder, or None if the folder has no record.

    Raises:
        ClusterError: The record is damaged.
        ServiceError: The caller may not read the folder.
    """
    text = folder.read_file(RECORD_NAME)
    return None if text is None else AttachRecord.from_json(text, folder.file_path(RECORD_NAME))


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
        if folder.endswith(f"/{cluster.cluster_id}") and name in (SCRIPT_NAME, CONFIG_NAME):
            return folder
    return None


def _script_location(script: Mapping[str, Any]) -> tuple[str, str]:
    kind, storage = next(iter(script.items()))
    return kind, absolute_path(str(storage.get("destination")))
