"""The metastore's allowlist: in standard access mode only the init scripts on it run."""

from collections.abc import Mapping
from typing import Any

from dbx_aml.cluster.client import Client

_PATH = "/api/2.1/unity-catalog/artifact-allowlists/INIT_SCRIPT"


class Allowlist:
    """The allowlist of init scripts, as it was when this object was made.

    The API replaces the whole list, so an entry is added to, or removed from, the list read here.

    Args:
        client: Databricks client of the caller.
        script: Path of our init script.

    Raises:
        PermissionDeniedError: The caller may not read or change the list.
    """

    def __init__(self, client: Client, script: str) -> None:
        self._client = client
        self._script = script
        self._matchers: list[dict[str, Any]] = self._call("GET").get("artifact_matchers", [])

    @property
    def allows_script(self) -> bool:
        """Whether the script may run: an entry is a prefix of its path."""
        return any(
            self._script.startswith(matcher.get("artifact", "\0")) for matcher in self._matchers
        )

    @property
    def lists_script(self) -> bool:
        """Whether an entry is exactly the script's path."""
        return any(matcher.get("artifact") == self._script for matcher in self._matchers)

    def add_script(self) -> None:
        """Add the script's path to the entries."""
        entry = {"artifact": self._script, "match_type": "PREFIX_MATCH"}
        self._call("PUT", {"artifact_matchers": [*self._matchers, entry]})

    def remove_script(self) -> None:
        """Remove the script's path; all other entries stay."""
        matchers = [
            matcher for matcher in self._matchers if matcher.get("artifact") != self._script
        ]
        self._call("PUT", {"artifact_matchers": matchers})

    def _call(self, method: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._client.call(
            method,
            _PATH,
            operation=(
                "use the metastore's allowlist of init scripts, which standard access mode needs"
            ),
            body=body,
            hint=(
                "a metastore administrator, or a user with MANAGE ALLOWLIST, has to add "
                f"{self._script}; then give --skip-allowlist-check"
            ),
        )
