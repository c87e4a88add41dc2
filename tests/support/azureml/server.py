"""The process of the stand-in: everything started, tied together, and steered by its admin port.

Only `__main__.py` uses it.
"""

import base64
from os import urandom
from pathlib import Path
from typing import Any

from tests.support.azureml.azurite import start_azurite
from tests.support.azureml.backend import Backend
from tests.support.azureml.blob import Blobs
from tests.support.azureml.certificate import make_certificates
from tests.support.azureml.entra import Entra
from tests.support.azureml.permission import Permissions
from tests.support.azureml.proxy_server import ProxyServer
from tests.support.azureml.service import Service
from tests.support.azureml.token import Tokens
from tests.support.azureml.tracking import Tracking
from tests.support.azureml.upstream import Upstream
from tests.support.azureml.workspace import ADMIN_PATH, IDENTITY_PATH, Workspace
from tests.support.child_process import proxy_variables
from tests.support.http.faults import Fault, Faults
from tests.support.http.journal import Journal
from tests.support.http.messages import Request, Response, json_response


class Server:
    """A running stand-in."""

    def __init__(self, folder: Path, workspace: Workspace) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Children first: a process that has threads should not fork.
        self._backend = backend = Backend(folder)
        key = base64.b64encode(urandom(64)).decode()
        azurite_port = start_azurite(folder, workspace.storage_account, key)
        self._certificates = make_certificates(folder / "certificates", workspace.hosts)
        self._tokens = Tokens()
        self._permissions = Permissions()
        self._entra = Entra(self._tokens, self._certificates.client)
        self._token_file = folder / "federated-token"
        self._token_file.write_text(self._entra.federated_token)
        self._faults = Faults()
        self._journal = Journal()
        self._service = Service(
            workspace,
            self._tokens,
            self._permissions,
            self._entra,
            Tracking(workspace, Upstream(backend.port)),
            Blobs(workspace, key, azurite_port),
            folder / "deployments",
        )
        self._proxy = ProxyServer(
            self._certificates.server,
            workspace.hosts,
            self._service.respond,
            self._direct,
            self._faults,
            self._journal,
        )
        self._service.jobs.client_variables = {
            **proxy_variables(
                f"http://127.0.0.1:{self._proxy.server_port}", self._certificates.authority
            ),
            "AZUREML_CURRENT_CLOUD": "AzureCloud",
        }
        backend.wait()

    def connection_details(self) -> dict[str, Any]:
        """Return port, certificates and secrets, which a client needs."""
        return {
            "port": self._proxy.server_port,
            "authority": str(self._certificates.authority),
            "client_certificate": str(self._certificates.client),
            "client_secret": self._entra.client_secret,
            "federated_token_file": str(self._token_file),
            "identity_header": self._entra.identity_header,
        }

    def _direct(self, request: Request) -> Response:
        """Answer what came without a tunnel: the admin port and the managed identity."""
        if request.path == IDENTITY_PATH:
            return self._service.managed_identity(request)
        call = request.path.removeprefix(ADMIN_PATH)
        if call == "requests":
            return json_response(self._journal.to_dicts())
        if request.method != "POST":
            return Response(status=404)
        if call == "faults":
            self._faults.add(Fault(**request.json()))
        elif call == "state":
            self._set(request.json())
        elif call == "reset":
            self._reset()
        elif call == "delete-data":
            self._delete_data()
        else:
            return Response(status=404)
        return json_response({})

    def _set(self, state: dict[str, Any]) -> None:
        if "token_lifetime_s" in state:
            self._tokens.lifetime_s = float(state["token_lifetime_s"])
        if "denied" in state:
            self._permissions.denied = tuple(state["denied"])
        if "operation_host" in state:
            self._service.resources.operation_host = state["operation_host"]
        if "endless_operations" in state:
            self._service.resources.endless = state["endless_operations"]
        if "job_fault" in state:
            self._service.jobs.fault = state["job_fault"]
        if state.get("revoke_tokens"):
            self._tokens.revoke_all()

    def _reset(self) -> None:
        self._faults.clear()
        self._proxy.release_requests()
        self._tokens.reset()
        self._permissions.denied = ()
        self._service.resources.reset_faults()
        self._service.jobs.fault = ""
        self._journal.clear()

    def _delete_data(self) -> None:
        self._backend.clear()
        self._service.clear_artifacts()
        self._service.clear_resources()
