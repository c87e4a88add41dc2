"""`connect`: MLflow calls the servers of the link, a wrong setting raises within seconds."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent

import mlflow
import pytest

from dbx_aml import AmlWorkspace, Connection, Link, connect, status
from dbx_aml._common.errors import (
    CredentialError,
    DbxAmlError,
    LinkError,
    ServiceError,
    ServiceUnavailableError,
    UntrustedHostError,
)
from dbx_aml.azure.credentials import get_credential
from tests.support.azureml import ALL_ACTIONS, AzureMl
from tests.support.azureml.workspace import CLIENT_ID, TENANT_ID
from tests.support.isolation import isolate_from_machine

SetIdentity = Callable[..., None]


@pytest.fixture(autouse=True)
def isolated_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate_from_machine(monkeypatch, tmp_path)


@pytest.fixture
def set_identity(azureml: AzureMl, monkeypatch: pytest.MonkeyPatch) -> SetIdentity:
    def set_identity(name: str = "service-principal", **variables: str) -> None:
        values = {**azureml.environment(name), **variables}
        # `connect` sets this variable.
        del values["AZUREML_CURRENT_CLOUD"]
        for variable, value in values.items():
            monkeypatch.setenv(variable, value)

    return set_identity


@pytest.fixture
def workspace(azureml: AzureMl) -> AmlWorkspace:
    return AmlWorkspace.from_tracking_uri(azureml.tracking_uri)


def stores(folder: Path) -> dict[str, str]:
    return {
        "databricks_tracking_uri": f"sqlite:///{folder / 'databricks.db'}",
        "aml_tracking_uri": f"sqlite:///{folder / 'aml.db'}",
    }


def state() -> tuple[object, ...]:
    from mlflow.tracking import fluent
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    names = ("MLFLOW_", "AZUREML_")
    variables = {name: value for name, value in os.environ.items() if name.startswith(names)}
    ids = (tracking._tracking_uri, registry._registry_uri, fluent._active_experiment_id)
    return (*ids, variables)


@pytest.mark.parametrize(
    ("mode", "registry", "tracks", "registers"),
    [
        ("databricks", None, "databricks", "databricks"),
        ("databricks", "aml", "databricks", "aml"),
        ("dual", None, "databricks", "databricks"),
        ("aml", None, "aml", "aml"),
        ("aml", "databricks-uc", "aml", "databricks"),
    ],
)
def test_both_uris_are_set_and_restored(
    tmp_path: Path, mode: str, registry: str | None, tracks: str, registers: str
) -> None:
    uris = stores(tmp_path)
    before = state()
    with connect(mode=mode, registry=registry, **uris) as connection:
        assert mlflow.get_tracking_uri() == uris[f"{tracks}_tracking_uri"]
        assert mlflow.get_registry_uri() == uris[f"{registers}_tracking_uri"]
        assert os.environ["MLFLOW_TRACKING_URI"] == connection.tracking_uri
        assert connection.identity is None
    assert state() == before


def test_the_old_state_comes_back_after_an_error_and_only_once(tmp_path: Path) -> None:
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    before = state()
    with pytest.raises(ZeroDivisionError), connect(mode="aml", **stores(tmp_path)) as connection:
        raise ZeroDivisionError
    assert state() == before
    mlflow.set_tracking_uri("http://127.0.0.1:8")
    connection.close()
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:8"


def test_one_connection_inside_another_goes_back_to_it(tmp_path: Path) -> None:
    uris = stores(tmp_path)
    with connect(mode="databricks", **uris):
        with connect(mode="aml", **uris):
            assert mlflow.get_tracking_uri() == uris["aml_tracking_uri"]
        assert mlflow.get_tracking_uri() == uris["databricks_tracking_uri"]
        with connect(mode="databricks", **uris):
            pass
        # The second connection with the same link restores nothing.
        assert mlflow.get_tracking_uri() == uris["databricks_tracking_uri"]


def test_the_experiment_of_the_link_becomes_the_active_experiment(mlflow_store: str) -> None:
    before = state()
    with connect(databricks_tracking_uri=mlflow_store, experiment="of the link"):
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 1)
        experiment = mlflow.get_experiment(run.info.experiment_id)
        assert experiment.name == "of the link"
    assert state() == before


def test_an_active_experiment_of_another_server_is_not_kept(
    mlflow_store: str, tmp_path: Path
) -> None:
    before = state()
    assert os.environ["MLFLOW_EXPERIMENT_ID"]
    with connect(mode="aml", **stores(tmp_path)):
        assert "MLFLOW_EXPERIMENT_ID" not in os.environ
        assert state()[2] is None
    assert state() == before


def test_a_host_that_is_not_azures_is_refused_before_a_token_is_requested(
    workspace: AmlWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_token(*_: object) -> None:
        raise AssertionError("a token was requested")

    monkeypatch.setattr("dbx_aml.tracking.connect.get_credential", get_token)
    uri = str(workspace.tracking_uri).replace("westeurope.api.azureml.ms", "collector.example")
    before = state()
    Path("config.json").write_text(
        json.dumps({**workspace.names, "dbx_aml": {"mode": "aml", "aml_tracking_uri": uri}})
    )
    for arguments in ({}, {"config": "config.json"}, {"aml_tracking_uri": uri, "mode": "aml"}):
        with pytest.raises(UntrustedHostError, match=r"Azure ML's: got 'collector\.example'; use"):
            connect(**arguments)
    assert state() == before


def test_a_host_is_allowed_until_the_connection_ends(
    workspace: AmlWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "DBX_AML_ALLOWED_HOSTS"
    monkeypatch.setattr("dbx_aml.tracking.connect._verify_link", lambda link: (link, None, None))
    uri = str(workspace.tracking_uri).replace("westeurope.api.azureml.ms", "ml.contoso.com")
    with connect(allowed_hosts=["ml.contoso.com"], mode="aml", aml_tracking_uri=uri) as connection:
        assert connection.tracking_uri == uri
        assert os.environ[variable] == "ml.contoso.com"
    assert variable not in os.environ
    with pytest.raises(UntrustedHostError, match=r"got 'ml\.contoso\.com'"):
        connect(allowed_hosts=["ml2.contoso.com"], mode="aml", aml_tracking_uri=uri)
    assert variable not in os.environ
    with connect(databricks_tracking_uri="sqlite:///mlflow.db"):
        # The same link, but another setting: it ends with its own connection.
        with connect(allowed_hosts=["other"], databricks_tracking_uri="sqlite:///mlflow.db"):
            assert os.environ[variable] == "other"
        assert variable not in os.environ
    monkeypatch.setenv(variable, "ml.contoso.com")
    with connect(mode="aml", aml_tracking_uri=uri):
        pass
    assert os.environ[variable] == "ml.contoso.com"


def test_a_link_and_values_together_are_refused() -> None:
    with pytest.raises(LinkError, match=r"a link or its values: got both, \['mode'\]"):
        connect(Link(), mode="aml")


@pytest.fixture
def some_server() -> Iterator[str]:
    """A server that knows nothing: databricks-sdk asks it for its kind."""
    handler = type("Nothing", (BaseHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_missing_databricks_login_raises_and_changes_nothing() -> None:
    before = state()
    with pytest.raises(LinkError, match="Databricks must be set up for MLflow's 'databricks'"):
        connect()
    assert state() == before


def test_databricks_is_found_from_its_variables(
    monkeypatch: pytest.MonkeyPatch, some_server: str
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", some_server)
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-not-a-token")
    with connect() as connection:
        assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == (
            "databricks",
            "databricks-uc",
        )
        assert connection.to_dict()["Databricks workspace"] == some_server
        assert "dapi" not in str(connection) + repr(connection) + connection._repr_html_()


@pytest.mark.azureml
def test_azure_ml_tracks_after_one_line_and_the_connection_shows_the_identity(
    azureml: AzureMl, set_identity: SetIdentity, workspace: AmlWorkspace, tmp_path: Path
) -> None:
    set_identity()
    file = tmp_path / "config.json"
    file.write_text(json.dumps(workspace.to_dict()))
    with connect() as connection:
        assert isinstance(connection, Connection)
        assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == azureml.tracking_uri
        assert os.environ["AZUREML_CURRENT_CLOUD"] == "AzureCloud"
        assert float(os.environ["DBX_AML_RETRY_TIMEOUT_S"]) == connection.link.retry_timeout_s
        assert connection.to_dict() == {
            "mode": "aml",
            "tracking URI": azureml.tracking_uri,
            "registry URI": azureml.tracking_uri,
            "signed in as": f"application {CLIENT_ID} in tenant {TENANT_ID}",
            "credential": "service principal with a secret (AZURE_CLIENT_SECRET is set)",
            "Azure ML studio": f"https://ml.azure.com/?wsid={workspace.arm_id}&tid={TENANT_ID}",
            "Azure portal": f"https://portal.azure.com/#resource{workspace.arm_id}/overview",
        }
        lines = str(connection).splitlines()
        assert lines[1] == f"tracking URI     {azureml.tracking_uri}"
        html = connection._repr_html_()
        page = f"https://ml.azure.com/?wsid={workspace.arm_id}&amp;tid={TENANT_ID}"
        assert f'<a href="{page}">' in html
    assert "AZUREML_CURRENT_CLOUD" not in os.environ
    assert "DBX_AML_RETRY_TIMEOUT_S" not in os.environ


@pytest.mark.azureml
def test_a_second_connect_with_the_same_link_sends_no_request(
    azureml: AzureMl, set_identity: SetIdentity, workspace: AmlWorkspace
) -> None:
    set_identity()
    link = Link(mode="aml", aml_workspace=workspace)
    connect(link)
    requests = len(azureml.requests())
    connect(link)
    assert len(azureml.requests()) == requests
    mlflow.set_tracking_uri("sqlite://")
    assert connect(link).tracking_uri == mlflow.get_tracking_uri() == azureml.tracking_uri


@pytest.mark.azureml
def test_without_region_and_uri_the_management_endpoint_is_asked(
    azureml: AzureMl, set_identity: SetIdentity, workspace: AmlWorkspace
) -> None:
    set_identity("managed")
    link = Link(mode="aml", aml_workspace=AmlWorkspace(**workspace.names))
    with connect(link) as connection:
        assert connection.tracking_uri == mlflow.get_tracking_uri() == azureml.tracking_uri
        assert connection.link == link


@pytest.mark.azureml
def test_dual_tracks_in_databricks_and_does_not_need_azure_ml(
    azureml: AzureMl, set_identity: SetIdentity, workspace: AmlWorkspace, tmp_path: Path
) -> None:
    set_identity("none")
    uri = f"sqlite:///{tmp_path / 'x.db'}"
    with connect(mode="dual", aml_workspace=workspace, databricks_tracking_uri=uri) as connection:
        assert mlflow.get_tracking_uri() == uri
        assert connection.link.aml_tracking_uri == azureml.tracking_uri
        assert connection.to_dict()["Azure ML studio"] == workspace.studio_url
    assert azureml.requests() == []


def fails(link: Link, kind: type[DbxAmlError]) -> str:
    """Return the line of a connect that fails in time, and changes nothing."""
    before, started = state(), time.monotonic()
    with pytest.raises(kind) as caught:
        connect(link)
    # Without a limit this would not end.
    assert time.monotonic() - started < 30
    assert state() == before
    # An error of a client library would hold the request with its token.
    assert isinstance(caught.value.__context__, DbxAmlError | None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.azureml
def test_each_wrong_setting_is_one_line_within_seconds(
    azureml: AzureMl, set_identity: SetIdentity, workspace: AmlWorkspace
) -> None:
    link = Link(mode="aml", aml_workspace=workspace)
    set_identity("none")
    assert "set AZURE_TENANT_ID, AZURE_CLIENT_ID" in fails(link, CredentialError)
    set_identity(AZURE_CLIENT_SECRET="not-the-secret")
    assert "AADSTS7000215" in fails(link, CredentialError)
    set_identity(AZURE_TENANT_ID="11111111-1111-4111-8111-111111111111")
    assert "AADSTS90002" in fails(link, CredentialError)
    set_identity()
    other = replace(workspace, workspace_name="mlw-other", tracking_uri=None)
    line = fails(replace(link, aml_workspace=other, aml_tracking_uri=None), LinkError)
    assert line.startswith(
        "workspace 'mlw-other' must exist in resource group 'rg-ml' of subscription "
        f"'{workspace.subscription_id}': got 404 ResourceNotFound from management.azure.com"
    )
    other = replace(workspace, resource_group="rg-other", tracking_uri=None)
    line = fails(replace(link, aml_workspace=other, aml_tracking_uri=None), LinkError)
    assert line.startswith("resource group 'rg-other' must exist in subscription ")
    azureml.deny(ALL_ACTIONS)
    line = fails(link, LinkError)
    assert line.startswith("caller must be allowed to use workspace 'mlw-team': got 403")
    assert line.endswith("ask for the role 'AzureML Data Scientist'")
    azureml.reset()
    azureml.fault("status", status=503, host="api.azureml.ms")
    assert "westeurope.api.azureml.ms must accept the request: got 503" in fails(link, ServiceError)
    azureml.reset()
    azureml.revoke_tokens()
    assert "must accept the token: got 401" in fails(link, CredentialError)


@pytest.mark.azureml
@pytest.mark.slow
def test_a_workspace_host_in_a_black_hole_is_one_line_within_seconds(
    azureml: AzureMl, set_identity: SetIdentity, workspace: AmlWorkspace
) -> None:
    set_identity()
    azureml.fault("black-hole", host="api.azureml.ms")
    line = fails(Link(mode="aml", aml_workspace=workspace), ServiceUnavailableError)
    assert line.startswith("host westeurope.api.azureml.ms must answer: got no answer in 5.0 s")


@pytest.mark.azureml
def test_all_steps_of_connect_share_one_time_limit(
    azureml: AzureMl,
    set_identity: SetIdentity,
    workspace: AmlWorkspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_identity()
    monkeypatch.setattr("dbx_aml.tracking.connect.CONNECT_TIMEOUT_S", 1.0)
    azureml.fault("delay", host="api.azureml.ms", delay_s=60.0)
    line = fails(Link(mode="aml", aml_workspace=workspace), ServiceUnavailableError)
    assert re.search(r"no answer in (0\.\d|1\.0) s", line)


@pytest.mark.azureml
def test_imports_that_take_long_are_no_part_of_the_time_for_the_services(
    azureml: AzureMl,
    set_identity: SetIdentity,
    workspace: AmlWorkspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_identity()
    monkeypatch.setattr("dbx_aml.azure.credentials.TOKEN_TIMEOUT_S", 1.0)
    monkeypatch.setattr("dbx_aml.azure.credentials.import_client_modules", lambda: time.sleep(1.2))
    with connect(Link(mode="aml", aml_workspace=workspace)) as connection:
        assert connection.identity is not None


@pytest.mark.azureml
def test_a_missing_host_is_one_line(
    azureml: AzureMl, set_identity: SetIdentity, workspace: AmlWorkspace
) -> None:
    set_identity()
    other = replace(workspace, region="nowhere", tracking_uri=None)
    line = fails(Link(mode="aml", aml_workspace=other), ServiceUnavailableError)
    assert line.startswith("host nowhere.api.azureml.ms must answer: got ")
    assert "502" in line


@pytest.mark.azureml
def test_no_output_has_a_secret_or_a_token(
    azureml: AzureMl,
    set_identity: SetIdentity,
    workspace: AmlWorkspace,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    set_identity()
    written = []
    with connect(mode="aml", aml_workspace=workspace) as connection:
        token = (
            get_credential(connection.link).get_token("https://management.azure.com/.default").token
        )
        written += [str(connection), repr(connection), connection._repr_html_(), str(state())]

    for call in (
        lambda: azureml.deny(ALL_ACTIONS),
        lambda: azureml.fault("status", status=503, host="api"),
        lambda: azureml.fault("drop", host="api"),
        azureml.revoke_tokens,
    ):
        azureml.reset()
        call()
        with pytest.raises(DbxAmlError) as caught:
            connect(mode="aml", aml_workspace=workspace)
        written.extend(traceback.format_exception(caught.value))
    output = capfd.readouterr()
    everything = "\n".join([*written, caplog.text, output.out, output.err])
    assert "got 401" in everything
    assert "urllib3" in everything
    secrets = [azureml.environment()["AZURE_CLIENT_SECRET"], token, token.split(".")[2]]
    assert [secret for secret in secrets if secret in everything] == []


@pytest.mark.azureml
@pytest.mark.slow
def test_plain_mlflow_code_runs_after_one_line(azureml: AzureMl, workspace: AmlWorkspace) -> None:
    code = """
        import sys
        import dbx_aml
        print(dbx_aml.connect(mode="aml", aml_workspace=sys.argv[1], experiment="after-connect"))
        import mlflow
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 0.5)
        print("metric", mlflow.get_run(run.info.run_id).data.metrics["m"])
        print("experiment", mlflow.get_experiment(run.info.experiment_id).name)
    """
    done = azureml.run(dedent(code), skip_metadata=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["metric 0.5", "experiment after-connect"]
    # Without AZUREML_CURRENT_CLOUD azureml-mlflow requests the cloud's metadata.
    assert azureml.requests(path="/metadata/endpoints") == []


def test_connect_before_mlflow_leaves_mlflow_its_plugins() -> None:
    """MLflow looks for plugins when it is imported, and warns of one that is half loaded."""
    code = """
import dbx_aml; dbx_aml.connect
from mlflow.tracking.context.registry import _run_context_provider_registry as providers
print([type(provider).__name__ for provider in providers])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error:Failure attempting", "-c", code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "MirrorTagProvider" in done.stdout


def test_a_connection_shows_no_password() -> None:
    uri = "https://ana:pa/s3cret@mlflow.example"
    with connect(mode="databricks", databricks_tracking_uri=uri) as connection:
        assert connection.tracking_uri == uri, "MLflow needs it"
        for shown in (connection, status(connection)):
            for text in (str(shown), repr(shown), shown._repr_html_()):
                assert "s3cret" not in text
            assert "https://***@mlflow.example" in str(shown)


JOB_RUN = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def job(azureml: AzureMl, set_identity: SetIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of an Azure ML job, whose token is the only credential."""
    set_identity("none")
    for name, value in {
        "MLFLOW_TRACKING_URI": azureml.tracking_uri,
        "MLFLOW_TRACKING_TOKEN": azureml.token(),
        "MLFLOW_RUN_ID": JOB_RUN,
        "MLFLOW_EXPERIMENT_ID": "7",
        "MLFLOW_EXPERIMENT_NAME": "nightly",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.azureml
@pytest.mark.usefixtures("job")
def test_in_an_azure_ml_job_connect_uses_the_token_and_the_run_of_the_job(
    azureml: AzureMl,
) -> None:
    before = state()
    with connect(mode="aml") as connection:
        assert connection.to_dict()["credential"] == ("Azure ML job (MLFLOW_TRACKING_TOKEN is set)")
        assert os.environ["MLFLOW_RUN_ID"] == JOB_RUN
        assert mlflow.MlflowClient().search_experiments() is not None
        assert azureml.requests(host="login") == []
    assert state() == before


@pytest.mark.azureml
@pytest.mark.usefixtures("job")
def test_the_run_of_an_azure_ml_job_is_put_aside_while_another_server_tracks(
    tmp_path: Path,
) -> None:
    before = state()
    for mode in ("databricks", "dual"):
        with connect(mode=mode, **stores(tmp_path)):
            names = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
            assert not os.environ.keys() & set(names)
            with mlflow.start_run() as run:
                assert run.info.run_id != JOB_RUN
        assert state() == before


@pytest.mark.azureml
@pytest.mark.usefixtures("job")
def test_the_token_of_a_job_is_not_used_for_another_workspace(azureml: AzureMl) -> None:
    uri = azureml.tracking_uri.replace("mlw-team", "mlw-other")
    with pytest.raises(CredentialError, match="managed identity of this machine"):
        connect(mode="aml", aml_tracking_uri=uri)


def test_a_run_of_the_same_server_stays_the_run_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uris = stores(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uris["databricks_tracking_uri"])
    monkeypatch.setenv("MLFLOW_RUN_ID", JOB_RUN)
    with connect(mode="databricks", **uris):
        assert os.environ["MLFLOW_RUN_ID"] == JOB_RUN
    with connect(mode="aml", **uris):
        assert "MLFLOW_RUN_ID" not in os.environ
    assert os.environ["MLFLOW_RUN_ID"] == JOB_RUN


@pytest.mark.azureml
def test_child_processes_get_the_reference_of_the_service_principal_but_no_secret(
    set_identity: SetIdentity, workspace: AmlWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_identity()
    secret = os.environ["AZURE_CLIENT_SECRET"]
    monkeypatch.setenv("TEAM_SECRET", secret)
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    variables = {
        "DBX_AML_TENANT_ID": TENANT_ID,
        "DBX_AML_CLIENT_ID": CLIENT_ID,
        "DBX_AML_CLIENT_SECRET": "env:TEAM_SECRET",
    }
    with connect(
        mode="aml",
        aml_workspace=workspace,
        tenant_id=TENANT_ID,
        client_id=CLIENT_ID,
        client_secret="env:TEAM_SECRET",
    ) as connection:
        assert {name: os.environ.get(name) for name in variables} == variables
        # What a child process loads.
        link = Link.load()
        assert link.client_secret == connection.link.client_secret
        assert (link.tenant_id, link.client_id) == (TENANT_ID, CLIENT_ID)
    assert not os.environ.keys() & variables.keys()


def test_without_a_named_credential_child_processes_keep_theirs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DBX_AML_TENANT_ID", "of-the-cluster")
    with connect(Link(mode="dual", **stores(tmp_path))):  # type: ignore[arg-type]
        assert os.environ["DBX_AML_TENANT_ID"] == "of-the-cluster"
