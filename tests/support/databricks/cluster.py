"""Clusters: their settings, their states, and the changes that each state allows.

Source: databricks-sdk's docstrings of the clusters API; FACTS.md section 7.
"""

import time
from typing import Any
from uuid import uuid4

from tests.support.databricks.boot import Boot
from tests.support.databricks.route import (
    Call,
    Handler,
    Problem,
    deep_copy,
    invalid_parameter,
    page_of,
)

# Fields that the service writes and no user may set.
_SERVICE_FIELDS = ("cluster_id", "state", "state_message", "termination_reason", "cluster_source")
_STARTING_STATES = ("PENDING", "RESTARTING")


class Cluster:
    """A cluster of the stand-in.

    Args:
        spec: Settings of the owner.
        state: RUNNING, TERMINATED, PENDING and so on.
        source: UI, API or JOB.

    Attributes:
        boots: Number of starts and restarts.
        ready_at: Time on the monotonic clock at which a start ends.
        shows_at: Time on the monotonic clock until which the API reports RUNNING.
    """

    def __init__(self, spec: dict[str, Any], state: str, source: str) -> None:
        self.cluster_id = f"1124-{uuid4().int % 10**6:06d}-{uuid4().hex[:8]}"
        self.spec = spec
        self.state = state
        self.source = source
        self.message = ""
        self.reason: dict[str, Any] | None = None
        self.boots = 0
        self.ready_at = float("inf")
        self.shows_at = 0.0
        self.restarted = int(time.time() * 1000)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer of `clusters/get`."""
        fields = {
            **deep_copy(self.spec),
            "cluster_id": self.cluster_id,
            "state": "RUNNING" if time.monotonic() < self.shows_at else self.state,
            "last_restarted_time": self.restarted,
            "state_message": self.message,
            "cluster_source": self.source,
        }
        return fields | ({"termination_reason": self.reason} if self.reason else {})


class Clusters:
    """All clusters of the workspace.

    Args:
        boot: Nodes, which run the init scripts.

    Attributes:
        start_s: Seconds of a start or a restart.
        lag_s: Seconds for which the API still reports RUNNING after the request of a restart.
    """

    def __init__(self, boot: Boot) -> None:
        self._boot = boot
        self.start_s = 0.05
        self.lag_s = 0.0
        self._clusters: dict[str, Cluster] = {}

    def add(self, name: str, *, state: str = "RUNNING", source: str = "UI", **spec: Any) -> Cluster:
        """Make a cluster without calling the API, in any state.

        Args:
            name: Name, which need not be unique.
            state: State until the next request that changes it.
            source: JOB for a cluster that a job made.
            spec: Further fields, for example `data_security_mode="USER_ISOLATION"`.
        """
        defaults = {
            "cluster_name": name,
            "spark_version": "17.3.x-scala2.13",
            "node_type_id": "Standard_D4ds_v5",
            "num_workers": 1,
            "data_security_mode": "SINGLE_USER",
        }
        cluster = Cluster({**defaults, **spec}, state, source)
        self._clusters[cluster.cluster_id] = cluster
        return cluster

    def find(self, cluster_id: str) -> Cluster:
        """Return a cluster; a start whose time has passed ends first.

        Raises:
            Problem: No cluster has this id.
        """
        if cluster_id not in self._clusters:
            raise Problem(400, "INVALID_PARAMETER_VALUE", f"Cluster {cluster_id} does not exist")
        cluster = self._clusters[cluster_id]
        self._advance(cluster)
        return cluster

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        return {
            "GET /api/2.*/clusters/get": lambda call: self._requested_cluster(call).to_dict(),
            "GET /api/2.*/clusters/list": self._list,
            "POST /api/2.*/clusters/update": self._update,
            "POST /api/2.*/clusters/restart": self._restart,
        }

    def _requested_cluster(self, call: Call) -> Cluster:
        return self.find(call.required("cluster_id"))

    def _list(self, call: Call) -> dict[str, Any]:
        for cluster in self._clusters.values():
            self._advance(cluster)
        rows = [cluster.to_dict() for cluster in self._clusters.values()]
        sources = call.query.get("filter_by.cluster_sources")
        rows = [row for row in rows if not sources or row["cluster_source"] == sources]
        return page_of(rows, call, size=20, key="clusters", field_of_size="page_size")

    def _update(self, call: Call) -> None:
        """Replace the fields of the mask; a masked field that the request lacks is removed."""
        cluster = self._requested_cluster(call)
        fields = call.body.get("cluster") or {}
        spec = deep_copy(cluster.spec)
        for name in call.required("update_mask").split(","):
            if name != name.strip() or name in _SERVICE_FIELDS:
                raise invalid_parameter(f"Invalid field in update_mask: '{name}'")
            spec.pop(name, None)
            if name in fields:
                spec[name] = fields[name]
        self._change(cluster, spec)

    def _change(self, cluster: Cluster, spec: dict[str, Any]) -> None:
        if cluster.source == "JOB":
            raise invalid_parameter(
                "Clusters created by the Databricks Jobs service cannot be edited."
            )
        if cluster.state not in ("RUNNING", "TERMINATED"):
            raise Problem(
                400,
                "INVALID_STATE",
                f"Cannot edit cluster {cluster.cluster_id} in state {cluster.state}; "
                "it must be RUNNING or TERMINATED.",
            )
        cluster.spec = spec
        if cluster.state == "RUNNING":
            self._begin_restart(cluster)

    def _restart(self, call: Call) -> None:
        cluster = self._requested_cluster(call)
        if cluster.state != "RUNNING":
            raise Problem(
                400,
                "INVALID_STATE",
                f"Cluster {cluster.cluster_id} is in unexpected state {cluster.state.title()}.",
            )
        self._begin_restart(cluster)

    def _begin_restart(self, cluster: Cluster) -> None:
        cluster.state, cluster.reason, cluster.message = "RESTARTING", None, ""
        cluster.shows_at = time.monotonic() + self.lag_s
        cluster.ready_at = cluster.shows_at + self.start_s

    def _advance(self, cluster: Cluster) -> None:
        """End a start whose time has passed: the cluster runs, or an init script has failed."""
        if cluster.state not in _STARTING_STATES or time.monotonic() < cluster.ready_at:
            return
        cluster.boots += 1
        message = self._boot.run_scripts(cluster.cluster_id, cluster.spec)
        if message:
            parameters = {"databricks_error_message": message}
            reason = {"code": "INIT_SCRIPT_FAILURE", "type": "CLIENT_ERROR"}
            cluster.state, cluster.message = "TERMINATED", message
            cluster.reason = {**reason, "parameters": parameters}
            return
        cluster.state, cluster.restarted = "RUNNING", int(time.time() * 1000)
