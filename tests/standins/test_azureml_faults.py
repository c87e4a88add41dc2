"""The stand-in of Azure ML fails as the service and the networks in front of it do.

Identities, rights, outages; the clients are the unmodified ones.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import psutil
import pytest
import requests

from tests.support.azureml import EVERYTHING, RUNS_WRITE, AzureMl, Workspace, azureml_service
from tests.support.azureml.program import found_by

pytestmark = pytest.mark.slow

# A client that gives up early; the service's own default is about four minutes.
_FAST = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
}


@pytest.mark.parametrize("identity", ["certificate", "managed", "workload"])
def test_every_identity_of_a_job_gets_a_token(azureml: AzureMl, identity: str) -> None:
    found = found_by(
        azureml,
        'found["names"] = [e.name for e in client.search_experiments()]',
        identity=identity,
    )

    assert "Default" in found["names"]


def test_wrong_credentials_fail_at_once_and_as_entra_says(azureml: AzureMl) -> None:
    nobody = "11111111-1111-4111-8111-111111111111"
    found = found_by(
        azureml,
        f"""
        from azure.identity import EnvironmentCredential
        scope = "https://management.azure.com/.default"
        # The whole chain: a wrong secret ends it, nobody is asked to log in.
        found["secret"] = error_of(client.search_experiments)
        os.environ["AZURE_CLIENT_SECRET"] = os.environ["RIGHT"]
        tenant, os.environ["AZURE_TENANT_ID"] = os.environ["AZURE_TENANT_ID"], "{nobody}"
        found["tenant"] = error_of(EnvironmentCredential().get_token, scope)
        os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"] = tenant, "{nobody}"
        found["client"] = error_of(EnvironmentCredential().get_token, scope)
        """,
        environment={
            "AZURE_CLIENT_SECRET": "wrong",
            "RIGHT": azureml.environment()["AZURE_CLIENT_SECRET"],
        },
    )

    assert "AADSTS7000215" in found["secret"][1]
    assert found["secret"][2] < 3
    # MSAL keeps AADSTS90002 to itself.
    assert "Unable to get authority configuration" in found["tenant"][1]
    assert "AADSTS700016" in found["client"][1]


def test_a_client_without_identity_waits_for_a_person(azureml: AzureMl) -> None:
    code = (
        "import sys; sys.modules['dbx_aml'] = None; import mlflow;"
        "mlflow.MlflowClient(sys.argv[1]).search_experiments()"
    )
    with azureml.start(code, identity="none") as waiting:
        azureml.wait_for(path="oauth2/v2.0/devicecode")
        time.sleep(1)
        is_waiting = waiting.poll() is None
        waiting.kill()

    # Until the code ends, which is after 15 minutes.
    assert is_waiting


def test_a_jobs_own_token_is_used_and_refreshed(azureml: AzureMl) -> None:
    mine = found_by(
        azureml,
        """
        experiment = client.create_experiment("job")
        found["ids"] = [experiment, client.create_run(experiment).info.run_id]
        """,
    )
    experiment_id, run_id = mine["ids"]
    # Less than the 95 s before its end at which the client asks for another one.
    azureml.token_lifetime(60)
    environment = {
        "MLFLOW_TRACKING_URI": azureml.tracking_uri,
        "MLFLOW_TRACKING_TOKEN": azureml.token(),
        "MLFLOW_EXPERIMENT_ID": experiment_id,
        "MLFLOW_RUN_ID": run_id,
    }

    found = found_by(
        azureml,
        """
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 1)
        found["run_id"] = run.info.run_id
        """,
        identity="none",
        environment=environment,
    )

    assert found["run_id"] == run_id
    assert azureml.requests(path=f"/experimentids/{experiment_id}/runs/{run_id}/token")


def test_each_fault_does_what_it_says(azureml: AzureMl) -> None:
    found = found_by(
        azureml,
        """
        experiment = client.create_experiment("faults")
        run = client.create_run(experiment).info.run_id
        def log(step):
            return error_of(client.log_metric, run, "m", step, step=step)

        retries(3)
        fault("status", status=429, retry_after_s=1, path="runs/log-metric", count=2)
        found["throttled"] = log(1)
        retries(1)
        fault("status", status=503, path="runs/log-metric")
        found["outage"] = log(2)
        fault("status", status=503, path="runs/log-metric", for_s=0)
        found["over"] = log(3)
        fault("status", status=503, host="blob")
        found["elsewhere"] = log(4)
        fault("status", status=403, path="runs/set-tag", skip=1, count=1)
        found["second"] = [error_of(client.set_tag, run, "t", i)[1][:30] for i in range(3)]
        fault("delay", delay_s=1, count=1)
        found["slow"] = log(5)
        fault("drop", path="runs/log-metric", count=1)
        found["dropped"] = log(6)
        retries(0, timeout_s=1)
        fault("black-hole", path="runs/log-metric")
        found["black_hole"] = log(7)
        admin("reset")
        found["steps"] = [m.step for m in client.get_metric_history(run, "m")]

        retries(1)
        fault("lost-answer", path="runs/create", count=1)
        found["created"] = error_of(client.create_run, experiment, run_name="twice")
        twice = client.search_runs([experiment], "attributes.run_name = 'twice'")
        found["runs"] = len(twice)
        """,
    )

    assert found["throttled"][0] == ""
    # Retry-After is obeyed, twice.
    assert 2 <= found["throttled"][2] < 5
    assert "503" in found["outage"][1]
    assert found["over"][0] == found["elsewhere"][0] == found["slow"][0] == ""
    assert [bool(error) for error in found["second"]] == [False, True, False]
    assert found["slow"][2] >= 1
    assert found["dropped"][0] == ""
    assert "timed out" in found["black_hole"][1]
    assert 1 <= found["black_hole"][2] < 3
    assert found["steps"] == [1, 3, 4, 5, 6]
    # The answer was lost, the run was not: the client's second try made another one.
    assert found["created"][0] == ""
    assert found["runs"] == 2


def test_a_host_in_a_black_hole_takes_connections_and_says_nothing(azureml: AzureMl) -> None:
    azureml.fault("black-hole", host="api.azureml.ms")

    found = found_by(
        azureml, "found['error'] = error_of(client.search_experiments)", environment=_FAST
    )

    assert "Max retries exceeded" in found["error"][1]
    # Two tries of three seconds.
    assert 5 < found["error"][2] < 15
    assert not azureml.requests(host="api.azureml.ms", path="/")


def test_tokens_end_and_can_be_taken_back(azureml: AzureMl) -> None:
    found = found_by(
        azureml,
        """
        retries(0)
        found["good"] = error_of(client.search_experiments)
        admin("state", revoke_tokens=True)
        # The client does not know, and sends what it has.
        found["revoked"] = [error_of(client.search_experiments) for _ in range(2)]
        admin("state", token_lifetime_s=250)
        from azureml.mlflow._internal.service_context_loader import _AzureMLServiceContextLoader
        _AzureMLServiceContextLoader._tracking_uri_to_service_context.clear()
        client = MlflowClient(sys.argv[1] + "?again")
        found["short"] = [error_of(client.search_experiments) for _ in range(3)]
        """,
    )

    assert found["good"][0] == ""
    for error in found["revoked"]:
        assert "could not be verified" in error[1]
    assert [error[0] for error in found["short"]] == ["", "", ""]
    # One for the first credential; the second one asks each time, for MSAL uses no token that has
    # less than 300 s left.
    assert len(azureml.requests(path="oauth2/v2.0/token")) >= 4


def test_what_is_denied_fails_and_shows_in_the_permissions(azureml: AzureMl) -> None:
    azureml.deny(RUNS_WRITE)

    found = found_by(
        azureml,
        """
        found["search"] = error_of(client.search_experiments)
        found["create"] = error_of(client.create_run, "0")
        """,
    )
    first = _management(azureml, "/providers/Microsoft.Authorization/permissions")
    azureml.deny(EVERYTHING)
    second = _management(azureml, "/providers/Microsoft.Authorization/permissions")

    assert found["search"][0] == ""
    assert "PERMISSION_DENIED" in found["create"][1]
    assert RUNS_WRITE in found["create"][1]
    assert RUNS_WRITE in first.json()["value"][0]["notActions"]
    assert second.json() == {"value": []}
    assert _management(azureml).status_code == 403


def test_a_workspace_that_does_not_exist_is_not_found(azureml: AzureMl) -> None:
    found = found_by(
        azureml,
        """
        for old in ("mlw-team", "rg-ml", "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42"):
            other = MlflowClient(sys.argv[1].replace(old, "other"))
            found[old] = error_of(other.search_experiments)
        """,
    )

    for error in found.values():
        assert "RESOURCE_DOES_NOT_EXIST" in error[1]
    for old, code in (
        (azureml.workspace.subscription_id, "SubscriptionNotFound"),
        (azureml.workspace.resource_group, "ResourceGroupNotFound"),
        (azureml.workspace.workspace_name, "ResourceNotFound"),
    ):
        answer = _management(azureml, replace=(old, "other"))
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == code


def test_the_management_endpoint_tells_the_tracking_uri(azureml: AzureMl) -> None:
    properties = _management(azureml).json()["properties"]

    assert properties["mlFlowTrackingUri"] == azureml.tracking_uri
    assert properties["workspaceId"] == azureml.workspace.workspace_id
    assert properties["discoveryUrl"] == "https://westeurope.api.azureml.ms/discovery"
    assert _management(azureml, token="").status_code == 401


def test_the_clouds_metadata_may_come_from_either_url(azureml: AzureMl) -> None:
    code = "found['names'] = [e.name for e in client.search_experiments()]"
    url = "https://management.azure.com/metadata/endpoints?api-version=2019-05-01"

    assert "Default" in found_by(azureml, code, skip_metadata=False)["names"]
    assert len(azureml.requests(path="/metadata/endpoints")) == 1
    environment = {"ARM_CLOUD_METADATA_URL": url}
    assert "Default" in found_by(azureml, code, environment=environment)["names"]
    assert len(azureml.requests(path="/metadata/endpoints")) == 2


def test_metrics_logged_in_the_background_are_there_in_the_end(azureml: AzureMl) -> None:
    found = found_by(
        azureml,
        """
        mlflow.set_experiment("background")
        with mlflow.start_run() as run:
            for step in range(5):
                mlflow.log_metric("m", step, step=step, synchronous=False)
        mlflow.flush_async_logging()
        found["steps"] = [m.step for m in client.get_metric_history(run.info.run_id, "m")]
        """,
    )

    assert found["steps"] == [0, 1, 2, 3, 4]
    assert azureml.requests(path="/preview/mlflow/runs/log-batch-async")
    assert azureml.requests(path="/preview/mlflow/runs/get-run-data-status")


def test_no_other_host_is_reached_and_no_secret_is_kept(azureml: AzureMl) -> None:
    with pytest.raises(requests.exceptions.ProxyError):
        _get(azureml, "https://example.com/")
    _management(azureml)

    entries = azureml.requests()
    assert [(entry.method, entry.host, entry.status) for entry in entries][:1] == [
        ("CONNECT", "example.com", 502)
    ]
    kept = json.dumps([vars(entry) for entry in entries])
    assert "Bearer" not in kept
    assert azureml.environment()["AZURE_CLIENT_SECRET"] not in kept


def test_two_stand_ins_are_two_worlds_and_end_with_their_starter(tmp_path: Path) -> None:
    other = Workspace(region="northeurope", workspace_name="mlw-other")
    with azureml_service(tmp_path / "one") as one:
        program = f"""
            import sys, time
            from pathlib import Path
            from tests.support.azureml import Workspace, azureml_service
            folder, workspace = Path({str(tmp_path / "two")!r}), Workspace(**{vars(other)!r})
            with azureml_service(folder, workspace) as two:
                print(two.proxy, two.tracking_uri, flush=True)
                time.sleep(600)
        """
        starter = subprocess.Popen(
            [sys.executable, "-c", dedent(program)], stdout=subprocess.PIPE, text=True
        )
        assert starter.stdout
        proxy, tracking_uri = starter.stdout.readline().split()
        assert proxy != one.proxy
        assert tracking_uri.startswith("azureml://northeurope.api.azureml.ms/")
        assert _pids_with(str(tmp_path / "two"))

        starter.send_signal(signal.SIGKILL)
        starter.wait()
        deadline = time.monotonic() + 10
        while _pids_with(str(tmp_path / "two")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _pids_with(str(tmp_path / "two"))
        assert _management(one).status_code == 200


def _pids_with(folder: str) -> list[int]:
    """Processes that have a folder as their current one, or in their command."""
    found = []
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        here = process.info["cwd"] == folder or folder in (process.info["cmdline"] or [])
        if here and process.pid != os.getpid():
            found.append(process.pid)
    return found


def _get(azureml: AzureMl, url: str, token: str = "") -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(
            url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            proxies={"https": azureml.proxy},
            verify=str(azureml.authority),
            timeout=30,
        )


def _management(
    azureml: AzureMl,
    rest: str = "",
    *,
    token: str | None = None,
    replace: tuple[str, str] = ("", ""),
) -> requests.Response:
    """Ask the management endpoint about the workspace, with a good token unless one is given."""
    path = azureml.workspace.scope + rest
    if replace[0]:
        path = path.replace(*replace)
    url = f"https://management.azure.com{path}?api-version=2024-10-01"
    return _get(azureml, url, azureml.token() if token is None else token)
