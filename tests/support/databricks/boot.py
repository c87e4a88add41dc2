"""The nodes of starting clusters: their init scripts run one after another.

The platform's rules for init scripts are checked here. A test decides the effect of a script.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dbx_aml.cluster.node.marker import MARKER_PATH, NodeMarker
from tests.support.databricks.allowlist import Allowlists
from tests.support.databricks.volume import Volumes
from tests.support.databricks.workspace_file import WorkspaceFiles

_MAX_SCRIPT_BYTES = 64 * 1024
# Arguments: path and text of the script, variables of the cluster, root folder of the driver.
# Result: exit code.
ScriptRunner = Callable[[str, bytes, Mapping[str, str], Path], int]


def _succeed(path: str, text: bytes, variables: Mapping[str, str], root: Path) -> int:
    return 0


def leaves_marker(status: str = "ok", reason: str | None = None, code: int = 0) -> ScriptRunner:
    """Return a runner that writes the marker of our init script, and does nothing for others."""

    def run(path: str, text: bytes, variables: Mapping[str, str], root: Path) -> int:
        marker = NodeMarker(
            status=status,
            reason=reason,
            packages_from="wheelhouse /Volumes/main/ml/wheelhouse",
            installed={"azureml-mlflow": "1.62.0.post6"},
            steps={"install": 2.1},
            variables={"MLFLOW_TRACKING_URI": "azureml://x"} if status == "ok" else {},
        )
        if path.endswith("/dbx_aml_init.sh"):
            file = root / MARKER_PATH.relative_to("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(marker.to_json())
        return code

    return run


class Boot:
    """The nodes of all clusters.

    Attributes:
        run_script: Effect of an init script; by default none, with exit code 0.
        other_scripts: Init scripts in other storage, such as "abfss://...", by path.
        user: Signed-in user.
        volume_grants: Privileges by principal, by kind and name of the object.
    """

    def __init__(
        self, folder: Path, volumes: Volumes, files: WorkspaceFiles, allowlists: Allowlists
    ) -> None:
        self._folder = folder
        self._volumes = volumes
        self._files = files
        self._allowlists = allowlists
        self.run_script: ScriptRunner = _succeed
        self.other_scripts: dict[str, bytes] = {}
        self.user = ""
        self.volume_grants: Mapping[tuple[str, str], Mapping[str, list[str]]] = {}

    def root(self, cluster_id: str) -> Path:
        """Return the folder that stands for the root of a cluster's driver."""
        folder = self._folder / cluster_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def run_scripts(self, cluster_id: str, spec: Mapping[str, Any]) -> str | None:
        """Run a cluster's init scripts; return the error of the first script that fails."""
        for script in spec.get("init_scripts") or []:
            (kind, storage) = next(iter(script.items()))
            path = storage["destination"]
            failure = self._broken_rule(kind, path, spec) or self._script_failure(
                path, kind, cluster_id, spec
            )
            if failure:
                return f"Cluster scoped init script {path} failed: {failure}"
        return None

    def _broken_rule(self, kind: str, path: str, spec: Mapping[str, Any]) -> str | None:
        if kind == "volumes" and spec.get("data_security_mode") in (None, "NONE"):
            return "a cluster without Unity Catalog cannot read volumes"
        if spec.get("data_security_mode") == "USER_ISOLATION":
            if kind != "volumes":
                return "standard access mode takes init scripts from Unity Catalog volumes only"
            if not self._allowlists.allows("INIT_SCRIPT", path):
                return f"{path} is not in the allowlist of the metastore"
        text = self._text(kind, path)
        if text is None:
            return "the file does not exist"
        if not self._is_readable(kind, path, spec):
            return "the cluster may not read the file"
        if len(text) > _MAX_SCRIPT_BYTES:
            return "the file is larger than 64KB"
        return None

    def _is_readable(self, kind: str, path: str, spec: Mapping[str, Any]) -> bool:
        """Tell whether the principal as whom a cluster reads its scripts may read one.

        The reader is the assigned principal of a dedicated cluster, else the owner. The signed-in
        user may read every file of the stand-in.

        Source:
            Databricks, "What are init scripts?", access to files in volumes and in the workspace.
        """
        is_dedicated = spec.get("data_security_mode") == "SINGLE_USER"
        reader = (is_dedicated and spec.get("single_user_name")) or spec.get("creator_user_name")
        if reader in (None, self.user):
            return True
        if kind == "workspace":
            owner = re.fullmatch(r"(/Workspace)?/Users/([^/]+)/.*", path)
            return owner is None or owner[2] == reader
        name = ".".join(path.split("/")[2:5])
        if kind != "volumes" or self._volumes.find(name)["owner"] == reader:
            return True
        held = self.volume_grants.get(("volume", name), {})
        return any(
            {"READ_VOLUME", "ALL_PRIVILEGES"} & set(privileges)
            for principal, privileges in held.items()
            if principal in (reader, "account users")
        )

    def _script_failure(
        self, path: str, kind: str, cluster_id: str, spec: Mapping[str, Any]
    ) -> str | None:
        text = self._text(kind, path)
        assert text is not None
        variables = spec.get("spark_env_vars") or {}
        code = self.run_script(path, text, variables, self.root(cluster_id))
        return f"Script exit status is non-zero: {code}" if code else None

    def _text(self, kind: str, path: str) -> bytes | None:
        if kind == "volumes":
            return self._volumes.files.get(path)
        if kind == "workspace":
            return self._files.content(path)
        return self.other_scripts.get(path)
