"""Libraries of clusters: installed some polls after the request, removed at the next restart.

A running cluster keeps an installed library by its path: a request for the same path changes
nothing before the next start, even if the file has other content.

Source:
    Databricks, "Cluster libraries": an updated library needs a restart of the cluster.
"""

from collections import defaultdict
from typing import Any

from tests.support.databricks.cluster import Clusters
from tests.support.databricks.route import Call, Handler, deep_copy, invalid_parameter
from tests.support.databricks.volume import Volumes
from tests.support.databricks.workspace_file import WorkspaceFiles

_STEPS = ("PENDING", "INSTALLING", "INSTALLED")


class Libraries:
    """The requested libraries of each cluster."""

    def __init__(self, clusters: Clusters, volumes: Volumes, files: WorkspaceFiles) -> None:
        self._clusters = clusters
        self._volumes = volumes
        self._files = files
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        # A restarted cluster installs its libraries again.
        self._boots: dict[str, int] = {}
        self._installed: dict[tuple[str, str], bytes] = {}

    def content(self, cluster_id: str, path: str) -> bytes | None:
        """Return the content of a wheel as the cluster has installed it."""
        return self._installed.get((cluster_id, path))

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        return {
            "POST /api/2.0/libraries/install": self._install,
            "POST /api/2.0/libraries/uninstall": self._uninstall,
            "GET /api/2.0/libraries/cluster-status": self._status,
        }

    def _install(self, call: Call) -> None:
        cluster = self._clusters.find(call.required("cluster_id"))
        rows = self._rows[cluster.cluster_id]
        for library in call.required("libraries"):
            if len(library) != 1:
                raise invalid_parameter("Exactly one of jar, whl, pypi, maven, cran, requirements")
            same = [row for row in rows if row["library"] == library]
            if cluster.state == "RUNNING" and [row["status"] for row in same] == ["INSTALLED"]:
                continue
            for row in same:
                rows.remove(row)
            rows.append({"library": deep_copy(library), "status": "PENDING"})

    def _uninstall(self, call: Call) -> None:
        cluster = self._clusters.find(call.required("cluster_id"))
        rows = self._rows[cluster.cluster_id]
        for row in [row for row in rows if row["library"] in call.required("libraries")]:
            if cluster.state == "RUNNING":
                row["status"] = "UNINSTALL_ON_RESTART"
            else:
                rows.remove(row)

    def _status(self, call: Call) -> dict[str, Any]:
        cluster = self._clusters.find(call.required("cluster_id"))
        rows = self._rows[cluster.cluster_id]
        if self._boots.get(cluster.cluster_id, 0) != cluster.boots:
            self._boots[cluster.cluster_id] = cluster.boots
            rows[:] = [row for row in rows if row["status"] != "UNINSTALL_ON_RESTART"]
            for row in rows:
                row["status"] = "PENDING"
        statuses = [
            {
                **deep_copy(row),
                "is_library_for_all_clusters": False,
                "messages": row.get("messages", []),
            }
            for row in rows
        ]
        if cluster.state == "RUNNING":
            for row in rows:
                self._step(cluster.cluster_id, row)
        return {"cluster_id": cluster.cluster_id, "library_statuses": statuses}

    def _step(self, cluster_id: str, row: dict[str, Any]) -> None:
        if row["status"] not in _STEPS[:-1]:
            return
        row["status"] = _STEPS[_STEPS.index(row["status"]) + 1]
        path = row["library"].get("whl") or row["library"].get("requirements")
        if row["status"] != "INSTALLED" or not path:
            return
        content = self._volumes.files.get(path, self._files.content(path))
        if content is None:
            row["status"] = "FAILED"
            row["messages"] = [f"Library installation failed: {path} does not exist."]
        else:
            self._installed[cluster_id, path] = content
