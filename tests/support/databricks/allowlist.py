"""The metastore's allowlists for standard access mode. A PUT replaces the whole list."""

import time
from typing import Any

from tests.support.databricks.route import Call, Handler, deep_copy, invalid_parameter

_KINDS = ("INIT_SCRIPT", "LIBRARY_JAR", "LIBRARY_MAVEN")


class Allowlists:
    """The allowlists of init scripts, jars and Maven artifacts, empty at first."""

    def __init__(self) -> None:
        self._matchers: dict[str, list[dict[str, str]]] = {kind: [] for kind in _KINDS}

    def allows(self, kind: str, path: str) -> bool:
        """Tell whether a file may run: an entry, even half a file name, is a prefix of its path."""
        return any(path.startswith(matcher["artifact"]) for matcher in self._matchers[kind])

    def artifacts(self, kind: str = "INIT_SCRIPT") -> list[str]:
        """Return the prefixes of a list, in their order."""
        return [matcher["artifact"] for matcher in self._matchers[kind]]

    def set(self, *artifacts: str, kind: str = "INIT_SCRIPT") -> None:
        """Set a list to these prefixes."""
        self._matchers[kind] = [
            {"artifact": artifact, "match_type": "PREFIX_MATCH"} for artifact in artifacts
        ]

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        path = "/api/2.1/unity-catalog/artifact-allowlists/{kind}"
        return {f"GET {path}": self._get, f"PUT {path}": self._put}

    def _get(self, call: Call) -> dict[str, Any]:
        return self._to_dict(self._kind(call))

    def _put(self, call: Call) -> dict[str, Any]:
        kind = self._kind(call)
        matchers = call.body.get("artifact_matchers", [])
        for matcher in matchers:
            if matcher.get("match_type") != "PREFIX_MATCH" or not matcher.get("artifact"):
                raise invalid_parameter(f"Invalid artifact matcher: {matcher}")
        self._matchers[kind] = deep_copy(matchers)
        return self._to_dict(kind)

    def _kind(self, call: Call) -> str:
        kind = call.path_values["kind"]
        if kind not in _KINDS:
            raise invalid_parameter(f"Artifact type must be one of {_KINDS}: {kind}")
        return kind

    def _to_dict(self, kind: str) -> dict[str, Any]:
        return {
            "artifact_matchers": deep_copy(self._matchers[kind]),
            "created_at": int(time.time() * 1000),
            "created_by": "admin@contoso.com",
            "metastore_id": "5a8f5a3e-0000-4000-8000-000000000001",
        }
