"""A credential for jobs: its source, its deadline, its cache; no message has a secret."""

import base64
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from dbx_aml import AmlWorkspace, Link
from dbx_aml._common.errors import CredentialError
from dbx_aml.azure import credentials
from dbx_aml.azure.credential_sources import CredentialSource, authority_host
from dbx_aml.azure.credentials import TOKEN_TIMEOUT_S, Credential, get_credential
from dbx_aml.azure.identity import Identity, identity_of_token, short_message
from dbx_aml.link.secret_reference import SecretRef
from tests.support.azureml import AzureMl
from tests.support.azureml.workspace import CLIENT_ID, LOGIN_HOST, TENANT_ID
from tests.support.child_process import clean_environment
from tests.support.clock import FakeClock

UNKNOWN_ID = "11111111-1111-4111-8111-111111111111"
# Nothing listens there: as on a machine without a managed identity.
NO_IMDS = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9"}
Become = Callable[..., None]


@pytest.fixture
def clean_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove every setting of Azure from this process, and the Azure CLI from the PATH."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, value in NO_IMDS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def become(azureml: AzureMl, clean_machine: None, monkeypatch: pytest.MonkeyPatch) -> Become:
    """Set the variables of an identity of the stand-in, and further variables."""

    def become(name: str, **variables: str) -> None:
        for variable, value in {**azureml.environment(name), **variables}.items():
            monkeypatch.setenv(variable, value)

    return become


def credential_error(timeout_s: float = TOKEN_TIMEOUT_S, **link_fields: Any) -> str:
    """Return the one-line error of a credential that gets no token before its deadline."""
    started = time.monotonic()
    with pytest.raises(CredentialError) as caught:
        get_credential(Link(**link_fields)).verify(timeout_s)
    # Without a limit this would not end.
    assert time.monotonic() - started < timeout_s + 20
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    return str(caught.value)


def selected_name(credential: Credential) -> str | None:
    source = credential.selected_source()
    return source.name if source else None


@pytest.mark.azureml
@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("service-principal", "service principal with a secret"),
        ("certificate", "service principal with a certificate"),
        ("managed", "managed identity"),
        ("workload", "workload identity"),
    ],
)
def test_every_identity_of_a_job_gets_a_token_and_names_its_setting(
    become: Become, name: str, source: str
) -> None:
    become(name)
    credential = get_credential(Link())
    assert selected_name(credential) == source
    assert credential.verify() == Identity(name=CLIENT_ID, tenant_id=TENANT_ID, is_user=False)
    selected = credential.selected_source()
    assert selected is not None and selected.reason.endswith(" is set")


@pytest.mark.azureml
def test_the_links_reference_goes_before_the_variables(
    azureml: AzureMl, become: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    become("managed", TEAM_SECRET=azureml.environment()["AZURE_CLIENT_SECRET"])
    link = Link(
        tenant_id=TENANT_ID, client_id=CLIENT_ID, client_secret=SecretRef(env="TEAM_SECRET")
    )
    credential = get_credential(link)
    assert credential.verify().name == CLIENT_ID
    assert 'source="the link\'s service principal"' in repr(credential)
    assert azureml.requests(host="login", path="oauth2/v2.0/token")
    monkeypatch.delenv("TEAM_SECRET")
    link = Link(
        tenant_id=TENANT_ID, client_id=UNKNOWN_ID, client_secret=SecretRef(env="TEAM_SECRET")
    )
    assert "secret must exist and not be empty: got none at 'env:TEAM_SECRET'" in credential_error(
        tenant_id=TENANT_ID, client_id=UNKNOWN_ID, client_secret=SecretRef(env="TEAM_SECRET")
    )


@pytest.mark.azureml
@pytest.mark.parametrize(
    ("name", "variables", "message"),
    [
        ("service-principal", {"AZURE_CLIENT_SECRET": "not-the-secret"},
         "AADSTS7000215: the client secret is wrong; its value is needed, not its id"),
        ("service-principal", {"AZURE_TENANT_ID": UNKNOWN_ID},
         f"tenant '{UNKNOWN_ID}' is not known (AADSTS90002): the tenant does not exist"),
        ("service-principal", {"AZURE_CLIENT_ID": UNKNOWN_ID},
         "AADSTS700016: the application is not in this tenant"),
        ("service-principal", {"AZURE_CLIENT_ID": ""}, "AZURE_CLIENT_ID must be set too"),
        ("certificate", {"AZURE_CLIENT_CERTIFICATE_PATH": "/no/such.pem"}, "No such file"),
        ("workload", {"AZURE_FEDERATED_TOKEN_FILE": "/no/such"}, "No such file"),
        ("managed", {"IDENTITY_HEADER": "wrong"}, "401, Identity header is wrong"),
        ("managed", {"AZURE_CLIENT_ID": UNKNOWN_ID},
         "No User Assigned or Delegated Managed Identity"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_and_no_other_identity_is_tried(
    azureml: AzureMl, become: Become, name: str, variables: dict[str, str], message: str
) -> None:
    # Another identity, which would work, is configured too.
    managed_identity = azureml.environment("managed") if name != "managed" else {}
    become(name, **{**managed_identity, **variables})
    line = credential_error()
    assert message in line
    assert "correct it, no other source is tried" in line
    assert line.count("from ") == 1


@pytest.mark.azureml
def test_without_a_credential_the_error_lists_the_sources_tried_and_no_token_is_requested(
    azureml: AzureMl, become: Become
) -> None:
    become("none")
    line = credential_error()
    for text in (
        f"Azure ({LOGIN_HOST}) must give a token",
        "managed identity of this machine (tried if no source is configured)",
        "http://127.0.0.1:9 does not answer",
        "Azure CLI (no 'az' on the PATH)",
        "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
    ):
        assert text in line
    assert azureml.requests(host="login") == []


@pytest.mark.azureml
def test_a_login_host_that_never_answers_is_named_at_the_deadline(
    azureml: AzureMl, become: Become
) -> None:
    become("service-principal")
    azureml.fault("black-hole", host="login")
    assert "no answer in 1.0 s, is the network open" in credential_error(1.0)


def test_an_identity_endpoint_that_never_answers_is_named_at_the_deadline(
    clean_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as hole:
        url = f"http://127.0.0.1:{hole.getsockname()[1]}/msi/token"
        monkeypatch.setenv("IDENTITY_ENDPOINT", url)
        monkeypatch.setenv("IDENTITY_HEADER", "header-of-a-hole")
        line = credential_error(1.0)
    assert "managed identity (IDENTITY_ENDPOINT is set): no answer in 1.0 s" in line


@pytest.mark.azureml
def test_one_lost_answer_is_no_failure(azureml: AzureMl, become: Become) -> None:
    become("service-principal")
    azureml.fault("drop", host="login", path="token", count=1)
    assert get_credential(Link()).verify().tenant_id == TENANT_ID


@pytest.mark.azureml
def test_the_azure_cli_is_used_if_no_source_is_configured(
    azureml: AzureMl, become: Become, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    become("none")
    answer = {"accessToken": azureml.token(), "expires_on": int(time.time()) + 3600}
    az = tmp_path / "az"
    az.write_text(f"#!/bin/sh\n[ $1 = account ] && echo '{json.dumps(answer)}'\n")
    az.chmod(0o755)
    credential = get_credential(Link())
    assert credential.verify().name == CLIENT_ID
    assert selected_name(credential) == "Azure CLI"
    az.write_text("#!/bin/sh\necho \"Please run 'az login'\" >&2\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert "Please run 'az login' to set up an account" in credential_error()


@pytest.mark.azureml
def test_a_service_credential_of_unity_catalog_needs_dbutils(
    azureml: AzureMl, become: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.identity import ManagedIdentityCredential

    become("managed")
    assert "it needs dbutils, which exists only on Databricks" in credential_error(
        service_credential="aml"
    )
    names = []
    provided = ManagedIdentityCredential()
    secrets = SimpleNamespace(get=lambda scope, key: azureml.environment()["AZURE_CLIENT_SECRET"])
    dbutils_credentials = SimpleNamespace(
        getServiceCredentialsProvider=lambda name: names.append(name) or provided
    )
    dbutils = SimpleNamespace(credentials=dbutils_credentials, secrets=secrets)
    monkeypatch.setattr(sys.modules["__main__"], "dbutils", dbutils, raising=False)
    assert get_credential(Link(service_credential="aml")).verify().name == CLIENT_ID
    monkeypatch.delenv("IDENTITY_ENDPOINT")
    monkeypatch.setenv("DATABRICKS_DEFAULT_SERVICE_CREDENTIAL_NAME", "of-the-cluster")
    assert get_credential(Link()).verify().name == CLIENT_ID
    assert names == ["aml", "of-the-cluster"]
    reference = SecretRef(scope="ml", key="aml")
    link = Link(tenant_id=TENANT_ID, client_id=CLIENT_ID, client_secret=reference)
    assert get_credential(link).verify().name == CLIENT_ID


@pytest.mark.azureml
@pytest.mark.slow
def test_tokens_of_four_seconds_never_fail_a_call_from_four_threads(
    azureml: AzureMl, become: Become
) -> None:
    become("service-principal")
    azureml.token_lifetime(4)
    credential = get_credential(Link())
    problems, calls = use_tokens_in_threads(credential, threads=4, seconds=12)
    assert problems == []
    assert calls > 240
    # One request for each renewal, not for each call.
    assert 3 <= len(azureml.requests(path="oauth2/v2.0/token")) <= 40


def use_tokens_in_threads(
    credential: Credential, *, threads: int, seconds: float
) -> tuple[list[str], int]:
    """Use tokens in several threads; return a line for each expired token, and the calls."""
    problems: list[str] = []
    calls = []
    end = time.monotonic() + seconds

    def use_tokens() -> None:
        while time.monotonic() < end:
            token = credential.get_token(credential.scope)
            claims = token.token.split(".")[1]
            ends = json.loads(base64.urlsafe_b64decode(claims + "=="))["exp"]
            if time.time() >= ends:
                problems.append(f"ended {time.time() - ends:.2f} s ago")
            calls.append(1)
            time.sleep(0.02)

    workers = [threading.Thread(target=use_tokens) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return problems, len(calls)


class FakeAzureCredential:
    """A credential of azure-identity whose tokens live 100 seconds, until its service fails."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.is_failing = False
        self.requests = 0

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.requests += 1
        if self.is_failing:
            raise ConnectionError("503")
        return AccessToken(f"token {self.requests}", int(self.clock.now_s) + 100)


def test_a_valid_token_is_used_through_an_outage_and_renewed_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    service = FakeAzureCredential(clock)
    source = CredentialSource(
        name="test", is_configured=True, reason="", create_credential=lambda secrets: service
    )
    monkeypatch.setattr(credentials, "credential_sources", lambda link: [source])
    monkeypatch.setattr(credentials, "time", SimpleNamespace(time=clock, monotonic=clock))
    monkeypatch.setattr(credentials, "run_in_background", lambda call: call())
    credential = Credential(Link())

    def token() -> str:
        return credential.get_token("scope").token

    assert [token(), token(), service.requests] == ["token 1", "token 1", 1]
    service.is_failing = True
    clock.sleep(85)
    # Due for a refresh, which fails; the next attempt waits, and the token is still valid.
    assert [token(), token(), service.requests] == ["token 1", "token 1", 2]
    clock.sleep(9)
    assert token() == "token 1"
    clock.sleep(10)
    with pytest.raises(CredentialError, match="503"):
        token()
    service.is_failing = False
    clock.sleep(40)
    assert token() == f"token {service.requests}"


def test_a_forked_process_gets_a_token_although_a_thread_of_its_parent_requests_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requested, answered = threading.Event(), threading.Event()
    parent = os.getpid()

    def get_token(*scopes: str, **options: Any) -> AccessToken:
        if os.getpid() == parent:
            requested.set()
            answered.wait(30)
        return AccessToken("token", int(time.time()) + 3600)

    source = CredentialSource(
        name="test",
        is_configured=True,
        reason="",
        create_credential=lambda secrets: SimpleNamespace(get_token=get_token),
    )
    monkeypatch.setattr(credentials, "credential_sources", lambda link: [source])
    credential = get_credential(Link())
    thread = threading.Thread(target=credential.get_token, daemon=True)
    thread.start()
    assert requested.wait(30)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if credential.get_token().token == "token" else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    answered.set()
    thread.join(30)


@pytest.mark.azureml
def test_threads_that_wait_for_one_request_all_end_at_its_deadline(
    azureml: AzureMl, become: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "TOKEN_TIMEOUT_S", 1.0)
    become("service-principal")
    azureml.fault("black-hole", host="login")
    credential = get_credential(Link())

    def request_token(number: int) -> str:
        with pytest.raises(CredentialError) as caught:
            credential.get_token(credential.scope)
        return str(caught.value)

    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        lines = list(pool.map(request_token, range(4)))
    assert time.monotonic() - started < 20
    assert all("must give a token" in line for line in lines)


@pytest.mark.azureml
def test_no_log_output_or_error_has_a_secret_or_a_token(
    azureml: AzureMl,
    become: Become,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for logger in (None, "azure", "azure.identity", "msal"):
        # A command that ran before in this process has made some of them quiet.
        caplog.set_level(logging.DEBUG, logger)
    wrong = "Wrong8Q~text-of-a-secret"
    tokens, written = [], []
    for name in ("service-principal", "certificate", "managed", "workload"):
        become(name)
        credential = get_credential(Link())
        tokens.append(credential.get_token(credential.scope).token)
        written += [
            repr(credential),
            str(credential.describe_sources()),
            str(credential.__dict__.get("_source")),
        ]
    become("service-principal", AZURE_CLIENT_SECRET=wrong)
    try:
        get_credential(Link()).verify()
    except CredentialError as err:
        written += [*traceback.format_exception(err), repr(err), str(err.__dict__)]
    output = capfd.readouterr()
    output_text = "\n".join([*written, caplog.text, output.out, output.err])
    assert "AADSTS7000215" in output_text
    assert "ClientSecretCredential" in caplog.text
    federated = Path(azureml.environment("workload")["AZURE_FEDERATED_TOKEN_FILE"]).read_text()
    secrets = [
        wrong,
        federated,
        azureml.environment()["AZURE_CLIENT_SECRET"],
        azureml.environment("managed")["IDENTITY_HEADER"],
        *tokens,
        *(token.split(".")[2] for token in tokens),
    ]
    assert [secret for secret in secrets if secret in output_text] == []


@pytest.mark.azureml
def test_azure_sdks_take_it_as_a_credential(azureml: AzureMl, become: Become) -> None:
    from azure.core.credentials import TokenCredential

    become("service-principal")
    credential = get_credential(Link())
    assert isinstance(credential, TokenCredential)
    info = credential.get_token_info(credential.scope, options={"enable_cae": True})
    assert info.expires_on > time.time() + 60
    assert credential.get_token(credential.scope, claims='{"access_token":{}}', tenant_id=TENANT_ID)


def test_the_same_link_and_variables_are_the_same_credential(
    clean_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert get_credential(Link()) is get_credential(Link())
    before = get_credential(Link())
    monkeypatch.setenv("AZURE_CLIENT_ID", UNKNOWN_ID)
    assert get_credential(Link()) is not before


@pytest.mark.parametrize(
    ("cloud", "login", "scope"),
    [
        ("AzureCloud", "login.microsoftonline.com", "https://management.azure.com/.default"),
        (
            "AzureChinaCloud",
            "login.chinacloudapi.cn",
            "https://management.chinacloudapi.cn/.default",
        ),
        (
            "AzureUSGovernment",
            "login.microsoftonline.us",
            "https://management.usgovcloudapi.net/.default",
        ),
    ],
)
def test_each_cloud_has_its_own_authority_and_scope(
    clean_machine: None, monkeypatch: pytest.MonkeyPatch, cloud: str, login: str, scope: str
) -> None:
    workspace = AmlWorkspace(
        subscription_id=UNKNOWN_ID, resource_group="rg", workspace_name="mlw", cloud=cloud
    )
    link = Link(mode="aml", aml_workspace=workspace)
    assert (authority_host(link), get_credential(link).scope) == (login, scope)
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", cloud)
    assert (authority_host(Link()), get_credential(Link()).scope) == (login, scope)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.contoso.internal/")
    assert authority_host(link) == "https://login.contoso.internal/"


def test_no_interactive_credential_is_in_the_folder() -> None:
    import dbx_aml.azure.credentials

    folder = Path(dbx_aml.azure.credentials.__file__).parent
    files = sorted(folder.glob("*.py"))
    assert len(files) > 4
    for file in files:
        text = file.read_text()
        for name in ("DeviceCode", "InteractiveBrowser", "DefaultAzureCredential", "UsernamePass"):
            assert name not in text


def token_of(**claims: object) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{part}.signature"


@pytest.mark.parametrize(
    ("token", "description"),
    [
        (token_of(upn="ana@contoso.com", tid="t1"), "user ana@contoso.com in tenant t1"),
        (token_of(unique_name="ana", appid="a", tid="t1"), "user ana in tenant t1"),
        (token_of(appid="a1", tid="t1"), "application a1 in tenant t1"),
        (token_of(azp="a2", tid="t1"), "application a2 in tenant t1"),
        ("opaque", "application unknown in tenant unknown"),
        ("a.b.c", "application unknown in tenant unknown"),
    ],
)
def test_the_identity_is_read_from_the_token(token: str, description: str) -> None:
    assert str(identity_of_token(token)) == description


def test_a_message_is_short_and_without_secrets() -> None:
    error = ValueError(f"bad token {token_of(a=1)} and {'s3cret-text'}\n Trace ID: 1 2 3")
    assert short_message(error, None, ["s3cret-text"]) == "bad token *** and ***"
    assert short_message(ValueError(), None, []) == "ValueError"
    assert len(short_message(ValueError("x " * 999), None, [])) <= 240
    assert short_message(ValueError("AADSTS7000222: expired"), None, []) == (
        "AADSTS7000222: the client secret has expired; make a new one"
    )
