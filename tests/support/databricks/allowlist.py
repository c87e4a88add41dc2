"""The metastore's allowlists: what standard access mode may run. A PUT replaces the whole list."""

import time
from typing import Any

from tests.support.databricks.route import Call, Handler, copied, invalid

_KINDS = ("INIT_SCRIPT", "LIBRARY_JAR", "LIBRARY_MAVEN")


class Allowlists:
    """One list a kind, empty at first."""

    def __init__(self) -> None:
        self._matchers: dict[str, list[dict[str, str]]] = {kind: [] for kind in _KINDS}

    def allows(self, kind: str, path: str) -> bool:
        """Tell whether a file may be run: its path begins with an entry, be it half a name."""
        return any(path.startswith(one["artifact"]) for one in self._matchers[kind])

    def artifacts(self, kind: str = "INIT_SCRIPT") -> list[str]:
        """Return the prefixes of a list, in their order."""
        return [one["artifact"] for one in self._matchers[kind]]

    def set(self, *artifacts: str, kind: str = "INIT_SCRIPT") -> None:
        """Set a list to these prefixes."""
        self._matchers[kind] = [
            {"artifact": artifact, "match_type": "PREFIX_MATCH"} for artifact in artifacts
        ]

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
        path = "/api/2.1/unity-catalog/artifact-allowlists/{kind}"
        return {f"GET {path}": self._get, f"PUT {path}": self._put}

    def _get(self, call: Call) -> dict[str, Any]:
        return self._as_json(self._kind(call))

    def _put(self, call: Call) -> dict[str, Any]:
        kind = self._kind(call)
        given = call.body.get("artifact_matchers", [])
        for one in given:
            if one.get("match_type") != "PREFIX_MATCH" or not one.get("artifact"):
                raise invalid(f"Invalid artifact matcher: {one}")
        self._matchers[kind] = copied(given)
        return self._as_json(kind)

    def _kind(self, call: Call) -> str:
        kind = call.parts["kind"]
        if kind not in _KINDS:
            raise invalid(f"Artifact type must be one of {_KINDS}: {kind}")
        return kind

    def _as_json(self, kind: str) -> dict[str, Any]:
        return {
            "artifact_matchers": copied(self._matchers[kind]),
            "created_at": int(time.time() * 1000),
            "created_by": "admin@contoso.com",
            "metastore_id": "5a8f5a3e-0000-4000-8000-000000000001",
        }
