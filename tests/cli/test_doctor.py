"""`dbx-aml doctor`: a table worst first, exit codes, JSON, no secret, and an end in time."""

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
from tests.support.alone import leave_alone
from tests.support.azureml import AzureMl
from tests.support.databricks import TOKEN, Databricks

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leave_alone(monkeypatch, tmp_path)


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["doctor", *arguments])

    return invoke


@pytest.fixture
def both(databricks: Databricks, azureml: AzureMl, monkeypatch: pytest.MonkeyPatch) -> AzureMl:
    """A link in mode "dual" that leads to both stand-ins."""
    for variable, value in azureml.environment().items():
        monkeypatch.setenv(variable, value)
    Link(mode="dual", aml_workspace=AmlWorkspace.from_tracking_uri(azureml.tracking_uri)).save(".")
    return azureml


@pytest.mark.azureml
def test_a_table_is_worst_first(run: Run, both: AzureMl) -> None:
    done = run()
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith("result and fix")
    assert lines[-1] == "22 ok, 5 skipped"
    both.deny("*/experiments/runs/write")
    done = run()
    assert (done.exit_code, done.stderr) == (1, "")
    row = done.stdout.splitlines()[1]
    assert row.split()[:2] == ["failed", "actions"]
    assert "→ ask for the role 'AzureML Data Scientist'" in row
    assert done.stdout.splitlines()[-1] == "1 failed, 21 ok, 5 skipped"


@pytest.mark.azureml
def test_json_has_every_check_and_the_same_exit_code(run: Run, both: AzureMl) -> None:
    done = run("--json")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report["is_good"] is True
    checks = {one["check"]: one for one in report["checks"]}
    assert {"token", "actions", "Databricks user", "clock", "settings"} <= set(checks)
    assert checks["workspace"]["said"] == "mlw-team in rg-ml is there and answers"
    assert set(checks["token"]) == {"check", "state", "seconds", "said", "fix"}
    both.deny("*/experiments/runs/write")
    done = run("--json")
    assert (done.exit_code, json.loads(done.stdout)["is_good"]) == (1, False)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model-uri", "models:/delay"], 2, "model URI must name a version or an alias"),
        (["--volume", "x"], 2, "volume must be a path: got 'x'"),
        (["--fast"], 2, "No such option"),
    ],
)
def test_wrong_usage_is_said_with_its_exit_code(
    run: Run, arguments: list[str], code: int, message: str
) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr


def test_a_named_file_is_the_one_that_is_looked_at(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    Link(databricks_tracking_uri="sqlite:///other.db").save(folder)
    checks = {
        one["check"]: one for one in json.loads(run("--config", "other", "--json").stdout)["checks"]
    }
    assert f"({folder / 'config.json'})" in checks["settings"]["said"]
    done = run("--config", "nowhere", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["checks"][0]["check"] == "settings"


@pytest.mark.azureml
def test_black_holes_end_in_time_and_no_secret_is_written(
    both: AzureMl, databricks: Databricks
) -> None:
    """As a command of its own: importing MLflow alone would take longer than the checks may."""
    both.fault("black-hole")
    databricks.fault("black-hole")
    code = (
        "import sys; from dbx_aml.cli.main import main;"
        "main(['-v', 'doctor', '--json'], standalone_mode=False);"
        "print(sorted({'mlflow', 'pandas', 'pyspark'} & set(sys.modules)), file=sys.stderr)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    # Six, and as many again for a slow machine.
    assert time.monotonic() - started < 12
    failed = {one["check"] for one in json.loads(done.stdout)["checks"] if one["state"] == "failed"}
    assert failed == {
        "token", "sign-in host", "management host", "tracking host", "Databricks user",
        "Databricks host",
    }  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
    for secret in (os.environ["AZURE_CLIENT_SECRET"], TOKEN, "eyJ"):
        assert secret not in done.stdout + done.stderr
