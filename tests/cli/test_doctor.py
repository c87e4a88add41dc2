"""`dbx-aml doctor` and `dbx-aml link check`: options, exit codes, table, JSON, and no secret."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dbx_aml import AmlWorkspace, Link
from dbx_aml.cli.main import main
from tests.support.azureml import AzureMl
from tests.support.databricks import TOKEN, Databricks
from tests.support.isolation import isolate_from_machine

RunCommand = Callable[..., Result]


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate_from_machine(monkeypatch, tmp_path)


@pytest.fixture
def run_command() -> RunCommand:
    return lambda *arguments: CliRunner().invoke(main, arguments)


@pytest.fixture
def dual_link(databricks: Databricks, azureml: AzureMl, monkeypatch: pytest.MonkeyPatch) -> AzureMl:
    """A link in mode "dual" to both stand-ins, in the current folder."""
    for variable, value in azureml.environment().items():
        monkeypatch.setenv(variable, value)
    Link(mode="dual", aml_workspace=AmlWorkspace.from_tracking_uri(azureml.tracking_uri)).save(".")
    return azureml


@pytest.mark.azureml
@pytest.mark.parametrize("command", [["doctor"], ["link", "check"]])
def test_a_failed_check_is_the_first_row_and_the_exit_code_is_1(
    run_command: RunCommand, dual_link: AzureMl, command: list[str]
) -> None:
    dual_link.deny("*/experiments/runs/write")
    result = run_command(*command)
    assert (result.exit_code, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[1].split()[:2] == ["failed", "actions"]
    assert "→ ask for the role 'AzureML Data Scientist'" in lines[1]
    assert lines[-1].startswith("1 failed, ")


@pytest.mark.azureml
def test_json_has_every_check(run_command: RunCommand, dual_link: AzureMl) -> None:
    result = run_command("doctor", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["ok"] is True
    checks = {check["check"]: check for check in report["checks"]}
    assert {"token", "actions", "Databricks user", "clock", "settings"} <= set(checks)
    assert set(checks["token"]) == {"check", "status", "seconds", "message", "fix"}
    assert "mlw-team in rg-ml" in checks["workspace"]["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model-uri", "models:/delay"], "model URI must name a version or an alias"),
        (["--volume", "x"], "volume must be a path: got 'x'"),
        (["--fast"], "No such option"),
    ],
)
def test_wrong_usage_exits_with_2(
    run_command: RunCommand, arguments: list[str], message: str
) -> None:
    result = run_command("doctor", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_config_selects_the_file(run_command: RunCommand, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    Link(databricks_tracking_uri="sqlite:///other.db").save(folder)
    report = json.loads(run_command("doctor", "--config", "other", "--json").stdout)
    checks = {check["check"]: check for check in report["checks"]}
    assert f"({folder / 'config.json'})" in checks["settings"]["message"]
    result = run_command("doctor", "--config", "nowhere", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["checks"][0]["check"] == "settings"


@pytest.mark.azureml
@pytest.mark.slow
def test_black_holes_end_in_time_and_no_secret_is_written(
    dual_link: AzureMl, databricks: Databricks
) -> None:
    """Runs in a separate process: importing MLflow alone would take longer than the checks."""
    dual_link.fault("black-hole")
    databricks.fault("black-hole")
    code = (
        "import sys; from dbx_aml.cli.main import main;"
        "main(['-v', 'doctor', '--json'], standalone_mode=False);"
        "print(sorted({'mlflow', 'pandas', 'pyspark'} & set(sys.modules)), file=sys.stderr)"
    )
    started = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    # Without a limit this would not end.
    assert time.monotonic() - started < 60
    checks = json.loads(process.stdout)["checks"]
    assert {"token", "tracking host", "Databricks user", "Databricks host"} <= {
        check["check"] for check in checks if check["status"] == "failed"
    }
    assert process.stderr.splitlines()[-1] == "[]", process.stderr
    for secret in (os.environ["AZURE_CLIENT_SECRET"], TOKEN, "eyJ"):
        assert secret not in process.stdout + process.stderr
