"""What the README shows runs as it stands there, one example after the other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)


def run(*command: str, folder: Path) -> str:
    """Run a command as a reader would, with the tables in the folder itself."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # The folder's own MLflow store stands for Databricks.
    store = f"sqlite:///{folder}/.dbx_aml/mlflow.db"
    (folder / ".dbx_aml").mkdir(exist_ok=True)
    link = {"DBX_AML_REGISTRY": "databricks", "DBX_AML_DATABRICKS_TRACKING_URI": store}
    environment = {**os.environ, **link, "PATH": path}
    environment.pop("DBX_AML_LOCAL_ROOT", None)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_of_the_readme_run_in_their_order(tmp_path):
    said = run(sys.executable, "-c", "\n".join(examples("python")), folder=tmp_path)
    assert "3 rows scored by version 1" in said
    assert "arrival_delay 1 ['champion']" in said
    command = next(text for text in examples("sh") if "dbx-aml score" in text)
    said = run("bash", "-c", command, folder=tmp_path)
    assert "Already scored" in said, "the same batch, a second time"
