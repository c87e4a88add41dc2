"""A cluster as the clusters API describes it, found by its id or by its name."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dbx_aml._common.errors import ClusterError, NotFoundError
from dbx_aml._common.http import paged
from dbx_aml.cluster.client import Client

# Receives each message about the progress of a change.
Reporter = Callable[[str], None]

_CLUSTER_ID = re.compile(r"\d{4}-\d{6}-\w+")
_STANDARD_MODES = ("USER_ISOLATION", "DATA_SECURITY_MODE_STANDARD", "DATA_SECURITY_MODE_AUTO")
_DEDICATED_MODES = ("SINGLE_USER", "DATA_SECURITY_MODE_DEDICATED")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster at the moment at which it was read.

    Args:
        spec: Answer of the clusters API, with all fields.
    """

    # The variables of other people may be secrets.
    spec: Mapping[str, Any] = field(repr=False)

    @property
    def cluster_id(self) -> str:
        """Id, for example "1124-221530-ab12cd34"."""
        return str(self.spec["cluster_id"])

    @property
    def name(self) -> str:
        """Name; several clusters may share a name."""
        return str(self.spec.get("cluster_name", ""))

    @property
    def state(self) -> str:
        """State, for example "RUNNING"."""
        return str(self.spec.get("state", "UNKNOWN"))

    @property
    def is_active(self) -> bool:
        """Whether the cluster runs, or is about to: a change of its settings restarts it."""
        return self.state not in ("TERMINATED", "TERMINATING")

    @property
    def spark_version(self) -> str:
        """Runtime, for example "17.3.x-scala2.13"."""
        return str(self.spec.get("spark_version", ""))

    @property
    def is_standard(self) -> bool:
        """Whether the access mode is standard: init scripts must be in volumes and allowlisted."""
        return self.spec.get("data_security_mode") in _STANDARD_MODES

    @property
    def access_mode(self) -> str:
        """Access mode with the name that Databricks' pages use."""
        mode = str(self.spec.get("data_security_mode") or "NONE")
        if self.is_standard:
            return "standard"
        if mode in _DEDICATED_MODES:
            return "dedicated"
        return "no isolation" if mode == "NONE" else mode.lower()

    @property
    def has_unity_catalog(self) -> bool:
        """Whether the access mode has Unity Catalog, without which a cluster reads no volume.

        Source:
            Databricks REST API, "data_security_mode" of the clusters API.
        """
        mode = str(self.spec.get("data_security_mode") or "NONE")
        return mode != "NONE" and not mode.startswith("LEGACY_")

    @property
    def reader(self) -> str:
        """User, group or service principal as whom the cluster reads its script and libraries.

        Source:
            Databricks, "What are init scripts?": the assigned principal in dedicated access mode,
            else the owner of the cluster. An owner who was changed is not in the API's answer.
        """
        assigned = self.spec.get("single_user_name") if self.access_mode == "dedicated" else None
        return str(assigned or self.spec.get("creator_user_name") or "")

    @property
    def init_scripts(self) -> list[dict[str, Any]]:
        """Init scripts in the order in which they run."""
        return list(self.spec.get("init_scripts") or [])

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables."""
        return dict(self.spec.get("spark_env_vars") or {})

    @property
    def restarted_at(self) -> int:
        """Time of the last start in milliseconds since 1970; 0 if the API does not have it."""
        return int(self.spec.get("last_restarted_time") or self.spec.get("start_time") or 0)

    @property
    def termination_message(self) -> str:
        """Cause of the termination on one line, for example a failed init script."""
        reason: Mapping[str, Any] = self.spec.get("termination_reason") or {}
        parameters = reason.get("parameters") or {}
        details = parameters.get("databricks_error_message") or self.spec.get("state_message") or ""
        code = str(reason.get("code") or "no reason given")
        return f"{code}: {details}" if details else code

    @property
    def init_script_logs(self) -> str:
        """Folder of the output of the cluster's init scripts."""
        destinations: Mapping[str, Any] = self.spec.get("cluster_log_conf") or {}
        for destination in destinations.values():
            if destination.get("destination"):
                return f"{destination['destination'].rstrip('/')}/{self.cluster_id}/init_scripts"
        return "/databricks/init_scripts on its nodes (log delivery is not set up)"

    def __str__(self) -> str:
        return f"{self.name} ({self.cluster_id})"


def get_cluster(client: Client, cluster_id: str) -> Cluster:
    """Read the cluster with an id.

    Raises:
        NotFoundError: The workspace has no cluster with this id.
        ServiceError: The caller may not see the cluster.
    """
    spec = client.call(
        "GET",
        "/api/2.1/clusters/get",
        operation=f"see cluster {cluster_id}",
        query={"cluster_id": cluster_id},
        hint="ask its owner for CAN MANAGE",
    )
    return Cluster(spec=spec)


def find_cluster(client: Client, cluster: str) -> Cluster:
    """Read the cluster with an id or a unique name.

    Args:
        client: Databricks client of the caller.
        cluster: Id or name, for example "1124-221530-ab12cd34" or "team".

    Raises:
        ClusterError: No cluster, or more than one, has this id or name.
    """
    if _CLUSTER_ID.fullmatch(cluster):
        try:
            return get_cluster(client, cluster)
        except NotFoundError as err:
            raise _unknown_cluster(client, cluster) from err
    specs = [spec for spec in _list_specs(client) if spec.get("cluster_name") == cluster]
    if not specs:
        raise _unknown_cluster(client, cluster)
    if len(specs) > 1:
        ids = [spec["cluster_id"] for spec in specs]
        raise ClusterError(
            f"cluster must have a unique name: got {len(specs)} named {cluster!r}; use an id of "
            f"{ids}"
        )
    return get_cluster(client, str(specs[0]["cluster_id"]))


def _list_specs(client: Client) -> Iterator[dict[str, Any]]:
    """Yield all clusters; the SDK's own list has no end if a page leads to itself."""

    def fetch_page(token: str | None) -> tuple[list[dict[str, Any]], str | None]:
        query = {"page_size": "100", **({"page_token": token} if token else {})}
        page = client.call(
            "GET", "/api/2.1/clusters/list", operation="list the clusters", query=query
        )
        return page.get("clusters") or [], page.get("next_page_token")

    return paged(fetch_page, "2.1/clusters/list")


def _unknown_cluster(client: Client, cluster: str) -> ClusterError:
    return ClusterError(
        f"cluster must exist: got {cluster!r}, which {client.user} does not see on {client.host}; "
        "use a name or an id of its Compute page"
    )
