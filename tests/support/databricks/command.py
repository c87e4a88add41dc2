"""Commands on the driver (API 1.2): a context, a command in it, its result, all to be polled.

Python code really runs, in a process of its own; "/databricks/" in it is the cluster's own folder.
"""

import subprocess
import sys
from typing import Any
from uuid import uuid4

from tests.support.databricks.boot import Boot
from tests.support.databricks.cluster import Clusters
from tests.support.databricks.route import Call, Handler, Problem, invalid

_LIMIT_S = 30


class Commands:
    """Contexts and commands of all clusters.

    Args:
        clusters: Which must be running.
        boot: Knows a driver's folder.
    """

    def __init__(self, clusters: Clusters, boot: Boot) -> None:
        self._clusters = clusters
        self._boot = boot
        self._contexts: dict[str, int] = {}
        self._commands: dict[str, dict[str, Any]] = {}

    @property
    def open_contexts(self) -> list[str]:
        """Contexts that nobody has destroyed: a cluster takes 150 of them."""
        return list(self._contexts)

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
        return {
            "POST /api/1.2/contexts/create": self._create,
            "GET /api/1.2/contexts/status": self._context,
            "POST /api/1.2/contexts/destroy": self._destroy,
            "POST /api/1.2/commands/execute": self._execute,
            "GET /api/1.2/commands/status": self._status,
        }

    def _create(self, call: Call) -> dict[str, Any]:
        cluster = self._clusters.find(call.needed("clusterId"))
        if cluster.state != "RUNNING":
            raise Problem(400, "INVALID_STATE", f"ClusterNotRunning: {cluster.state}")
        made = uuid4().hex
        self._contexts[made] = 0
        return {"id": made}

    def _context(self, call: Call) -> dict[str, Any]:
        context = call.needed("contextId")
        if context not in self._contexts:
            raise invalid("ContextNotFound")
        self._contexts[context] += 1
        # Not at once, as there.
        status = "Running" if self._contexts[context] > 1 else "Pending"
        return {"id": context, "status": status}

    def _destroy(self, call: Call) -> dict[str, Any]:
        context = call.needed("contextId")
        self._contexts.pop(context, None)
        return {"id": context}

    def _execute(self, call: Call) -> dict[str, Any]:
        cluster = self._clusters.find(call.needed("clusterId"))
        if call.needed("contextId") not in self._contexts:
            raise invalid("ContextNotFound")
        if call.needed("language") != "python":
            raise invalid("The stand-in runs python only.")
        root = self._boot.root(cluster.cluster_id)
        made = uuid4().hex
        self._commands[made] = _run(call.needed("command"), f"{root}/databricks/")
        return {"id": made}

    def _status(self, call: Call) -> dict[str, Any]:
        made = call.needed("commandId")
        if made not in self._commands:
            raise invalid("CommandNotFound")
        return {"id": made, "status": "Finished", "results": self._commands[made]}


def _run(code: str, databricks: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", code.replace("/databricks/", databricks)],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    if done.returncode:
        summary = done.stderr.strip().splitlines()[-1]
        return {"resultType": "error", "summary": summary, "cause": done.stderr}
    return {"resultType": "text", "data": done.stdout.rstrip("\n")}
