"""`dbx-aml link`: a file is written, every value's origin shown, and the link proved in time."""

import json
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dbx_aml import AmlWorkspace, Link
from dbx_aml.cli.main import main
from tests.support.alone import leave_alone
from tests.support.azureml import RUNS_WRITE, AzureMl, Workspace

Run = Callable[..., Result]
WORKSPACE = Workspace()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leave_alone(monkeypatch, tmp_path)


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["link", *arguments])

    return invoke


@pytest.fixture
def ready(azureml: AzureMl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AzureMl:
    """A file that leads to the stand-in, and a service principal."""
    for variable, value in azureml.environment().items():
        monkeypatch.setenv(variable, value)
    workspace = AmlWorkspace.from_tracking_uri(azureml.tracking_uri)
    Link(mode="aml", aml_workspace=workspace).save(tmp_path)
    return azureml


def test_set_writes_a_file_and_show_says_where_each_value_is_from(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(
        "set", "--mode", "dual", "--aml-workspace", WORKSPACE.scope, "--region", "westeurope",
        "--client-secret", "ml/aml-secret", "--retry-timeout-s", "0",
    )  # fmt: skip
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "config.json says: mode dual, registry databricks-uc\n"
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "subscription_id": WORKSPACE.subscription_id,
        "resource_group": "rg-ml",
        "workspace_name": "mlw-team",
        "dbx_aml": {
            "mode": "dual",
            "registry": "databricks-uc",
            "region": "westeurope",
            "client_secret": {"scope": "ml", "key": "aml-secret"},
            "retry_timeout_s": 0.0,
        },
    }
    assert run("set", "--experiment", "iris").exit_code == 0
    monkeypatch.setenv("DBX_AML_MODE", "aml")
    done = run("show", "--json")
    values = json.loads(done.stdout)["values"]
    file = str(tmp_path / "config.json")
    assert values["mode"] == {"value": "aml", "origin": "DBX_AML_MODE"}
    assert values["experiment"] == {"value": "iris", "origin": file}
    assert values["client_secret"] == {"value": "ml/aml-secret", "origin": file}
    assert values["retry_timeout_s"] == {"value": 0.0, "origin": file}
    assert values["tenant_id"] == {"value": None, "origin": "default"}
    assert values["aml_tracking_uri"]["value"] == WORKSPACE.tracking_uri
    table = run("show").stdout
    for text in ("mode", "DBX_AML_MODE", file, "mlw-team", "→", "the link's service principal"):
        assert text in table


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["set"], 2, "Give at least one value, for example --mode aml."),
        (["set", "--mode", "both"], 2, "'both' is not one of 'databricks', 'aml', 'dual'"),
        (["set", "--client-secret", "Xyz8Q~text"], 2, "secret must be a reference, not its text"),
        (["set", "--cloud", "Azure", "--aml-workspace", WORKSPACE.scope], 2, "cloud must be one"),
        (["set", "--aml-workspace", "mlw-team"], 2, "ARM id must be a workspace's: got 'mlw-team'"),
        (["set", "--mode", "aml"], 1, "link must name an Azure ML workspace"),
        (["show", "--config", "/no/such"], 1, "config must be a config.json or a folder with one"),
        (["check", "--mode", "aml"], 2, "No such option '--mode'"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(
    run: Run, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = run(*arguments)
    assert done.exit_code == code
    assert message in " ".join(done.stderr.split())
    assert "Xyz8Q" not in done.output
    assert done.stdout == ""
    assert not (tmp_path / "config.json").exists()


def test_a_link_without_cloud_is_good_and_makes_no_database(run: Run, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'x.db'}"
    assert run("set", "--databricks-tracking-uri", uri).exit_code == 0
    done = run("check", "--json")
    assert done.exit_code == 0
    checks = json.loads(done.stdout)
    assert checks["is_good"] is True
    assert [(one["name"], one["said"]) for one in checks["checks"]] == [
        ("server", f"{uri} is on this machine")
    ]
    assert not (tmp_path / "x.db").exists()


def test_a_server_that_does_not_answer_fails_in_time(run: Run) -> None:
    assert run("set", "--databricks-tracking-uri", "http://127.0.0.1:9").exit_code == 0
    # What is call_within is the server's answer, not the import of MLflow.
    import_module("dbx_aml.tracking.check")
    started = time.monotonic()
    done = run("check")
    assert time.monotonic() - started < 10
    assert done.exit_code == 1
    assert "MLflow server http://127.0.0.1:9 must answer: got " in done.stderr


@pytest.mark.azureml
def test_check_proves_token_host_workspace_and_permission_by_reads(
    run: Run, ready: AzureMl
) -> None:
    done = run("check")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["token", "host", "workspace", "permission"]
    assert all(line.split()[2] == "s" for line in lines)
    assert "AZURE_CLIENT_SECRET is set" in lines[0]
    assert lines[2].endswith("mlw-team in rg-ml")
    calls = {(one.method, one.path.rpartition("/")[2]) for one in ready.requests() if one.path}
    writes = {call for call in calls if call[0] != "GET"}
    assert writes == {("POST", "token"), ("POST", "search")}
    checks = json.loads(run("check", "--json").stdout)["checks"]
    assert [one["is_good"] for one in checks] == [True] * 4
    assert all(0 <= one["seconds"] < 10 for one in checks)


@pytest.mark.azureml
def test_check_stops_at_the_first_that_fails(
    run: Run, ready: AzureMl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> tuple[str, str]:
        started = time.monotonic()
        done = run("check", "--json")
        assert time.monotonic() - started < 10
        assert done.exit_code == 1
        assert len(done.stderr.splitlines()) == 1
        last = json.loads(done.stdout)["checks"][-1]
        assert done.stderr == f"dbx-aml: {last['said']}\n"
        return last["name"], last["said"]

    ready.deny(RUNS_WRITE)
    name, said = failing()
    assert name == "permission"
    assert said.startswith("caller must be allowed to create runs: got roles without ")
    monkeypatch.setenv("DBX_AML_WORKSPACE_NAME", "mlw-other")
    name, said = failing()
    assert (name, said.partition(" in ")[0]) == ("host", "workspace 'mlw-other' must exist")
    monkeypatch.setenv("DBX_AML_REGION", "westeurope")
    assert failing()[0] == "workspace"
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not-the-secret")
    name, said = failing()
    assert name == "token"
    assert "AADSTS7000215" in said


@pytest.mark.azureml
@pytest.mark.parametrize(
    ("host", "name"),
    [("login", "token"), ("api.azureml.ms", "host"), ("management", "permission"), ("", "token")],
)
def test_black_holes_are_told_in_time(run: Run, ready: AzureMl, host: str, name: str) -> None:
    ready.fault("black-hole", host=host)
    started = time.monotonic()
    done = run("check", "--json")
    # Fifteen where every host is gone, and as many again for a slow machine.
    assert time.monotonic() - started < (10 if host else 30)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["checks"][-1]["name"] == name


@pytest.mark.azureml
@pytest.mark.slow
def test_slow_hosts_do_not_add_up(run: Run, ready: AzureMl) -> None:
    """Each step alone would be in time; all of them together are bounded too."""
    ready.fault("delay", delay_s=4.8, host="api.azureml.ms|management")
    started = time.monotonic()
    done = run("check", "--json")
    assert time.monotonic() - started < 20
    assert done.exit_code == 1
    checks = json.loads(done.stdout)["checks"]
    assert [one["is_good"] for one in checks] == [True, True, True, False]
    assert checks[-1]["seconds"] < checks[-2]["seconds"]


@pytest.mark.azureml
def test_nothing_that_the_command_writes_has_the_secret(
    run: Run, ready: AzureMl, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    written = [run(*arguments).output for arguments in (["show"], ["check"], ["show", "--json"])]
    run("set", "--experiment", "iris")
    written += [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    everything = "\n".join([*written, caplog.text])
    assert "mlw-team" in everything
    assert ready.environment()["AZURE_CLIENT_SECRET"] not in everything
    assert "eyJ" not in everything
