"""The metastore's allowlist: in standard access mode only the init scripts on it run."""

from typing import Any

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.client import Client

_MAX_ATTEMPTS = 5
_PATH = "/api/2.1/unity-catalog/artifact-allowlists/INIT_SCRIPT"


class Allowlist:
    """The allowlist of init scripts, as it was last read.

    The API replaces the whole list: of two users who change it at the same time, one loses. So the
    list is read right before it is written and once after, and what was lost is written again.

    Args:
        client: Databricks client of the caller.
        script: Path of our init script.

    Raises:
        PermissionDeniedError: The caller may not read or change the list.
    """

    def __init__(self, client: Client, script: str) -> None:
        self._client = client
        self._script = script
        self._matchers = self._read()

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
        """Add the script's path to the entries.

        Raises:
            ClusterError: Other users change the list again and again.
        """
        self._write(is_listed=True)

    def remove_script(self) -> None:
        """Remove the script's path; all other entries stay.

        Raises:
            ClusterError: Other users change the list again and again.
        """
        self._write(is_listed=False)

    def _write(self, *, is_listed: bool) -> None:
        entries = [{"artifact": self._script, "match_type": "PREFIX_MATCH"}] if is_listed else []
        for _ in range(_MAX_ATTEMPTS):
            self._matchers = self._read()
            if self.lists_script == is_listed:
                return
            others = [entry for entry in self._matchers if entry.get("artifact") != self._script]
            self._call("PUT", {"artifact_matchers": [*others, *entries]})
        self._matchers = self._read()
        if self.lists_script != is_listed:
            raise ClusterError(
                f"metastore's allowlist must keep the change of {self._script}: other users "
                f"replaced it {_MAX_ATTEMPTS} times; run the command again"
            )

    def _read(self) -> list[dict[str, Any]]:
        return list(self._call("GET").get("artifact_matchers", []))

    def _call(self, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
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
