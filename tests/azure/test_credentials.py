"""A credential for jobs: which source, how soon, how long, and nothing that gives a secret away."""

import base64
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dbx_aml import AmlWorkspace, Link
from dbx_aml._common.errors import CredentialError
from dbx_aml.azure.credential_sources import authority_host
from dbx_aml.azure.credentials import Credential, get_credential
from dbx_aml.azure.identity import Identity, identity_of_token, short_message
from dbx_aml.link.secret_reference import SecretRef
from tests.support.azureml import AzureMl
from tests.support.azureml.workspace import CLIENT_ID, LOGIN_HOST, TENANT_ID
from tests.support.child_process import clean_environment

NOBODY = "11111111-1111-4111-8111-111111111111"
# Nothing listens there, so nothing is found on a machine of Azure either.
NO_MACHINE = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9"}
As = Callable[..., None]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nothing of Azure is set up, and there is no Azure CLI."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, value in NO_MACHINE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def become(azureml: AzureMl, alone: None, monkeypatch: pytest.MonkeyPatch) -> As:
    """Put the variables of an identity of the stand-in into this process, and further ones."""

    def become(name: str, **more: str) -> None:
        for variable, value in {**azureml.environment(name), **more}.items():
            monkeypatch.setenv(variable, value)

    return become


def refused(seconds: float = 10, **link: Any) -> str:
    """Return the one line of a credential that gives no token, in time."""
    started = time.monotonic()
    with pytest.raises(CredentialError) as caught:
        get_credential(Link(**link)).verify()
    # Five, and as many again for a slow machine.
    assert time.monotonic() - started < seconds
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    return str(caught.value)


def selected_name(found: Credential) -> str | None:
    source = found.selected_source()
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
def test_every_identity_of_a_job_is_proved_and_says_why_it_was_chosen(
    become: As, name: str, source: str
) -> None:
    become(name)
    found = get_credential(Link())
    assert selected_name(found) == source
    assert found.verify() == Identity(name=CLIENT_ID, tenant_id=TENANT_ID, is_user=False)
    selected = found.selected_source()
    assert selected is not None and selected.reason.endswith(" is set")


@pytest.mark.azureml
def test_the_links_reference_goes_before_the_variables(
    azureml: AzureMl, become: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    become("managed", TEAM_SECRET=azureml.environment()["AZURE_CLIENT_SECRET"])
    link = Link(
        tenant_id=TENANT_ID, client_id=CLIENT_ID, client_secret=SecretRef(env="TEAM_SECRET")
    )
    found = get_credential(link)
    assert found.verify().name == CLIENT_ID
    assert 'source="the link\'s service principal"' in repr(found)
    assert azureml.requests(host="login", path="oauth2/v2.0/token")
    monkeypatch.delenv("TEAM_SECRET")
    link = Link(tenant_id=TENANT_ID, client_id=NOBODY, client_secret=SecretRef(env="TEAM_SECRET"))
    assert "secret must exist and not be empty: got none at 'env:TEAM_SECRET'" in refused(
        tenant_id=TENANT_ID, client_id=NOBODY, client_secret=SecretRef(env="TEAM_SECRET")
    )


@pytest.mark.azureml
@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("service-principal", {"AZURE_CLIENT_SECRET": "not-the-secret"},
         "AADSTS7000215: the client secret is wrong; its value is needed, not its id"),
        ("service-principal", {"AZURE_TENANT_ID": NOBODY},
         f"tenant '{NOBODY}' is not known (AADSTS90002): the tenant does not exist"),
        ("service-principal", {"AZURE_CLIENT_ID": NOBODY},
         "AADSTS700016: the application is not in this tenant"),
        ("service-principal", {"AZURE_CLIENT_ID": ""}, "AZURE_CLIENT_ID must be set too"),
        ("certificate", {"AZURE_CLIENT_CERTIFICATE_PATH": "/no/such.pem"}, "No such file"),
        ("workload", {"AZURE_FEDERATED_TOKEN_FILE": "/no/such"}, "No such file"),
        ("managed", {"IDENTITY_HEADER": "wrong"}, "401, Identity header is wrong"),
        ("managed", {"AZURE_CLIENT_ID": NOBODY}, "No User Assigned or Delegated Managed Identity"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_said_and_no_other_identity_is_tried(
    azureml: AzureMl, become: As, name: str, more: dict[str, str], message: str
) -> None:
    # What would work is there too.
    both = azureml.environment("managed") if name != "managed" else {}
    become(name, **{**both, **more})
    line = refused()
    assert message in line
    assert "correct it, no other source is tried" in line
    assert line.count("from ") == 1


@pytest.mark.azureml
def test_without_a_credential_the_line_says_what_was_tried_and_nobody_is_asked(
    azureml: AzureMl, become: As
) -> None:
    become("none")
    assert refused() == (
        f"Azure ({LOGIN_HOST}) must give a token: "
        "got from managed identity of this machine (tried if no source is configured): "
        "none here, http://127.0.0.1:9 does not answer; "
        "from Azure CLI (no 'az' on the PATH): no 'az' on the PATH; "
        "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or another source"
    )
    assert azureml.requests(host="login") == []


@pytest.mark.azureml
def test_a_login_host_in_a_black_hole_is_said_within_seconds(azureml: AzureMl, become: As) -> None:
    become("service-principal")
    azureml.fault("black-hole", host="login")
    assert "no answer in 5.0 s, is the network open" in refused()


def test_an_identity_endpoint_in_a_black_hole_is_said_within_seconds(
    alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as hole:
        url = f"http://127.0.0.1:{hole.getsockname()[1]}/msi/token"
        monkeypatch.setenv("IDENTITY_ENDPOINT", url)
        monkeypatch.setenv("IDENTITY_HEADER", "header-of-a-hole")
        line = refused()
    assert "managed identity (IDENTITY_ENDPOINT is set): no answer in 5.0 s" in line


@pytest.mark.azureml
def test_one_lost_answer_is_no_failure(azureml: AzureMl, become: As) -> None:
    become("service-principal")
    azureml.fault("drop", host="login", path="token", count=1)
    assert get_credential(Link()).verify().tenant_id == TENANT_ID


@pytest.mark.azureml
def test_the_azure_cli_is_used_where_nothing_is_set_up(
    azureml: AzureMl, become: As, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    become("none")
    answer = {"accessToken": azureml.token(), "expires_on": int(time.time()) + 3600}
    az = tmp_path / "az"
    az.write_text(f"#!/bin/sh\n[ $1 = account ] && echo '{json.dumps(answer)}'\n")
    az.chmod(0o755)
    found = get_credential(Link())
    assert found.verify().name == CLIENT_ID
    assert selected_name(found) == "Azure CLI"
    az.write_text("#!/bin/sh\necho \"Please run 'az login'\" >&2\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert "Please run 'az login' to set up an account" in refused()


@pytest.mark.azureml
def test_a_service_credential_of_unity_catalog_needs_dbutils(
    azureml: AzureMl, become: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.identity import ManagedIdentityCredential

    become("managed")
    assert "it needs dbutils, which exists only on Databricks" in refused(service_credential="aml")
    asked = []
    provided = ManagedIdentityCredential()
    secrets = SimpleNamespace(get=lambda scope, key: azureml.environment()["AZURE_CLIENT_SECRET"])
    credentials = SimpleNamespace(
        getServiceCredentialsProvider=lambda name: asked.append(name) or provided
    )
    dbutils = SimpleNamespace(credentials=credentials, secrets=secrets)
    monkeypatch.setattr(sys.modules["__main__"], "dbutils", dbutils, raising=False)
    assert get_credential(Link(service_credential="aml")).verify().name == CLIENT_ID
    monkeypatch.delenv("IDENTITY_ENDPOINT")
    monkeypatch.setenv("DATABRICKS_DEFAULT_SERVICE_CREDENTIAL_NAME", "of-the-cluster")
    assert get_credential(Link()).verify().name == CLIENT_ID
    assert asked == ["aml", "of-the-cluster"]
    reference = SecretRef(scope="ml", key="aml")
    link = Link(tenant_id=TENANT_ID, client_id=CLIENT_ID, client_secret=reference)
    assert get_credential(link).verify().name == CLIENT_ID


@pytest.mark.azureml
@pytest.mark.slow
def test_tokens_of_four_seconds_never_fail_a_call_from_four_threads(
    azureml: AzureMl, become: As
) -> None:
    become("service-principal")
    azureml.token_lifetime(4)
    found = get_credential(Link())
    problems, calls = hammered(found, threads=4, seconds=20)
    assert problems == []
    assert calls > 400
    # One a renewal, not one a call.
    assert 5 <= len(azureml.requests(path="oauth2/v2.0/token")) <= 40


def hammered(found: Credential, *, threads: int, seconds: float) -> tuple[list[str], int]:
    """Use tokens from several threads as a service would; return what went wrong, and the calls."""
    problems: list[str] = []
    calls = []
    end = time.monotonic() + seconds

    def work() -> None:
        while time.monotonic() < end:
            token = found.get_token(found.scope)
            claims = token.token.split(".")[1]
            ends = json.loads(base64.urlsafe_b64decode(claims + "=="))["exp"]
            if time.time() >= ends:
                problems.append(f"ended {time.time() - ends:.2f} s ago")
            calls.append(1)
            time.sleep(0.02)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return problems, len(calls)


@pytest.mark.azureml
def test_a_token_that_lives_outlasts_an_outage_and_is_renewed_after_it(
    azureml: AzureMl, become: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbx_aml.azure import credentials as auth

    monkeypatch.setattr(auth, "_REFRESH_PAUSE_S", 0.1)
    become("service-principal")
    azureml.token_lifetime(8)
    found = get_credential(Link())
    first = found.get_token(found.scope)
    azureml.fault("status", status=503, host="login")
    time.sleep(4.5)
    started = time.monotonic()
    assert found.get_token(found.scope) == first
    assert time.monotonic() - started < 3
    azureml.reset()
    time.sleep(0.2)
    deadline = time.monotonic() + 10
    while found.get_token(found.scope) == first and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found.get_token(found.scope) != first


@pytest.mark.azureml
def test_threads_that_wait_for_one_answer_all_get_it_in_time(azureml: AzureMl, become: As) -> None:
    become("service-principal")
    azureml.fault("black-hole", host="login")
    found = get_credential(Link())
    lines: list[str] = []

    def work() -> None:
        with pytest.raises(CredentialError) as caught:
            found.get_token(found.scope)
        lines.append(str(caught.value))

    started = time.monotonic()
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert time.monotonic() - started < 10
    assert len(lines) == 4
    assert all("must give a token" in line for line in lines)


@pytest.mark.azureml
def test_nothing_that_is_written_has_the_secret_or_the_token(
    azureml: AzureMl,
    become: As,
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
        found = get_credential(Link())
        tokens.append(found.get_token(found.scope).token)
        written += [repr(found), str(found.describe_sources()), str(found.__dict__.get("_source"))]
    become("service-principal", AZURE_CLIENT_SECRET=wrong)
    try:
        get_credential(Link()).verify()
    except CredentialError as err:
        written += [*traceback.format_exception(err), repr(err), str(err.__dict__)]
    output = capfd.readouterr()
    everything = "\n".join([*written, caplog.text, output.out, output.err])
    assert "AADSTS7000215" in everything
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
    assert [secret for secret in secrets if secret in everything] == []


@pytest.mark.azureml
def test_azure_sdks_take_it_as_a_credential(azureml: AzureMl, become: As) -> None:
    from azure.core.credentials import TokenCredential

    become("service-principal")
    found = get_credential(Link())
    assert isinstance(found, TokenCredential)
    info = found.get_token_info(found.scope, options={"enable_cae": True})
    assert info.expires_on > time.time() + 60
    assert found.get_token(found.scope, claims='{"access_token":{}}', tenant_id=TENANT_ID)


def test_the_same_link_and_variables_are_the_same_credential(
    alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert get_credential(Link()) is get_credential(Link())
    before = get_credential(Link())
    monkeypatch.setenv("AZURE_CLIENT_ID", NOBODY)
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
    alone: None, monkeypatch: pytest.MonkeyPatch, cloud: str, login: str, scope: str
) -> None:
    workspace = AmlWorkspace(
        subscription_id=NOBODY, resource_group="rg", workspace_name="mlw", cloud=cloud
    )
    link = Link(mode="aml", aml_workspace=workspace)
    assert (authority_host(link), get_credential(link).scope) == (login, scope)
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", cloud)
    assert (authority_host(Link()), get_credential(Link()).scope) == (login, scope)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.contoso.internal/")
    assert authority_host(link) == "https://login.contoso.internal/"


def test_no_interactive_way_is_in_the_package() -> None:
    import dbx_aml.azure.credentials

    folder = Path(dbx_aml.azure.credentials.__file__).parent
    files = sorted(folder.glob("*.py"))
    assert len(files) == 7
    for file in files:
        text = file.read_text()
        for name in ("DeviceCode", "InteractiveBrowser", "DefaultAzureCredential", "UsernamePass"):
            assert name not in text


def token_of(**claims: object) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{part}.signature"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (token_of(upn="ana@contoso.com", tid="t1"), "user ana@contoso.com in tenant t1"),
        (token_of(unique_name="ana", appid="a", tid="t1"), "user ana in tenant t1"),
        (token_of(appid="a1", tid="t1"), "application a1 in tenant t1"),
        (token_of(azp="a2", tid="t1"), "application a2 in tenant t1"),
        ("opaque", "application unknown in tenant unknown"),
        ("a.b.c", "application unknown in tenant unknown"),
    ],
)
def test_whom_a_token_is_for_is_read_from_it(token: str, said: str) -> None:
    assert str(identity_of_token(token)) == said


def test_an_answer_is_short_and_without_secrets() -> None:
    error = ValueError(f"bad token {token_of(a=1)} and {'s3cret-text'}\n Trace ID: 1 2 3")
    assert short_message(error, None, ["s3cret-text"]) == "bad token *** and ***"
    assert short_message(ValueError(), None, []) == "ValueError"
    assert len(short_message(ValueError("x " * 999), None, [])) <= 240
    assert short_message(ValueError("AADSTS7000222: expired"), None, []) == (
        "AADSTS7000222: the client secret has expired; make a new one"
    )
