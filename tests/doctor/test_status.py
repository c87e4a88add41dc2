"""The status of a session: link, versions, and the init script, red if it failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dbx_aml
from dbx_aml._common.errors import LinkError
from dbx_aml.doctor.status import Status


@pytest.fixture(autouse=True)
def marker_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dbx_aml.doctor.status.MARKER_PATH", tmp_path / "marker.json")


def read_status(folder: Path, mlflow_store: str, marker: dict[str, object] | None = None) -> Status:
    """Connect with a config.json in a folder and return the status."""
    if marker is not None:
        (folder / "marker.json").write_text(json.dumps(marker))
    config = folder / "config.json"
    values = {"mode": "aml", "registry": "aml", "aml_tracking_uri": mlflow_store}
    config.write_text(json.dumps({"dbx_aml": values}))
    with dbx_aml.connect(dbx_aml.Link.load(config=config)):
        return dbx_aml.status()


def test_link_and_its_file_versions_and_runtime_are_shown(
    tmp_path, mlflow_store, monkeypatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")

    status = read_status(tmp_path, mlflow_store)

    assert status.values["mode"] == "aml"
    assert status.values["tracking URI"] == mlflow_store
    assert status.values["origins"] == str(tmp_path / "config.json")
    assert status.values["runtime"] == "17.3"
    assert status.values["versions"].startswith(f"dbx-aml {dbx_aml.__version__}, mlflow ")
    assert "init script" not in status.values
    assert status.paths == {"config": tmp_path / "config.json"}
    assert str(status) == f"mode aml, tracking URI {mlflow_store}, registry URI {mlflow_store}"
    assert mlflow_store in status._repr_html_()


def test_a_session_without_a_connection_is_an_error() -> None:
    with pytest.raises(LinkError, match="connect"):
        dbx_aml.status()


def test_a_laptop_has_a_folder_for_local_tables(tmp_path, mlflow_store, dbx_aml_local_root) -> None:
    status = read_status(tmp_path, mlflow_store)

    assert status.paths["local"] == dbx_aml_local_root
    assert status.values["runtime"] == "this machine, not Databricks"


def test_an_init_script_that_succeeded_is_not_red(tmp_path, mlflow_store) -> None:
    marker = {"status": "ok", "time": "2026-11-24T22:05:09+00:00"}

    status = read_status(tmp_path, mlflow_store, marker)

    assert status.values["init script"] == "ok 2026-11-24T22:05:09+00:00"
    assert status.paths["init_script"] == tmp_path / "marker.json"
    assert "color" not in status._repr_html_()


def test_an_init_script_that_failed_is_red_with_its_reason(tmp_path, mlflow_store) -> None:
    marker = {"status": "failed", "time": "T", "reason": "no <index>; retry"}

    status = read_status(tmp_path, mlflow_store, marker)

    assert str(status).splitlines()[1:] == ["FAILED: init script failed T: no <index>; retry"]
    html = status._repr_html_()
    assert html.count("color: #d1242f") == 2, "name and value"
    assert "failed T: no &lt;index&gt;; retry" in html.partition("color: #d1242f")[2]
