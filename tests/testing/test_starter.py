"""`dbx-aml new`: the example tests are written once, and pass where only the wheel is installed."""

from __future__ import annotations

import json
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


class Project:
    """A folder outside of the checkout, and a Python that has only the wheel and its extra [test].

    Args:
        folder: Folder for the build, the Python and the project.
    """

    def __init__(self, folder: Path) -> None:
        uv = str(Path(sys.executable).with_name("uv"))
        venv = folder / "venv"
        self._bin = venv / "bin"
        self.folder = folder / "project"
        self.folder.mkdir()
        dist = folder / "dist"
        subprocess.run([str(ROOT / ".ci" / "build"), str(dist)], check=True)
        (wheel,) = dist.glob("*.whl")
        install = ["pip", "install", "--quiet", "--python", str(self._bin / "python")]
        for command in (
            ["venv", "--quiet", "--python", sys.executable, str(venv)],
            [*install, f"{wheel}[test]", "pytest-xdist"],
        ):
            subprocess.run([uv, *command], check=True)

    def run(self, *command: str) -> str:
        """Run a program of the Python in the project; return its output."""
        done = subprocess.run(
            [str(self._bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=clean_environment() | {"PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(600)
def test_the_example_tests_pass_where_only_the_wheel_is_installed(project: Project) -> None:
    project.run("dbx-aml", "new", "tests")
    assert " 6 passed" in project.run("pytest", "-n", "2")
    # Tables, logs and stores belong to the run and not to the project.
    assert {path.name for path in project.folder.iterdir()} == {"tests", ".pytest_cache"}


TRAIN = """
import dbx_aml, mlflow, pandas as pd
from mlflow.models import infer_signature

class Twice(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["x"] * 2

dbx_aml.connect()
rows = pd.DataFrame({"x": [1.0, 2.5]})
with mlflow.start_run() as run:
    signature = infer_signature(rows, rows["x"])
    mlflow.pyfunc.log_model(
        name="twice", python_model=Twice(), signature=signature, pip_requirements=[]
    )
dbx_aml.register_model(f"runs:/{run.info.run_id}/twice", "twice", alias="champion")
dbx_aml.local_spark().createDataFrame(rows).write.saveAsTable("numbers")
"""


# `make release-check` runs it.
@pytest.mark.nightly
@pytest.mark.spark
@pytest.mark.timeout(600)
def test_link_register_and_score_run_where_only_the_wheel_is_installed(project: Project) -> None:
    store = f"sqlite:///{project.folder}/mlflow.db"
    link = ("--mode", "databricks", "--registry", "databricks", "--databricks-tracking-uri", store)
    project.run("dbx-aml", "link", "set", *link)
    shown = json.loads(project.run("dbx-aml", "link", "show", "--json"))
    assert store in json.dumps(shown)
    project.run("python", "-c", TRAIN)
    tables = ("--input-table", "numbers", "--output-table", "scored")
    score = ("score", "--model-uri", "models:/twice@champion", *tables, "--json")
    result = json.loads(project.run("dbx-aml", *score))
    assert (result["status"], result["rows_scored"], result["model_version"]) == ("scored", 2, "1")
