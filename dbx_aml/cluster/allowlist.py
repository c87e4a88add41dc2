"""The metastore's allowlist of init scripts, without which standard access mode runs none."""

from collections.abc import Mapping
from typing import Any

from dbx_aml.cluster.client import Client

_PATH = "/api/2.1/unity-catalog/artifact-allowlists/INIT_SCRIPT"


class Allowlist:
    """The list as it is now. The service replaces it whole, so it is read, merged and written.

    Args:
        client: Who asks.
        script: The script it is about; named in the error of somebody who may not.

    Raises:
        ClusterError: The caller may not see or change the list.
    """

    def __init__(self, client: Client, script: str) -> None:
        self._client = client
        self._script = script
        self._matchers: list[dict[str, Any]] = self._call("GET").get("artifact_matchers", [])

    @property
    def takes_it(self) -> bool:
        """Whether the script may run: the list has a beginning of its path."""
        return any(self._script.startswith(one.get("artifact", "\0")) for one in self._matchers)

    @property
    def names_it(self) -> bool:
        """Whether the list has the very path of the script."""
        return any(one.get("artifact") == self._script for one in self._matchers)

    def add(self) -> None:
        """Add the script to those that are there."""
        entry = {"artifact": self._script, "match_type": "PREFIX_MATCH"}
        self._call("PUT", {"artifact_matchers": [*self._matchers, entry]})

    def remove(self) -> None:
        """Take the script away; all others stay."""
        rest = [one for one in self._matchers if one.get("artifact") != self._script]
        self._call("PUT", {"artifact_matchers": rest})

    def _call(self, method: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._client.call(
            method,
            _PATH,
            what="use the metastore's allowlist of init scripts, which standard access mode needs",
            body=body,
            hint=(
                f"a metastore administrator, or somebody with MANAGE ALLOWLIST, has to add "
                f"{self._script}; then give --skip-allowlist-check"
            ),
        )
