"""Checks of hosts: DNS, proxy, TLS, an answer in time, and the clock."""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dbx_aml import AmlWorkspace, Link
from dbx_aml._common.errors import UntrustedHostError
from dbx_aml.doctor import network
from dbx_aml.doctor.check_result import CheckResult
from dbx_aml.doctor.checks import CheckContext
from tests.support.azureml.certificate import make_certificates

SUBSCRIPTION = "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42"


class Handler(BaseHTTPRequestHandler):
    """A host that answers HEAD, and a proxy that refuses every host."""

    clock_ahead_s = 0.0

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_CONNECT(self) -> None:
        self.send_error(403)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + self.clock_ahead_s, usegmt=True)

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing to stderr."""


@contextmanager
def http_server(certificate: Path | None = None) -> Iterator[int]:
    """Start a host on this machine; yield its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def make_context(timeout_s: float = 5.0) -> CheckContext:
    workspace = AmlWorkspace(
        subscription_id=SUBSCRIPTION,
        resource_group="rg-ml",
        workspace_name="mlw-team",
        region="northeurope",
    )
    link = Link(mode="aml", aml_workspace=workspace)
    return CheckContext(link=link, deadline=time.monotonic() + timeout_s)


def check_host(url: str) -> CheckResult:
    return network.check_host(make_context(), url)


def test_a_host_that_answers_is_ok() -> None:
    with http_server() as port:
        result = check_host(f"http://127.0.0.1:{port}")
    assert result.status == "ok"
    assert result.message.startswith(f"127.0.0.1:{port} at 127.0.0.1 answers in ")


def test_an_unknown_host_name_fails_with_the_private_dns_zone() -> None:
    result = check_host("https://adb-1.2.azuredatabricks.invalid")
    assert result.status == "failed"
    assert "adb-1.2.azuredatabricks.invalid: its name cannot be resolved" in result.message
    assert "private DNS zone" in result.fix


def test_a_closed_port_fails() -> None:
    result = check_host("http://127.0.0.1:9")
    assert (result.status, result.message.startswith("127.0.0.1:9 at ")) == ("failed", True)
    assert result.fix.startswith("open the network to 127.0.0.1:9")


def test_an_untrusted_certificate_fails_with_the_variables(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, ("localhost",))
    with http_server(certificates.server) as port:
        result = check_host(f"https://localhost:{port}")
    assert (result.status, "certificate is not trusted" in result.message) == ("failed", True)
    assert "REQUESTS_CA_BUNDLE and SSL_CERT_FILE" in result.fix


def test_a_proxy_that_refuses_a_host_fails_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with http_server() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ana:p4ssw0rd@127.0.0.1:{port}")
        result = check_host("https://northeurope.api.azureml.ms")
    assert result.status == "failed"
    assert f"northeurope.api.azureml.ms through proxy 127.0.0.1:{port}" in result.message
    assert "let the proxy pass northeurope.api.azureml.ms:443" in result.fix
    assert "p4ssw0rd" not in result.message + result.fix


def test_cloud_metadata_are_needed_only_without_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unreachable = make_context(timeout_s=1.0)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    result = network.check_cloud_metadata(unreachable)
    assert (result.status, result.fix) == ("warning", "set AZUREML_CURRENT_CLOUD=AzureCloud")
    monkeypatch.setenv("ARM_CLOUD_METADATA_URL", "http://127.0.0.1:9/metadata")
    assert network.check_cloud_metadata(unreachable).status == "failed"
    with http_server() as port:
        monkeypatch.setenv("ARM_CLOUD_METADATA_URL", f"http://127.0.0.1:{port}/metadata")
        assert network.check_cloud_metadata(make_context()).status == "ok"


@pytest.mark.parametrize(
    ("clock_ahead_s", "status", "message"),
    [(400, "failed", "behind 127.0.0.1"), (-60, "warning", "ahead of 127.0.0.1"), (0, "ok", "")],
)
def test_a_wrong_clock_is_reported(
    monkeypatch: pytest.MonkeyPatch, clock_ahead_s: int, status: str, message: str
) -> None:
    monkeypatch.setattr(Handler, "clock_ahead_s", clock_ahead_s)
    context = make_context()
    with http_server() as port:
        network.check_host(context, f"http://127.0.0.1:{port}")
    result = network.check_clock(context)
    assert (result.status, message in result.message) == (status, True)
    assert ("timedatectl set-ntp true" in result.fix) == (status != "ok")


@pytest.mark.parametrize(
    ("properties", "get_url"),
    [
        (
            {
                "mlFlowTrackingUri": "azureml://collector.example/mlflow/v1.0/subscriptions/"
                f"{SUBSCRIPTION}/resourceGroups/rg-ml/providers"
                "/Microsoft.MachineLearningServices/workspaces/mlw-team"
            },
            network.tracking_url,
        ),
        ({"storageAccount": "/storageAccounts/collector.example#"}, network.artifact_url),
    ],
)
def test_a_host_of_azure_resource_manager_that_is_not_azures_is_not_called(
    properties: dict[str, str],
    get_url: Callable[[CheckContext], str],
) -> None:
    workspace = AmlWorkspace(
        subscription_id=SUBSCRIPTION, resource_group="rg-ml", workspace_name="mlw-team"
    )
    link = Link(mode="aml", aml_workspace=workspace)
    context = CheckContext(link=link, deadline=time.monotonic() + 5.0)
    context.shared_value("workspace", lambda: properties)
    with pytest.raises(UntrustedHostError, match=r"got '.*collector\.example"):
        get_url(context)
