"""Checks of this machine: runtime, init script, disk, Spark, and the requirements of a model."""

import re
from pathlib import Path

import pytest

from dbx_aml import Link
from dbx_aml.cluster.node import marker
from dbx_aml.cluster.runtimes import known_runtimes
from dbx_aml.doctor import machine
from dbx_aml.local import java
from tests.doctor.conftest import InstallPackages, RunCheck, SetFreeDisk

TIME = "2026-11-24T22:05:09+00:00"


def test_a_laptop_has_no_runtime_and_no_init_script(run_check: RunCheck) -> None:
    assert run_check("runtime").message.startswith("local: Python 3.")
    assert run_check("init script").status == "skipped"


def test_a_runtime_with_the_packages_of_its_release_notes_is_ok(
    run_check: RunCheck, install_packages: InstallPackages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "18.x-scala2.13")
    monkeypatch.setattr(machine, "_PYTHON", "3.12")
    packages = known_runtimes()["18"].packages
    versions = {name: packages[name] for name in machine._COMPARED_PACKAGES}
    install_packages(**{name.replace("-", "_"): version for name, version in versions.items()})
    result = run_check("runtime")
    assert result.status == "ok"
    assert "Databricks Runtime 18 LTS" in result.message
    assert run_check("Spark").message == "the runtime's: Spark 4.1.0"


def test_a_runtime_with_other_packages_is_a_warning(
    run_check: RunCheck, install_packages: InstallPackages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    monkeypatch.setattr(machine, "_PYTHON", "3.13")
    install_packages(pyarrow="21.0.0")
    result = run_check("runtime")
    assert result.status == "warning"
    assert "Python 3.13, listed 3.12" in result.message
    assert "pyarrow 21.0.0, listed 19.0.1" in result.message
    assert "restart the cluster" in result.fix


def test_an_unknown_runtime_is_a_warning_with_the_known_ones(
    run_check: RunCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "16.2")
    result = run_check("runtime")
    assert (result.status, "16.2" in result.message) == ("warning", True)
    assert "17.3 LTS" in result.fix


def test_a_node_without_a_marker_is_a_warning(
    run_check: RunCheck, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(marker, "MARKER_PATH", tmp_path / "marker.json")
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    result = run_check("init script")
    assert (result.status, "has not run" in result.message) == ("warning", True)
    assert result.fix.startswith("dbx-aml cluster attach")
    monkeypatch.setenv("DATABRICKS_ENV_VERSION", "4")
    assert run_check("init script").status == "skipped", "serverless runs no init script"


@pytest.mark.parametrize(
    ("marker_status", "reason", "check_status", "message", "fix"),
    [
        (
            "ok",
            None,
            "ok",
            f"done at {TIME}, from wheelhouse /w; it added dbx-aml 0.1.0",
            "",
        ),
        (
            "failed",
            "wheelhouse must be readable: got 503; restart the cluster",
            "failed",
            "wheelhouse must be readable: got 503",
            "restart the cluster",
        ),
    ],
)
def test_the_marker_of_the_init_script_decides_the_result(
    run_check: RunCheck,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    marker_status: str,
    reason: str | None,
    check_status: str,
    message: str,
    fix: str,
) -> None:
    file = tmp_path / "marker.json"
    monkeypatch.setattr(marker, "MARKER_PATH", file)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    node_marker = marker.NodeMarker(
        status=marker_status,
        reason=reason,
        time=TIME,
        packages_from="wheelhouse /w",
        installed={"dbx-aml": "0.1.0"},
    )
    file.write_text(node_marker.to_json())
    result = run_check("init script")
    assert result.status == check_status
    assert message in result.message
    assert fix in result.fix


@pytest.mark.parametrize(
    ("free_gib", "status", "fix"),
    [(5.0, "ok", ""), (4.9, "warning", "set TMPDIR"), (0.4, "failed", "set TMPDIR")],
)
def test_a_full_disk_fails(
    run_check: RunCheck, free_disk: SetFreeDisk, free_gib: float, status: str, fix: str
) -> None:
    free_disk(free_gib)
    result = run_check("disk")
    assert (result.status, fix in result.fix) == (status, True)
    assert f"{free_gib} GiB free" in result.message


def test_a_missing_java_is_a_warning(run_check: RunCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_check("Spark").status == "ok"
    monkeypatch.setattr(java, "_JAVA_FOLDERS", ())
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    result = run_check("Spark")
    assert (result.status, "apt-get install openjdk-17" in result.fix) == ("warning", True)


def test_the_requirements_of_a_model_are_compared_with_the_installed_packages(
    run_check: RunCheck, mlflow_store: str, tmp_path: Path
) -> None:
    import mlflow

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "requirements.txt").write_text("numpy==0.1\nmlflow\n")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "model")
    for uri in (str(folder), f"runs:/{run.info.run_id}/model"):
        result = run_check("model", Link(databricks_tracking_uri=mlflow_store), model_uri=uri)
        assert result.status == "warning"
        assert re.match(rf"{uri} .*numpy==0.1", result.message)
        assert "--environment model" in result.fix
    result = run_check("model", model_uri=f"runs:/{run.info.run_id}/other")
    assert (result.status, "must be readable" in result.message) == ("failed", True)
