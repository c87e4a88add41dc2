"""A cluster as the service has it, found by its id or by its name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.client import Client, Missing

_ID = re.compile(r"\d{4}-\d{6}-\w+")
_STANDARD = ("USER_ISOLATION", "DATA_SECURITY_MODE_STANDARD", "DATA_SECURITY_MODE_AUTO")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """One cluster at one moment.

    Args:
        spec: All that the service says of it.
    """

    spec: Mapping[str, Any]

    @property
    def cluster_id(self) -> str:
        """Its id, for example "1124-221530-ab12cd34"."""
        return str(self.spec["cluster_id"])

    @property
    def name(self) -> str:
        """Its name, which others may have too."""
        return str(self.spec.get("cluster_name", ""))

    @property
    def state(self) -> str:
        """For example "RUNNING"."""
        return str(self.spec.get("state", "UNKNOWN"))

    @property
    def is_up(self) -> bool:
        """Whether it runs, or will when it has come to rest: a change restarts it."""
        return self.state not in ("TERMINATED", "TERMINATING")

    @property
    def is_standard(self) -> bool:
        """Whether it is in standard access mode: scripts from volumes of the allowlist only."""
        return self.spec.get("data_security_mode") in _STANDARD

    @property
    def access_mode(self) -> str:
        """Its access mode, as the product's pages name it."""
        mode = str(self.spec.get("data_security_mode") or "NONE")
        if self.is_standard:
            return "standard"
        is_dedicated = mode in ("SINGLE_USER", "DATA_SECURITY_MODE_DEDICATED")
        return "dedicated" if is_dedicated else "no isolation" if mode == "NONE" else mode.lower()

    @property
    def init_scripts(self) -> list[dict[str, Any]]:
        """Its init scripts, in their order."""
        return list(self.spec.get("init_scripts") or [])

    @property
    def variables(self) -> dict[str, str]:
        """Its environment variables."""
        return dict(self.spec.get("spark_env_vars") or {})

    @property
    def restarted_at(self) -> int:
        """When it came up last, in milliseconds since 1970; 0 where the service does not say."""
        return int(self.spec.get("last_restarted_time") or self.spec.get("start_time") or 0)

    def __str__(self) -> str:
        return f"{self.name} ({self.cluster_id})"


def get_cluster(client: Client, cluster_id: str) -> Cluster:
    """Return the cluster of an id, as it is now.

    Raises:
        ClusterError: There is none, or the caller may not see it.
    """
    found = client.call(
        "GET",
        "/api/2.1/clusters/get",
        what=f"see cluster {cluster_id}",
        query={"cluster_id": cluster_id},
        hint="ask its owner for CAN MANAGE",
    )
    return Cluster(spec=found)


def find_cluster(client: Client, cluster: str) -> Cluster:
    """Return the cluster of an id or of a unique name.

    Args:
        client: Who asks.
        cluster: For example "1124-221530-ab12cd34", or "team".

    Raises:
        ClusterError: There is none, or there are several of this name.
    """
    if _ID.fullmatch(cluster):
        try:
            return get_cluster(client, cluster)
        except Missing as err:
            raise _unknown(client, cluster) from err
    found = [one for one in _all(client) if one.get("cluster_name") == cluster]
    if not found:
        raise _unknown(client, cluster)
    if len(found) > 1:
        ids = [one["cluster_id"] for one in found]
        raise ClusterError(
            f"cluster must have a unique name: got {len(found)} named {cluster!r}; use one of the "
            f"ids {ids}"
        )
    return get_cluster(client, str(found[0]["cluster_id"]))


def _unknown(client: Client, cluster: str) -> ClusterError:
    return ClusterError(
        f"cluster must exist: got {cluster!r}, which {client.user} does not see on {client.host}; "
        "use a name or an id of its Compute page"
    )


def _all(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = {"page_size": "100"}
    while True:
        page = client.call("GET", "/api/2.1/clusters/list", what="list the clusters", query=query)
        found += page.get("clusters", [])
        if not page.get("next_page_token"):
            return found
        query["page_token"] = page["next_page_token"]
