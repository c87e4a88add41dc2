"""`in_force`: what counts in a notebook, in a few lines, without any call to a host."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dbx_aml
from dbx_aml import Link, marker
from dbx_aml.tracking.connect import connect
from tests.support.azureml.child import clean_environment


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of Azure, MLflow or Databricks is set up here."""
    ours = {name for name in os.environ if name.startswith("DBX_AML_")} - {"DBX_AML_LOCAL_ROOT"}
    for name in ours | (set(os.environ) - set(clean_environment())):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_what_is_in_force_is_told_with_who_said_so(mlflow_store: str) -> None:
    Link(databricks_tracking_uri=mlflow_store, experiment="iris").save(".")
    with connect(Link.load()):
        found = dbx_aml.in_force()
    assert found.facts == {
        "mode": f"databricks ({Path('config.json').absolute()})",
        "tracking URI": f"{mlflow_store} (dbx_aml.connect)",
        "registry URI": f"{mlflow_store} (dbx_aml.connect)",
        "experiment": "iris",
    }
    assert found.problems == set()
    assert str(found).splitlines()[-1] == "experiment    iris"
    assert "#c00" not in found._repr_html_()


def test_an_init_script_that_failed_is_red_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "status.json"
    monkeypatch.setattr(marker, "MARKER_PATH", file)
    file.write_text(marker.Marker(state="failed", reason="index <gone>; restart").to_json())
    found = dbx_aml.in_force()
    assert found.facts["init script"] == "index <gone>; restart"
    assert str(found).splitlines()[-1] == "init script   PROBLEM: index <gone>; restart"
    red = "<td style='text-align:left;color:#c00'>index &lt;gone&gt;; restart</td>"
    assert red in found._repr_html_()
    file.write_text(marker.Marker(state="ok", version="0.1.0").to_json())
    assert dbx_aml.in_force().facts["init script"] == "done, dbx-aml 0.1.0"
    assert dbx_aml.in_force().problems == set()


def test_a_link_that_cannot_be_read_is_a_problem_and_no_error() -> None:
    Path("config.json").write_text("{")
    found = dbx_aml.in_force()
    assert "must be a readable JSON object" in found.facts["mode"]
    assert found.problems == {"mode"}


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "https://ana:p4ssw0rd@mlflow.contoso.com/x")
    found = dbx_aml.in_force()
    shown = "https://***@mlflow.contoso.com/x (MLFLOW_REGISTRY_URI)"
    assert found.facts["registry URI"] == shown


def test_it_imports_no_mlflow() -> None:
    code = "import sys, dbx_aml; print(dbx_aml.in_force()); print('mlflow' in sys.modules)"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "databricks", "DBX_AML_EXPERIMENT": "/a/b"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "mode          databricks (default)",
        "tracking URI  databricks (MLFLOW_TRACKING_URI)",
        "registry URI  databricks-uc (MLflow's default)",
        "experiment    /a/b",
        "False",
    ]
