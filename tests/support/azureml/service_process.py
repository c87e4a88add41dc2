"""The stand-in in the hands of a test: start it, switch faults, read the journal, run clients."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

from tests.support.azureml.workspace import (
    ADMIN_PATH,
    CLIENT_ID,
    IDENTITY_PATH,
    TENANT_ID,
    Workspace,
)
from tests.support.child_process import clean_environment, proxy_variables
from tests.support.http.faults import Fault
from tests.support.http.journal import Entry

IDENTITIES = ("service-principal", "certificate", "managed", "workload", "none")
_ROOT = Path(__file__).parents[3]


class AzureMl:
    """A running stand-in of Azure ML.

    Args:
        details: Details that its process prints, see `Server.connection_details`.

    Attributes:
        workspace: The one workspace that exists.
        authority: Certificate that clients have to trust, PEM.
    """

    def __init__(self, details: Mapping[str, Any]) -> None:
        self._details = details
        self.workspace = Workspace()
        self.authority = Path(details["authority"])
        self._admin = urllib3.HTTPConnectionPool("127.0.0.1", details["port"], timeout=30)

    @property
    def tracking_uri(self) -> str:
        """The workspace's tracking URI, as the portal shows it."""
        return self.workspace.tracking_uri

    @property
    def proxy(self) -> str:
        """URL of the proxy that leads to the stand-in."""
        return f"http://127.0.0.1:{self._details['port']}"

    def environment(
        self, identity: str = "service-principal", *, skip_metadata: bool = True
    ) -> dict[str, str]:
        """Return the variables that bring an unmodified client here.

        Args:
            identity: "service-principal" (a secret), "certificate", "managed", "workload", "none".
            skip_metadata: Name the cloud, so that the client does not ask for its metadata.
        """
        variables = {
            **proxy_variables(self.proxy, self.authority),
            **self._identity(identity),
        }
        if skip_metadata:
            variables["AZUREML_CURRENT_CLOUD"] = "AzureCloud"
        return variables

    def fault(self, kind: str, **fields: Any) -> None:
        """Switch a fault on; see `Fault` for kinds and arguments.

        Example:
            azureml.fault("status", status=429, retry_after_s=1, path="runs/log-batch", count=2)
        """
        self._post("faults", Fault(kind=kind, **fields).to_dict())

    def deny(self, *actions: str) -> None:
        """Take actions away from the caller; "*" takes all, none gives all back."""
        self._post("state", {"denied": actions})

    def token_lifetime(self, seconds: float) -> None:
        """Let tokens issued from now on be good for so long."""
        self._post("state", {"token_lifetime_s": seconds})

    def revoke_tokens(self) -> None:
        """Answer 401 to every token issued so far."""
        self._post("state", {"revoke_tokens": True})

    def operation_host(self, host: str) -> None:
        """Name another host in the URLs of operations, until the next reset."""
        self._post("state", {"operation_host": host})

    def endless_operations(self) -> None:
        """Let operations go on for ever, until the next reset."""
        self._post("state", {"endless_operations": True})

    def job_fault(self, kind: str) -> None:
        """Let this happen to jobs that are submitted before the next reset; see `JOB_FAULTS`."""
        self._post("state", {"job_fault": kind})

    def reset(self) -> None:
        """End every fault, empty the journal, restore permissions and token lifetime."""
        self._post("reset", {})

    def delete_data(self) -> None:
        """Delete every experiment, run, model and artifact."""
        self._post("delete-data", {})

    def requests(self, *, host: str = "", path: str = "") -> list[Entry]:
        """Return what clients asked since the last reset, oldest first.

        Args:
            host: Part of the host's name.
            path: Part of the path.
        """
        answer = self._admin.request("GET", f"{ADMIN_PATH}requests")
        entries = [Entry(**entry) for entry in json.loads(answer.data)]
        return [entry for entry in entries if host in entry.host and path in entry.path]

    def wait_for(self, *, host: str = "", path: str = "", count: int = 1) -> list[Entry]:
        """Wait until clients have asked `count` times, for example to kill one in between.

        Raises:
            TimeoutError: No client did within a minute.
        """
        deadline = time.monotonic() + 60
        while len(entries := self.requests(host=host, path=path)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} requests must have {path!r}: got {entries}")
            time.sleep(0.05)
        return entries

    def token(self, resource: str = "https://management.azure.com") -> str:
        """Return an access token, for example for MLFLOW_TRACKING_TOKEN."""
        answer = self._admin.request(
            "GET",
            IDENTITY_PATH,
            fields={"resource": resource, "api-version": "2019-08-01"},
            headers={"X-IDENTITY-HEADER": self._details["identity_header"]},
        )
        return str(json.loads(answer.data)["access_token"])

    def start(
        self,
        code: str,
        *arguments: str,
        identity: str = "service-principal",
        environment: Mapping[str, str] | None = None,
        skip_metadata: bool = True,
        terminal: int | None = None,
    ) -> subprocess.Popen[str]:
        """Start Python code as a client in a new process, with only the variables of the stand-in.

        For entry points, kills and settings at start; other tests use the fixture `azureml_client`.

        Args:
            code: The program; `sys.argv[1]` is the tracking URI, `arguments` follow.
            arguments: Further arguments.
            identity: Identity, see `environment`.
            environment: Further variables of the process.
            skip_metadata: Whether to name the cloud, see `environment`.
            terminal: File descriptor for its messages; by default a pipe.
        """
        return subprocess.Popen(
            [sys.executable, "-c", code, self.tracking_uri, *arguments],
            env={
                **clean_environment(),
                **self.environment(identity, skip_metadata=skip_metadata),
                **(environment or {}),
            },
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if terminal is None else terminal,
            text=True,
        )

    def run(
        self, code: str, *arguments: str, timeout_s: float = 120, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code as a client to its end; see `start` for the rest."""
        with self.start(code, *arguments, **options) as process:
            try:
                output, errors = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def _identity(self, identity: str) -> dict[str, str]:
        names = {"AZURE_TENANT_ID": TENANT_ID, "AZURE_CLIENT_ID": CLIENT_ID}
        if identity == "service-principal":
            return names | {"AZURE_CLIENT_SECRET": self._details["client_secret"]}
        if identity == "certificate":
            return names | {"AZURE_CLIENT_CERTIFICATE_PATH": self._details["client_certificate"]}
        if identity == "workload":
            return names | {
                "AZURE_FEDERATED_TOKEN_FILE": self._details["federated_token_file"],
                "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
            }
        if identity == "managed":
            return {
                "IDENTITY_ENDPOINT": f"{self.proxy}{IDENTITY_PATH}",
                "IDENTITY_HEADER": self._details["identity_header"],
            }
        if identity == "none":
            return {}
        raise ValueError(f"identity must be one of {IDENTITIES}: got {identity!r}")

    def _post(self, call: str, value: object) -> None:
        body = json.dumps(value).encode()
        answer = self._admin.request("POST", f"{ADMIN_PATH}{call}", body=body)
        assert answer.status == 200, answer.data


@contextmanager
def azureml_service(folder: Path) -> Iterator[AzureMl]:
    """Start a stand-in in a new process, and end it with all its children afterwards.

    Its process ends when its input does, so not even a killed test leaves it behind.

    Example:
        with azureml_service(tmp_path / "azureml") as azureml:
            client = subprocess.run([...], env={**os.environ, **azureml.environment()})
    """
    folder.mkdir(parents=True, exist_ok=True)
    errors = folder / "stand-in.log"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.azureml", str(folder)],
            cwd=_ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
    try:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the stand-in did not start; {errors} says why")
        yield AzureMl(json.loads(line))
    finally:
        try:
            # The end of its input is its signal.
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
