"""Clusters: what they are set to, the state they are in, and what may be done in which state.

Source: databricks-sdk's docstrings of the clusters API; FACTS.md section 7.
"""

import time
from typing import Any
from uuid import uuid4

from tests.support.databricks.boot import Boot
from tests.support.databricks.route import Call, Handler, Problem, copied, invalid, page_of

# Fields of a cluster that only the service writes.
_OWN = ("cluster_id", "state", "state_message", "termination_reason", "cluster_source")
_ON_THE_WAY = ("PENDING", "RESTARTING")


class Cluster:
    """One cluster.

    Args:
        spec: What its owner has set.
        state: RUNNING, TERMINATED, PENDING and so on.
        source: UI, API or JOB.

    Attributes:
        events: Oldest first.
        boots: How often it has come up since it was made.
    """

    def __init__(self, spec: dict[str, Any], state: str, source: str) -> None:
        self.cluster_id = f"1124-{uuid4().int % 10**6:06d}-{uuid4().hex[:8]}"
        self.spec = spec
        self.state = state
        self.source = source
        self.message = ""
        self.reason: dict[str, Any] | None = None
        self.events: list[dict[str, Any]] = []
        self.boots = 0
        self.ready_at = float("inf")
        self.shows_at = 0.0
        self.restarted = int(time.time() * 1000)

    def note(self, kind: str, **details: Any) -> None:
        """Keep one event more."""
        now = int(time.time() * 1000) + len(self.events)
        event = {"cluster_id": self.cluster_id, "timestamp": now, "type": kind}
        self.events.append({**event, "details": details})

    def as_json(self) -> dict[str, Any]:
        """Return it as `clusters/get` does."""
        found = {
            **copied(self.spec),
            "cluster_id": self.cluster_id,
            "state": "RUNNING" if time.monotonic() < self.shows_at else self.state,
            "last_restarted_time": self.restarted,
            "state_message": self.message,
            "cluster_source": self.source,
        }
        return found | ({"termination_reason": self.reason} if self.reason else {})


class Clusters:
    """All clusters of the workspace.

    Args:
        boot: What happens on the nodes when one comes up.

    Attributes:
        start_s: Seconds that a start or a restart takes.
        lag_s: Seconds for which a cluster still says RUNNING after a restart was asked for.
    """

    def __init__(self, boot: Boot) -> None:
        self._boot = boot
        self.start_s = 0.05
        self.lag_s = 0.0
        self._all: dict[str, Cluster] = {}

    def add(self, name: str, *, state: str = "RUNNING", source: str = "UI", **spec: Any) -> Cluster:
        """Make a cluster that has been there before the test, in any state.

        Args:
            name: Need not be unique, as on the platform.
            state: It stays in it until somebody asks for another.
            source: JOB for one that a job made.
            spec: Further fields, for example `data_security_mode="USER_ISOLATION"`.
        """
        plain = {
            "cluster_name": name,
            "spark_version": "17.3.x-scala2.13",
            "node_type_id": "Standard_D4ds_v5",
            "num_workers": 1,
            "data_security_mode": "SINGLE_USER",
        }
        cluster = Cluster({**plain, **spec}, state, source)
        self._all[cluster.cluster_id] = cluster
        return cluster

    def find(self, cluster_id: str) -> Cluster:
        """Return a cluster, in the state that it has by now.

        Raises:
            Problem: There is none of this id.
        """
        if cluster_id not in self._all:
            raise Problem(400, "INVALID_PARAMETER_VALUE", f"Cluster {cluster_id} does not exist")
        cluster = self._all[cluster_id]
        self._advance(cluster)
        return cluster

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
        return {
            "GET /api/2.*/clusters/get": lambda call: self._asked(call).as_json(),
            "GET /api/2.*/clusters/list": self._list,
            "POST /api/2.*/clusters/create": self._create,
            "POST /api/2.*/clusters/edit": self._edit,
            "POST /api/2.*/clusters/update": self._update,
            "POST /api/2.*/clusters/start": self._start,
            "POST /api/2.*/clusters/restart": self._restart,
            "POST /api/2.*/clusters/delete": self._terminate,
            "POST /api/2.*/clusters/permanent-delete": self._delete,
            "POST /api/2.*/clusters/events": self._events,
        }

    def _asked(self, call: Call) -> Cluster:
        return self.find(call.needed("cluster_id"))

    def _list(self, call: Call) -> dict[str, Any]:
        for cluster in self._all.values():
            self._advance(cluster)
        rows = [cluster.as_json() for cluster in self._all.values()]
        sources = call.query.get("filter_by.cluster_sources")
        rows = [row for row in rows if not sources or row["cluster_source"] == sources]
        return page_of(rows, call, size=20, key="clusters", field_of_size="page_size")

    def _create(self, call: Call) -> dict[str, Any]:
        spec = call.body
        name = spec.pop("cluster_name", "")
        cluster = self.add(name, state="TERMINATED", source="API", **spec)
        cluster.note("CREATING")
        self._come_up(cluster, "PENDING")
        return {"cluster_id": cluster.cluster_id}

    def _edit(self, call: Call) -> None:
        """Replace the whole spec: what is not given is gone."""
        cluster = self._asked(call)
        given = {name: value for name, value in call.body.items() if name not in _OWN}
        self._change(cluster, given)

    def _update(self, call: Call) -> None:
        """Replace what the mask names, whole; a field that is masked and not given is gone."""
        cluster = self._asked(call)
        given = call.body.get("cluster") or {}
        spec = copied(cluster.spec)
        for name in call.needed("update_mask").split(","):
            if name != name.strip() or name in _OWN:
                raise invalid(f"Invalid field in update_mask: '{name}'")
            spec.pop(name, None)
            if name in given:
                spec[name] = given[name]
        self._change(cluster, spec)

    def _change(self, cluster: Cluster, spec: dict[str, Any]) -> None:
        if cluster.source == "JOB":
            raise invalid("Clusters created by the Databricks Jobs service cannot be edited.")
        if cluster.state not in ("RUNNING", "TERMINATED"):
            raise Problem(
                400,
                "INVALID_STATE",
                f"Cannot edit cluster {cluster.cluster_id} in state {cluster.state}; "
                "it must be RUNNING or TERMINATED.",
            )
        before, cluster.spec = cluster.spec, spec
        cluster.note("EDITED", previous_attributes=before, attributes=copied(spec))
        if cluster.state == "RUNNING":
            self._come_up(cluster, "RESTARTING")

    def _start(self, call: Call) -> None:
        cluster = self._asked(call)
        if cluster.state != "TERMINATED":
            raise Problem(
                400,
                "INVALID_STATE",
                f"Cluster {cluster.cluster_id} is in unexpected state {cluster.state.title()}.",
            )
        cluster.note("STARTING", user=call.user)
        self._come_up(cluster, "PENDING")

    def _restart(self, call: Call) -> None:
        cluster = self._asked(call)
        if cluster.state != "RUNNING":
            raise Problem(
                400,
                "INVALID_STATE",
                f"Cluster {cluster.cluster_id} is in unexpected state {cluster.state.title()}.",
            )
        self._come_up(cluster, "RESTARTING")

    def _terminate(self, call: Call) -> None:
        cluster = self._asked(call)
        self._end(cluster, {"code": "USER_REQUEST", "type": "SUCCESS"}, "")

    def _delete(self, call: Call) -> None:
        del self._all[self._asked(call).cluster_id]

    def _events(self, call: Call) -> dict[str, Any]:
        events = list(self._asked(call).events)
        if call.body.get("order", "DESC") == "DESC":
            events.reverse()
        kinds = call.body.get("event_types")
        events = [event for event in events if not kinds or event["type"] in kinds]
        limit = call.body.get("limit") or 50
        return {"events": events[:limit], "total_count": len(events)}

    def _come_up(self, cluster: Cluster, state: str) -> None:
        cluster.state, cluster.reason, cluster.message = state, None, ""
        cluster.ready_at = time.monotonic() + self.start_s
        if state == "RESTARTING":
            cluster.shows_at = time.monotonic() + self.lag_s
            cluster.ready_at += self.lag_s
            cluster.note(state)

    def _advance(self, cluster: Cluster) -> None:
        """Let time pass: what is coming up is up, or has failed."""
        if cluster.state not in _ON_THE_WAY or time.monotonic() < cluster.ready_at:
            return
        cluster.boots += 1
        wrong = self._boot.run(cluster.cluster_id, cluster.spec, cluster.note)
        if wrong:
            parameters = {"databricks_error_message": wrong}
            reason = {"code": "INIT_SCRIPT_FAILURE", "type": "CLIENT_ERROR"}
            self._end(cluster, {**reason, "parameters": parameters}, wrong)
            return
        cluster.state, cluster.restarted = "RUNNING", int(time.time() * 1000)
        cluster.note("RUNNING", current_num_workers=cluster.spec.get("num_workers", 0))

    def _end(self, cluster: Cluster, reason: dict[str, Any], message: str) -> None:
        cluster.state, cluster.reason, cluster.message = "TERMINATED", reason, message
        cluster.note("TERMINATING", reason=reason)
