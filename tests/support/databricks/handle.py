"""A test's side of the stand-in: start it, steer it, look at what it keeps and what was asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.databricks.server import Server
from tests.support.databricks.service import Service
from tests.support.http.faults import Fault, Faults
from tests.support.http.journal import Entry, Journal

USER = "ana@contoso.com"
# Looks like one, so that a test can look for it where none may be.
TOKEN = "dapi" + "0123456789abcdef" * 2


class Databricks:
    """A running stand-in of a Databricks workspace, in a thread of this process.

    Args:
        folder: For what drivers of its clusters write.
        port: Where it listens; 0 for any that is free.

    Attributes:
        clusters: All clusters; `add` makes one in any state.
        volumes: Unity Catalog volumes; `add` makes one.
        files: Workspace files and folders.
        allowlists: The metastore's.
        boot: What init scripts do; see `Boot.run_script`.
        commands: Commands on drivers.
        policies: Cluster policies.
        jobs: Jobs and their runs; see `Jobs.run_task`.
        experiments: MLflow experiments.
        catalogs: Catalogs, schemas and grants.
        permissions: Who may do what with jobs and experiments.
        grants: Registered models, and who holds which privileges.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._faults = Faults()
        self._journal = Journal()
        service = Service(folder, USER, TOKEN)
        self._service = service
        self.clusters = service.clusters
        self.volumes = service.volumes
        self.files = service.files
        self.allowlists = service.allowlists
        self.boot = service.boot
        self.commands = service.commands
        self.policies = service.policies
        self.jobs = service.jobs
        self.experiments = service.experiments
        self.catalogs = service.catalogs
        self.permissions = service.permissions
        self.grants = service.grants
        self._server = Server(service.answer, self._faults, self._journal, port)

    @property
    def host(self) -> str:
        """What DATABRICKS_HOST is."""
        return self._server.url

    def environment(self) -> dict[str, str]:
        """Return the variables that bring an unmodified SDK or CLI here."""
        return {
            "DATABRICKS_HOST": self.host,
            "DATABRICKS_TOKEN": TOKEN,
            # Nobody's own profiles.
            "DATABRICKS_CONFIG_FILE": "/dev/null",
            "DATABRICKS_CLI_DISABLE_UPDATE_CHECK": "true",
            "no_proxy": "127.0.0.1,localhost",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def fault(self, kind: str, **where: Any) -> None:
        """Switch a fault on; see `Fault` for kinds and arguments.

        Example:
            databricks.fault("status", status=429, retry_after_s=1, path="clusters/get", count=2)
        """
        self._faults.add(Fault(kind=kind, **where))

    def deny(self, pattern: str, message: str = "User does not have permission.") -> None:
        """Answer 403 to what matches "METHOD path", for example "PUT .*artifact-allowlists"."""
        self._service.denied.append((pattern, message))

    def allow_all(self) -> None:
        """End all faults and give all permissions back."""
        self._faults.clear()
        self._service.denied.clear()

    def requests(self, *, method: str = "", path: str = "") -> list[Entry]:
        """Return what clients asked, oldest first.

        Args:
            method: All of it.
            path: Part of the path.
        """
        entries = [Entry(**entry) for entry in self._journal.to_dicts()]
        return [one for one in entries if path in one.path and method in ("", one.method)]

    def writes(self) -> list[Entry]:
        """Return the requests that were to change something."""
        reads = ("/clusters/events", "/contexts/", "/commands/")
        return [
            one
            for one in self.requests()
            if one.method not in ("GET", "HEAD") and not any(part in one.path for part in reads)
        ]

    def forget_requests(self) -> None:
        """Empty the journal."""
        self._journal.clear()

    def close(self) -> None:
        """End it."""
        self._server.close()


@contextmanager
def databricks_service(folder: Path, port: int = 0) -> Iterator[Databricks]:
    """Start a stand-in and end it afterwards; it takes no time and needs nothing.

    Args:
        folder: For what drivers of its clusters write.
        port: Where it listens; 0 for any that is free.

    Example:
        with databricks_service(tmp_path) as databricks:
            monkeypatch.setenv("DATABRICKS_HOST", databricks.host)
    """
    service = Databricks(folder, port)
    try:
        yield service
    finally:
        service.close()
