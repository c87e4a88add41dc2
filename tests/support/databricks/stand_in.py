"""The stand-in as a test sees it: its data, its faults, and the requests that it received."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.databricks.route import Problem
from tests.support.databricks.service import Service
from tests.support.http.faults import Fault, Faults
from tests.support.http.journal import Entry, Journal
from tests.support.http.messages import Request, Response
from tests.support.http.server import Server

USER = "ana@contoso.com"
# In the shape of a real token, so that a test can search outputs for it.
TOKEN = "dapi" + "0123456789abcdef" * 2
_CODES = {
    403: "PERMISSION_DENIED",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


class Databricks:
    """A running stand-in of a Databricks workspace, in threads of this process.

    Args:
        folder: Parent of the root folders of its clusters' drivers.
        user: Signed-in user; the application ID of a service principal is its user name.

    Attributes:
        clusters: All clusters; `add` makes a cluster in any state.
        volumes: Unity Catalog volumes; `add` makes a volume.
        files: Workspace files and folders.
        allowlists: Allowlists of the metastore.
        boot: Nodes; `Boot.run_script` is the effect of an init script.
        commands: Commands on drivers.
        policies: Cluster policies.
        libraries: Libraries of the clusters.
        jobs: Jobs and their runs; `Jobs.run_task` is the effect of a task.
        experiments: MLflow experiments.
        catalogs: Catalogs, schemas and grants.
        permissions: Access lists of jobs, experiments and folders.
        grants: Owners of registered models, and effective privileges.
        model_registry: Registered models of Unity Catalog with their files.
    """

    def __init__(self, folder: Path, user: str = USER) -> None:
        self._user = user
        self._faults = Faults()
        self._journal = Journal()
        self._server = Server(self._respond, _fault_response, self._faults, self._journal)
        self.reset(folder)

    def reset(self, folder: Path) -> None:
        """Replace all data by the data of a new workspace; switch off faults, forget requests."""
        self._faults.clear()
        self._server.release_requests()
        self._journal.clear()
        service = Service(folder, self._user, TOKEN)
        self._service = service
        self.clusters = service.clusters
        self.volumes = service.volumes
        self.files = service.files
        self.allowlists = service.allowlists
        self.boot = service.boot
        self.commands = service.commands
        self.policies = service.policies
        self.libraries = service.libraries
        self.jobs = service.jobs
        self.experiments = service.experiments
        self.catalogs = service.catalogs
        self.permissions = service.permissions
        self.grants = service.grants
        self.model_registry = service.model_registry

    @property
    def host(self) -> str:
        """Value of DATABRICKS_HOST."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self) -> dict[str, str]:
        """Return the variables that lead an unmodified SDK or CLI to the stand-in."""
        return {
            "DATABRICKS_HOST": self.host,
            "DATABRICKS_TOKEN": TOKEN,
            # Profiles of the machine's user do not count.
            "DATABRICKS_CONFIG_FILE": "/dev/null",
            "DATABRICKS_CLI_DISABLE_UPDATE_CHECK": "true",
            "no_proxy": "127.0.0.1,localhost",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def fault(self, kind: str, **conditions: Any) -> None:
        """Switch a fault on; `Fault` has its kinds and conditions.

        Example:
            databricks.fault("status", status=429, retry_after_s=1, path="clusters/get", count=2)
        """
        self._faults.add(Fault(kind=kind, **conditions))

    def deny(self, pattern: str, message: str = "User does not have permission.") -> None:
        """Respond with 403 to requests whose "METHOD path" matches, as "PUT .*allowlists" does."""
        self._service.denied.append((pattern, message))

    def allow_all(self) -> None:
        """Switch off all faults and restore all permissions."""
        self._faults.clear()
        self._service.denied.clear()

    def requests(self, *, method: str = "", path: str = "") -> list[Entry]:
        """Return the requests of clients, oldest first.

        Args:
            method: HTTP method; "" for any.
            path: Part of the path.
        """
        entries = [Entry(**entry) for entry in self._journal.to_dicts()]
        return [entry for entry in entries if path in entry.path and method in ("", entry.method)]

    def writes(self) -> list[Entry]:
        """Return the requests that change something."""
        reads = ("/contexts/", "/commands/")
        return [
            entry
            for entry in self.requests()
            if entry.method not in ("GET", "HEAD") and not any(part in entry.path for part in reads)
        ]

    def forget_requests(self) -> None:
        """Empty the journal."""
        self._journal.clear()

    def close(self) -> None:
        """Stop the server."""
        self._server.close()

    def _respond(self, request: Request) -> Response:
        return self._service.respond(request)


def _fault_response(fault: Fault, request: Request) -> Response:
    wait = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    code = _CODES.get(fault.status, "BAD_REQUEST")
    message = f"The stand-in responds with {fault.status} for a test."
    return Problem(fault.status, code, message).to_response(**wait)


@contextmanager
def databricks_service(folder: Path, user: str = USER) -> Iterator[Databricks]:
    """Start a stand-in and stop it afterwards.

    Example:
        with databricks_service(tmp_path) as databricks:
            monkeypatch.setenv("DATABRICKS_HOST", databricks.host)
    """
    service = Databricks(folder, user)
    try:
        yield service
    finally:
        service.close()
