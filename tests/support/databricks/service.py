"""The workspace: all of its parts, who may ask, and one answer at a time."""

import logging
import re
from pathlib import Path
from threading import RLock

from tests.support.databricks.allowlist import Allowlists
from tests.support.databricks.boot import Boot
from tests.support.databricks.catalog import Catalogs
from tests.support.databricks.cluster import Clusters
from tests.support.databricks.command import Commands
from tests.support.databricks.experiment import Experiments
from tests.support.databricks.grant import Grants
from tests.support.databricks.identity import Identity
from tests.support.databricks.job import Jobs
from tests.support.databricks.job_check import TaskCheck
from tests.support.databricks.library import Libraries
from tests.support.databricks.permission import Permissions
from tests.support.databricks.policy import Policies
from tests.support.databricks.route import Call, Problem, Routes
from tests.support.databricks.volume import Volumes
from tests.support.databricks.workspace_file import WorkspaceFiles
from tests.support.http.messages import Request, Response, json_response

log = logging.getLogger(__name__)
_OPEN = ("/.well-known/", "/oidc/")


class Service:
    """Everything that answers. A new part is one more module and two lines here.

    Args:
        folder: For the files of drivers.
        user: Who asks.
        token: What the caller must have.

    Attributes:
        denied: Pairs of an expression found in "METHOD path", and what is said instead.
    """

    def __init__(self, folder: Path, user: str, token: str) -> None:
        self._token = token
        self._lock = RLock()
        self.denied: list[tuple[str, str]] = []
        self.identity = Identity(user)
        self.files = WorkspaceFiles(user)
        self.volumes = Volumes()
        self.allowlists = Allowlists()
        self.boot = Boot(folder, self.volumes, self.files, self.allowlists)
        self.clusters = Clusters(self.boot)
        self.commands = Commands(self.clusters, self.boot)
        self.libraries = Libraries(self.clusters, self.volumes, self.files)
        self.policies = Policies()
        self.permissions = Permissions()
        self.jobs = Jobs(self.permissions, TaskCheck(self.boot, self.files, self.volumes))
        self.experiments = Experiments(self.permissions, self.files)
        self.catalogs = Catalogs(self.volumes)
        self.grants = Grants(self.catalogs, self.volumes)
        for path, who in ((f"/Users/{user}", user), ("/Shared", "users")):
            folder = str(self.files.items[path].object_id)
            self.permissions.let("directories", folder, who)
        self._routes = Routes()
        for part in (
            self.identity,
            self.files,
            self.volumes,
            self.allowlists,
            self.clusters,
            self.commands,
            self.libraries,
            self.policies,
            self.permissions,
            self.jobs,
            self.experiments,
            self.catalogs,
            self.grants,
        ):
            self._routes.add(part.handlers())

    def answer(self, request: Request) -> Response:
        """Answer one request; of two at a time the second waits."""
        try:
            with self._lock:
                return self._answer(request)
        except Problem as problem:
            return problem.answer()
        except Exception as err:  # a mistake of ours must show, not hang
            log.exception("failed to answer method=%s path=%s", request.method, request.path)
            return Problem(500, "INTERNAL_ERROR", f"The stand-in failed: {err!r}").answer()

    def _answer(self, request: Request) -> Response:
        handler, parts = self._routes.find(request)
        if not request.path.startswith(_OPEN):
            self._check(request)
        given = handler(Call(request=request, parts=parts, user=self.identity.user))
        return given if isinstance(given, Response) else json_response(given or {})

    def _check(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self._token}":
            raise Problem(
                401,
                "UNAUTHENTICATED",
                "Credential was not sent or was of an unsupported type for this API.",
            )
        for pattern, message in self.denied:
            if re.search(pattern, f"{request.method} {request.path}"):
                raise Problem(403, "PERMISSION_DENIED", message)
