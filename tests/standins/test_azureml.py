"""The stand-in of Azure ML behaves as the service does to azureml-mlflow and azure-identity."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import EnvironmentCredential

from tests.support.azureml import ALL_ACTIONS, RUNS_WRITE, AzureMl

RUN_API = "/api/2.0/mlflow/experiments/get?experiment_id=0"


@pytest.fixture(scope="module")
def results(azureml_process: AzureMl, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of the unmodified client, which runs once for this module."""
    azureml_process.reset()
    azureml_process.delete_data()
    program = azureml_process.run(
        "import runpy, sys; sys.argv = ['client', *sys.argv[1:]]\n"
        "runpy.run_module('tests.standins.azureml_plain_client', run_name='__main__')",
        str(tmp_path_factory.mktemp("client")),
        f"{azureml_process.proxy}/stand-in/",
    )
    assert program.returncode == 0, program.stderr
    results: dict[str, Any] = json.loads(program.stdout.rpartition("RESULTS:")[2])
    return results


@pytest.mark.slow
def test_a_plain_client_tracks_a_run_and_finds_it(
    results: dict[str, Any], azureml: AzureMl
) -> None:
    assert results["store"] == "AzureMLRestStore"
    assert results["params"] == {"depth": "3"}
    assert results["loss"] == [0.5, 0.25]
    assert results["background"] == 3
    assert (results["team"], results["status"]) == ("risk", "FINISHED")
    # Azure ML's identifiers are GUIDs, for runs and for experiments.
    assert len(results["run_id"]) == len(results["experiment_id"]) == 36
    assert results["searched"] == [[results["run_id"]], [results["run_id"]]]
    assert results["root"] == results["run_id"]
    assert results["artifact_uri"] == (
        f"azureml://westeurope.api.azureml.ms/mlflow/v2.0{azureml.workspace.scope}"
        f"/experiments/{results['experiment_id']}/runs/{results['run_id']}/artifacts"
    )


@pytest.mark.slow
def test_an_artifact_is_never_written_twice_and_a_failed_upload_stays_listed(
    results: dict[str, Any],
) -> None:
    # 101 files: the service lists 100 a page.
    assert results["listed_in_folder"] == results["downloaded"] == 101
    assert results["text"] == "hello"
    assert "Resource Conflict" in results["written_twice"]
    assert "AuthorizationFailure" in results["failed_upload"]
    # The second attempt of the client meets the path that the first attempt registered.
    assert "Resource Conflict" in results["lost_registration"]
    assert results["listed"] == ["folder", "lost.txt", "lost2.txt", "notes"]
    assert "BlobNotFound" in results["read_lost"]


@pytest.mark.slow
def test_a_model_is_registered_and_the_calls_of_mlflow_3_are_missing(
    results: dict[str, Any],
) -> None:
    assert results["versions"] == [["1", "READY"], ["2", "READY"]]
    assert results["source_of_upload"].startswith("azureml://artifacts/LocalUpload/")
    assert results["predicted"] == [[2.0, 4.0]] * 2
    assert "No artifacts were found" in results["nowhere"]
    for call in ("rename", "alias", "outputs", "log_model"):
        assert "404" in results[call], call
    assert "403" in results["traces"]


@pytest.mark.slow
def test_limits_are_refused_in_the_words_of_the_service(results: dict[str, Any]) -> None:
    for words, error in results["limits"].items():
        assert words in error
        assert "INVALID_PARAMETER_VALUE" in error


@pytest.mark.parametrize(
    ("variable", "code"),
    [
        ("AZURE_CLIENT_SECRET", "AADSTS7000215"),
        ("AZURE_CLIENT_ID", "AADSTS700016"),
        # MSAL does not show AADSTS90002.
        ("AZURE_TENANT_ID", "Unable to get authority configuration"),
    ],
)
def test_wrong_credentials_fail_with_the_code_of_entra(
    azureml: AzureMl, monkeypatch: pytest.MonkeyPatch, variable: str, code: str
) -> None:
    wrong = {variable: "11111111-1111-4111-8111-111111111111"}
    for name, text in {**azureml.environment(), **wrong}.items():
        monkeypatch.setenv(name, text)

    with pytest.raises((ClientAuthenticationError, ValueError), match=code):
        EnvironmentCredential().get_token("https://management.azure.com/.default")


@pytest.mark.parametrize(
    ("fault", "result"),
    [
        ({"kind": "status", "status": 429, "retry_after_s": 1}, (429, "1")),
        ({"kind": "status", "status": 503, "for_s": 0}, (200, None)),
        ({"kind": "status", "status": 503, "host": "blob"}, (200, None)),
        ({"kind": "status", "status": 503, "skip": 1}, (200, None)),
        ({"kind": "delay", "delay_s": 0.3}, (200, None)),
        ({"kind": "drop"}, requests.ConnectionError),
        ({"kind": "lost-answer"}, requests.ConnectionError),
        ({"kind": "black-hole"}, requests.Timeout),
        ({"kind": "black-hole", "path": "experiments/get"}, requests.Timeout),
    ],
)
def test_each_fault_has_its_effect(azureml: AzureMl, fault: dict[str, Any], result: Any) -> None:
    token = azureml.token()
    azureml.fault(**{"host": "api.azureml.ms", **fault})

    if isinstance(result, tuple):
        response = call_run_api(azureml, token)
        assert (response.status_code, response.headers.get("Retry-After")) == result
        assert azureml.requests(path="experiments/get")[0].seconds >= fault.get("delay_s", 0)
    else:
        with pytest.raises(result):
            call_run_api(azureml, token, timeout=0.3)


def test_a_token_is_refused_when_it_is_revoked_or_expired(azureml: AzureMl) -> None:
    token = azureml.token()
    assert call_run_api(azureml, token).status_code == 200
    assert call_run_api(azureml, "").status_code == 401
    azureml.revoke_tokens()
    assert "could not be verified" in call_run_api(azureml, token).text
    azureml.token_lifetime(-1)
    assert "has expired" in call_run_api(azureml, azureml.token()).text


def test_a_denied_action_fails_and_is_missing_from_the_permissions(azureml: AzureMl) -> None:
    permissions = "/providers/Microsoft.Authorization/permissions"
    azureml.deny(RUNS_WRITE)
    response = call_run_api(azureml, path="/api/2.0/mlflow/runs/create", method="POST")
    assert response.status_code == 403
    assert RUNS_WRITE in response.text
    assert call_run_api(azureml).status_code == 200
    assert RUNS_WRITE in call_management(azureml, permissions).json()["value"][0]["notActions"]

    azureml.deny(ALL_ACTIONS)
    assert call_management(azureml, permissions).json() == {"value": []}
    assert call_management(azureml).status_code == 403


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("subscription_id", "SubscriptionNotFound"),
        ("resource_group", "ResourceGroupNotFound"),
        ("workspace_name", "ResourceNotFound"),
    ],
)
def test_another_workspace_is_not_found(azureml: AzureMl, field: str, code: str) -> None:
    name = getattr(azureml.workspace, field)
    scope = azureml.workspace.scope.replace(name, "other")

    assert call_run_api(azureml, scope=scope).json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    response = call_management(azureml, scope=scope)
    assert (response.status_code, response.json()["error"]["code"]) == (404, code)


def test_the_management_endpoint_returns_the_tracking_uri(azureml: AzureMl) -> None:
    properties = call_management(azureml).json()["properties"]

    assert properties["mlFlowTrackingUri"] == azureml.tracking_uri
    assert properties["workspaceId"] == azureml.workspace.workspace_id
    assert call_management(azureml, token="").status_code == 401


def test_no_other_host_is_reached_and_the_journal_keeps_no_secret(azureml: AzureMl) -> None:
    with pytest.raises(requests.exceptions.ProxyError):
        send(azureml, "GET", "https://example.com/")
    call_management(azureml)

    entries = azureml.requests()
    assert [(entry.method, entry.host, entry.status) for entry in entries][:1] == [
        ("CONNECT", "example.com", 502)
    ]
    journal = json.dumps([vars(entry) for entry in entries])
    assert "Bearer" not in journal
    assert azureml.environment()["AZURE_CLIENT_SECRET"] not in journal


def test_deleted_data_are_gone_and_a_new_experiment_is_accepted(azureml: AzureMl) -> None:
    create = "/api/2.0/mlflow/experiments/create"
    body = {"name": "again"}
    statuses = [call_run_api(azureml, path=create, method="POST", json=body).status_code]
    statuses += [call_run_api(azureml, path=create, method="POST", json=body).status_code]

    azureml.delete_data()

    statuses += [call_run_api(azureml, path=create, method="POST", json=body).status_code]
    assert statuses == [200, 400, 200]


@pytest.mark.slow
def test_a_stand_in_ends_with_all_its_processes_when_its_starter_is_killed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "azureml"
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tests.support.azureml import azureml_service\n"
        "with azureml_service(Path(sys.argv[1])) as service:\n"
        "    print(service.proxy, flush=True)\n"
        "    time.sleep(600)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout
    assert starter.stdout.readline().startswith("http://127.0.0.1:")
    assert process_ids(folder)

    starter.send_signal(signal.SIGKILL)
    starter.wait()

    deadline = time.monotonic() + 10
    while process_ids(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process_ids(folder)


def process_ids(folder: Path) -> list[int]:
    """Return the processes that work in a folder, or have it in their command."""
    process_ids = []
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        is_in_folder = process.info["cwd"] == str(folder)
        if is_in_folder or str(folder) in (process.info["cmdline"] or []):
            process_ids.append(process.pid)
    return [process_id for process_id in process_ids if process_id != os.getpid()]


def send(
    azureml: AzureMl, method: str, url: str, token: str = "", **options: Any
) -> requests.Response:
    """Send one request through the proxy of the stand-in."""
    with requests.Session() as session:
        session.trust_env = False
        return session.request(
            method,
            url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            proxies={"https": azureml.proxy},
            verify=str(azureml.authority),
            **{"timeout": 30, **options},
        )


def call_run_api(
    azureml: AzureMl,
    token: str | None = None,
    *,
    path: str = RUN_API,
    method: str = "GET",
    scope: str = "",
    **options: Any,
) -> requests.Response:
    """Call the MLflow part of the service, with a valid token by default."""
    workspace = azureml.workspace
    url = f"https://{workspace.api_host}/mlflow/v1.0{scope or workspace.scope}{path}"
    return send(azureml, method, url, azureml.token() if token is None else token, **options)


def call_management(
    azureml: AzureMl, path: str = "", *, token: str | None = None, scope: str = ""
) -> requests.Response:
    """Call the management endpoint of the workspace, with a valid token by default."""
    scope = scope or azureml.workspace.scope
    url = f"https://management.azure.com{scope}{path}?api-version=2024-10-01"
    return send(azureml, "GET", url, azureml.token() if token is None else token)
