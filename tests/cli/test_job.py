"""`dbx-aml job`: a script is submitted, followed, listed, shown and canceled, as typed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dbx_aml.cli.main import main
from dbx_aml.serving import jobs as jobs_module
from tests.serving.conftest import config_folder, link, resolved_job_environment
from tests.support.azureml.service_process import AzureMl

__all__ = ["config_folder", "link", "resolved_job_environment"]

pytestmark = pytest.mark.azureml


@pytest.fixture
def script(
    resolved_job_environment: None,
    azureml_client: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A script with an option, in a folder with nothing else."""
    monkeypatch.setattr(jobs_module, "_POLL_S", 0.05)
    file = tmp_path / "project" / "train.py"
    file.parent.mkdir()
    file.write_text("import sys  # --alpha\nprint(sys.argv[1:])\nsys.exit(sys.argv[2] == 'bad')\n")
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["job", *map(str, arguments)])


@pytest.mark.slow
def test_a_script_is_submitted_and_its_log_follows_to_the_end(
    script: Path, config_folder: Path
) -> None:
    config = ("--config", config_folder)
    done = run("submit", script, "--compute", "cpu-cluster", "-p", "alpha=a b", *config)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    name = lines[0].removeprefix("job ")
    assert lines[1].startswith(f"https://ml.azure.com/runs/{name}?wsid=/subscriptions/")
    assert "['--alpha', 'a b']" in lines
    assert lines[-1] == f"job {name} is Completed"
    assert "['--alpha', 'a b']" in run("logs", name, *config).output
    folder = script.parent / "out"
    assert run("download", name, "--output", folder, *config).output == f"1 file in {folder}\n"

    bad = ("submit", script, "--compute", "cpu-cluster", "--name", "second", "-p", "alpha=bad")
    failed = run(*bad, "--json", *config)
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["state"] == "Failed"
    assert "['--alpha', 'bad']" in failed.stderr
    assert "dbx-aml: job second must complete: it is Failed; UserError: " in failed.stderr
    shown = run("show", "second", *config).output
    assert "inputs.alpha  bad\n" in shown
    assert "exited with status code 1" in " ".join(shown.split())
    table = run("list", *config).output
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [
        ["second", "Failed"],
        [name, "Completed"],
    ]


def test_a_job_of_a_file_is_submitted_without_waiting_and_canceled(
    script: Path, config_folder: Path, azureml: AzureMl
) -> None:
    azureml.job_fault("endless-preparing")
    config = ("--config", config_folder)
    file = script.parent / "job.yml"
    file.write_text(
        "command: python train.py --alpha ${{inputs.alpha}} && true\n"
        "compute: azureml:cpu-cluster\nname: first\ninputs: {alpha: 1}\n"
    )
    done = run("submit", "--file", file, "-p", "alpha=2", "--no-wait", "--json", *config)
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert (content["name"], content["state"]) == ("first", "NotStarted")
    assert content["command"] == (
        "pip install --no-index --no-deps ./.dbx_aml/*.whl "
        "&& (python train.py --alpha ${{inputs.alpha}} && true)"
    )
    assert run("logs", "first", *config).output.startswith("no log yet: the job is ")
    assert run("cancel", "first", *config).output == "job first is Canceled\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "--compute", "cpu-cluster"], "script must be given: got none"),
        (["submit", "train.py"], "compute must be given: got none; pass --compute"),
        (["submit", "train.py", "--compute", "c", "-p", "alpha"], "parameter must be NAME=VALUE"),
        (["submit", "gone.py", "--compute", "c"], "script must exist: got 'gone.py'"),
        (["submit", "a.py", "--file", __file__], "script must be left out with --file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_job_is_one_line(config_folder: Path, azureml_client: Any) -> None:
    result = run("show", "gone", "--config", config_folder)
    assert result.exit_code == 1
    assert "job must exist in workspace 'mlw-team': got 'gone'" in result.stderr
    assert run("list", "--config", config_folder).output.startswith("no jobs; submit one with")


@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_not_the_job(
    script: Path, config_folder: Path, azureml: AzureMl
) -> None:
    azureml.job_fault("endless-preparing")
    command = ("submit", str(script), "--compute", "cpu-cluster", "--name", "first")
    process = subprocess.Popen(
        [sys.executable, "-m", "dbx_aml.cli", "job", *command, "--config", str(config_folder)],
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    azureml.wait_for(path="/runs/first/details")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.startswith("job first\n")
    assert "job first goes on; follow it with 'dbx-aml job logs first --follow', or" in errors
    assert "Traceback" not in errors
    shown = run("show", "first", "--json", "--config", config_folder)
    assert json.loads(shown.stdout)["state"] == "Preparing"
