"""`dbx-aml new`: the example tests are written once, and pass where only the wheel is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dbx_aml._common.errors import NotebookError
from dbx_aml.cli.main import main
from dbx_aml.local.notebook.run import run_notebook
from dbx_aml.testing.starter import EXAMPLE_TESTS
from tests.support.child_process import clean_environment

ROOT = Path(__file__).parents[2]
FILES = ["flights.py", "notebooks/_names.py", "notebooks/report.py"]
TESTS = ["run_tests.py", "test_flights.py", "test_report.py", "test_scoring.py"]


def test_the_example_tests_are_written_and_never_replace_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "tests"

    result = CliRunner().invoke(main, ["new", str(folder)])

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(folder / name) for name in FILES + TESTS]
    assert result.stderr == f"run: pytest {folder}\n"
    (folder / "flights.py").write_text("mine")
    for name in FILES[1:] + TESTS:
        (folder / name).unlink()
    result = CliRunner().invoke(main, ["new", str(folder)])
    assert result.exit_code == 2
    assert result.stderr == (
        f"dbx-aml: example tests must not replace a file: got {folder / 'flights.py'}; "
        "name another folder\n"
    )
    assert [path.name for path in folder.glob("*.py")] == ["flights.py"]


@pytest.mark.slow
@pytest.mark.spark
def test_the_notebook_of_a_test_job_runs_the_tests_on_the_session_of_the_cluster(
    spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    notebook = EXAMPLE_TESTS / "run_tests.py"

    result = run_notebook(notebook, {"tests": "test_flights.py"}, spark=spark)
    assert result.exit_value == "passed"
    with pytest.raises(NotebookError, match="pytest ended with exit code 4"):
        run_notebook(notebook, {"tests": "test_missing.py"}, spark=spark)
    assert spark.range(3).count() == 3


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(600)
def test_the_example_tests_pass_where_only_the_wheel_is_installed(tmp_path: Path) -> None:
    bin_folder = install_wheel(tmp_path)
    project = tmp_path / "project"
    project.mkdir()

    def run(*command: str) -> str:
        done = subprocess.run(
            [str(bin_folder / command[0]), *command[1:]],
            cwd=project,
            env=clean_environment() | {"PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout

    run("dbx-aml", "new", "tests")
    assert " 6 passed" in run("pytest")
    assert " 6 passed" in run("pytest", "-n", "2")
    # Tables, logs and stores belong to the run and not to the project.
    assert {path.name for path in project.iterdir()} == {"tests", ".pytest_cache"}


def install_wheel(folder: Path) -> Path:
    """Build the wheel, install it with [test] and xdist in a new venv; return its `bin`."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "dbx_aml", source / "dbx_aml", ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    uv = [str(Path(sys.executable).with_name("uv"))]
    build = ["build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable]
    venv = folder / "venv"
    install = ["pip", "install", "--quiet", "--python", str(venv / "bin" / "python")]
    for command in (
        [*build, "--out-dir", str(folder / "dist"), str(source)],
        ["venv", "--quiet", "--python", sys.executable, str(venv)],
    ):
        subprocess.run([*uv, *command], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    subprocess.run([*uv, *install, f"{wheel}[test]", "pytest-xdist"], check=True)
    return venv / "bin"
