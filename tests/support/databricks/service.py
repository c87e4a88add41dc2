"""The workspace: its path_values, the check of the caller, and one request at a time."""

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
from tests.support.databricks.model_registry import ModelRegistry
from tests.support.databricks.permission import Permissions
from tests.support.databricks.policy import Policies
from tests.support.databricks.route import Call, Problem, Routes
from tests.support.databricks.volume import Volumes
from tests.support.databricks.workspace_file import WorkspaceFiles
from tests.support.http.messages import Request, Response, json_response

log = logging.getLogger(__name__)
_OPEN = ("/.well-known/", "/oidc/")


class Service:
    """All path_values of the API. A new part needs a module and two lines in this class.

    Attributes:
        denied: Pairs of a regular expression for "METHOD path" and the message of the error 403.
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
        self.boot.user = user
        self.clusters = Clusters(self.boot)
        self.commands = Commands(self.clusters, self.boot)
        self.libraries = Libraries(self.clusters, self.volumes, self.files)
        self.policies = Policies()
        self.permissions = Permissions()
        self.jobs = Jobs(self.permissions, TaskCheck(self.boot, self.files, self.volumes))
        self.experiments = Experiments(self.permissions, self.files)
        self.catalogs = Catalogs(self.volumes)
        self.grants = Grants(self.catalogs, self.volumes)
        self.boot.volume_grants = self.catalogs.grants
        self.model_registry = ModelRegistry(self.catalogs)
        for path, principal in ((f"/Users/{user}", user), ("/Shared", "users")):
            folder = str(self.files.items[path].object_id)
            self.permissions.set_managers("directories", folder, principal)
        self._routes = Routes()
        for part in (
            self.identity,
            self.files,
            # Its folder of files is no volume.
            self.model_registry,
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

    def respond(self, request: Request) -> Response:
        """Answer one request; of two at a time the second waits."""
        try:
            with self._lock:
                return self._dispatch(request)
        except Problem as problem:
            return problem.to_response()
        except Exception as err:  # a bug of the stand-in must show, not hang
            log.exception("failed to answer method=%s path=%s", request.method, request.path)
            return Problem(500, "INTERNAL_ERROR", f"The stand-in failed: {err!r}").to_response()

    def _dispatch(self, request: Request) -> Response:
        handler, path_values = self._routes.find(request)
        if not request.path.startswith(_OPEN):
            self._check(request)
        answer = handler(Call(request=request, path_values=path_values, user=self.identity.user))
        return answer if isinstance(answer, Response) else json_response(answer or {})

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
