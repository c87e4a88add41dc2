"""Commands on the driver (API 1.2): a client polls the context, then the command.

Python code really runs, in a child process; "/databricks/" in it means the cluster's folder.
"""

import subprocess
import sys
from typing import Any
from uuid import uuid4

from tests.support.databricks.boot import Boot
from tests.support.databricks.cluster import Clusters
from tests.support.databricks.route import Call, Handler, Problem, invalid_parameter

_TIMEOUT_S = 30


class Commands:
    """Contexts and commands of all clusters."""

    def __init__(self, clusters: Clusters, boot: Boot) -> None:
        self._clusters = clusters
        self._boot = boot
        self._contexts: dict[str, int] = {}
        self._commands: dict[str, dict[str, Any]] = {}

    @property
    def open_contexts(self) -> list[str]:
        """Contexts that no client has destroyed; a real cluster allows 150."""
        return list(self._contexts)

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        return {
            "POST /api/1.2/contexts/create": self._create,
            "GET /api/1.2/contexts/status": self._context,
            "POST /api/1.2/contexts/destroy": self._destroy,
            "POST /api/1.2/commands/execute": self._execute,
            "GET /api/1.2/commands/status": self._status,
        }

    def _create(self, call: Call) -> dict[str, Any]:
        cluster = self._clusters.find(call.required("clusterId"))
        if cluster.state != "RUNNING":
            raise Problem(400, "INVALID_STATE", f"ClusterNotRunning: {cluster.state}")
        new_id = uuid4().hex
        self._contexts[new_id] = 0
        return {"id": new_id}

    def _context(self, call: Call) -> dict[str, Any]:
        context = call.required("contextId")
        if context not in self._contexts:
            raise invalid_parameter("ContextNotFound")
        self._contexts[context] += 1
        # As on the platform, a new context is not ready at once.
        status = "Running" if self._contexts[context] > 1 else "Pending"
        return {"id": context, "status": status}

    def _destroy(self, call: Call) -> dict[str, Any]:
        context = call.required("contextId")
        self._contexts.pop(context, None)
        return {"id": context}

    def _execute(self, call: Call) -> dict[str, Any]:
        cluster = self._clusters.find(call.required("clusterId"))
        if call.required("contextId") not in self._contexts:
            raise invalid_parameter("ContextNotFound")
        if call.required("language") != "python":
            raise invalid_parameter("The stand-in runs python only.")
        root = self._boot.root(cluster.cluster_id)
        new_id = uuid4().hex
        self._commands[new_id] = _run(call.required("command"), f"{root}/databricks/")
        return {"id": new_id}

    def _status(self, call: Call) -> dict[str, Any]:
        new_id = call.required("commandId")
        if new_id not in self._commands:
            raise invalid_parameter("CommandNotFound")
        return {"id": new_id, "status": "Finished", "results": self._commands[new_id]}


def _run(code: str, databricks: str) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, "-I", "-c", code.replace("/databricks/", databricks)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if process.returncode:
        summary = process.stderr.strip().splitlines()[-1]
        return {"resultType": "error", "summary": summary, "cause": process.stderr}
    return {"resultType": "text", "data": process.stdout.rstrip("\n")}
