"""What happens on the nodes when a cluster comes up: its init scripts, one after another.

The rules that a script must keep are checked; what it does is up to the test, which may run it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dbx_aml.cluster.node.marker import MARKER_PATH, NodeMarker
from tests.support.databricks.allowlist import Allowlists
from tests.support.databricks.volume import Volumes
from tests.support.databricks.workspace_file import WorkspaceFiles

_LIMIT = 64 * 1024
Note = Callable[..., None]
# Path of the script, its text, the cluster's variables, the driver's root folder; its exit code.
Run = Callable[[str, bytes, Mapping[str, str], Path], int]


def _succeeds(path: str, text: bytes, variables: Mapping[str, str], root: Path) -> int:
    return 0


def leaves_marker(status: str = "ok", reason: str | None = None, code: int = 0) -> Run:
    """Return what an init script of ours does that ends so: it leaves a marker."""

    def run(path: str, text: bytes, variables: Mapping[str, str], root: Path) -> int:
        marker = NodeMarker(
            status=status,
            reason=reason,
            packages_from="index",
            installed={"azureml-mlflow": "1.62.0.post6"},
            steps={"install": 2.1},
        )
        if path.endswith("/dbx_aml_init.sh"):
            file = root / MARKER_PATH.relative_to("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(marker.to_json())
        return code

    return run


class Boot:
    """The nodes of all clusters.

    Args:
        folder: For the drivers' files.
        volumes: Where scripts are.
        files: Where scripts are.
        allowlists: Which scripts standard access mode takes.

    Attributes:
        run_script: What a script does; by default nothing, and it ends well.
        other_scripts: Scripts of other places, such as "abfss://...", by path.
    """

    def __init__(
        self, folder: Path, volumes: Volumes, files: WorkspaceFiles, allowlists: Allowlists
    ) -> None:
        self._folder = folder
        self._volumes = volumes
        self._files = files
        self._allowlists = allowlists
        self.run_script: Run = _succeeds
        self.other_scripts: dict[str, bytes] = {}

    def root(self, cluster_id: str) -> Path:
        """Return the folder that stands for the root of a cluster's driver."""
        folder = self._folder / cluster_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def run(self, cluster_id: str, spec: Mapping[str, Any], note: Note) -> str | None:
        """Run a cluster's scripts; return what is wrong with the first that fails.

        Args:
            cluster_id: Of the cluster.
            spec: Its settings.
            note: Keeps an event.
        """
        scripts = spec.get("init_scripts") or []
        if not scripts:
            return None
        note("INIT_SCRIPTS_STARTED", init_scripts={"cluster": scripts})
        done = []
        wrong = None
        for script in scripts:
            (kind, place) = next(iter(script.items()))
            path = place["destination"]
            why = self._why_not(kind, path, spec) or self._failed(path, kind, cluster_id, spec)
            status = "SCRIPT_EXEC_FAILED" if why else "SCRIPT_EXEC_SUCCEEDED"
            done.append({**script, "status": status})
            if why:
                wrong = f"Cluster scoped init script {path} failed: {why}"
                break
        note("INIT_SCRIPTS_FINISHED", init_scripts={"cluster": done})
        return wrong

    def _why_not(self, kind: str, path: str, spec: Mapping[str, Any]) -> str | None:
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
        if len(text) > _LIMIT:
            return "the file is larger than 64KB"
        return None

    def _failed(self, path: str, kind: str, cluster_id: str, spec: Mapping[str, Any]) -> str | None:
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
