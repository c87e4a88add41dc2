"""The record of an attach: what we put on a cluster, and what was there under the same names.

It lies beside the uploaded files and is written before the cluster is changed, so that a detach,
or another attach after a kill, knows what was there before.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.folder import Folder, whole_path
from dbx_aml.cluster.init_script import SCRIPT_NAME
from dbx_aml.link.config_file import CONFIG_NAME

RECORD = "attached.json"
SCRIPT = SCRIPT_NAME
CONFIG = CONFIG_NAME
CONFIG_VARIABLE = "DBX_AML_CONFIG"
ROUTES = ("init-script", "libraries", "policy")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One attach of one cluster.

    Args:
        method: "init-script", "libraries" or "policy".
        script: Our init script as the clusters API names it; None where there is none.
        variables: Our variables.
        before: Value that each of them had before; None where it was not set.
        libraries: Libraries that were not there before.
        allowlisted: Script that we added to the allowlist.
        policy_id: The cluster policy that we set.
        files: SHA-256 of each uploaded file, by its name in the folder.
        version: Of the package that attached.
    """

    method: str
    script: Mapping[str, Any] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str | None] = field(default_factory=dict)
    libraries: tuple[Mapping[str, Any], ...] = ()
    allowlisted: str | None = None
    policy_id: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    version: str = ""

    def without_ours(self, now: Mapping[str, str]) -> dict[str, str]:
        """Return a cluster's variables as they were before us.

        One that somebody has changed since is theirs: it stays.

        Args:
            now: All of the cluster's variables.
        """
        found = {}
        for name, value in now.items():
            earlier = self.before.get(name) if self.variables.get(name) == value else value
            if earlier is not None:
                found[name] = earlier
        return found

    def to_bytes(self) -> bytes:
        """Return the file."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    @classmethod
    def of(cls, content: bytes, where: str) -> "Record":
        """Return the record of a file; keys of a later release are left out.

        Raises:
            ClusterError: It is none.
        """
        try:
            found = json.loads(content)
            known = {name: found[name] for name in cls.__dataclass_fields__ if name in found}
            known["libraries"] = tuple(known.get("libraries", ()))
            return cls(**known)
        except (ValueError, TypeError) as err:
            raise ClusterError(
                f"record of the attach must be readable: {where} is none; take the script and its "
                "variables off on the cluster's page, and remove the file"
            ) from err


def read_record(folder: Folder) -> Record | None:
    """Return the record of an attach, or None where there is none.

    Raises:
        ClusterError: The caller may not read it, or it is damaged.
    """
    content = folder.read(RECORD)
    return None if content is None else Record.of(content, folder.file(RECORD))


def is_same(script: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    """Tell whether two init scripts, as the clusters API names them, are one file."""

    def place(one: Mapping[str, Any]) -> tuple[str, str]:
        kind, where = next(iter(one.items()))
        return kind, whole_path(str(where.get("destination")))

    return other is not None and place(script) == place(other)


def attached_path(cluster: Cluster) -> str | None:
    """Return the folder that an attached cluster reads from; None where it is not attached.

    Its settings say it: our script's path, or the path of the link's file in a variable.
    """
    paths = [
        str(place.get("destination")) for one in cluster.init_scripts for place in one.values()
    ]
    paths.append(cluster.variables.get(CONFIG_VARIABLE, ""))
    for path in paths:
        folder, _, name = whole_path(path).rpartition("/")
        if folder.endswith(f"/{cluster.cluster_id}") and name in (SCRIPT, CONFIG):
            return folder
    return None
