"""What is in force: the link, versions, and the init script's word, red where it failed."""

from __future__ import annotations

import json
from pathlib import Path

import dbx_aml
from dbx_aml import InForce


def in_force(tmp_path: Path, marker: dict[str, object] | None, mlflow_store: str) -> InForce:
    file = tmp_path / "status.json"
    if marker is not None:
        file.write_text(json.dumps(marker))
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {"dbx_aml": {"mode": "aml", "registry": "aml", "aml_tracking_uri": mlflow_store}}
        )
    )
    with dbx_aml.connect(dbx_aml.Link.load(config=config)) as connection:
        return InForce.of(connection, file)


def test_link_and_its_file_versions_and_runtime_are_shown(
    tmp_path, mlflow_store, monkeypatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")

    shown = in_force(tmp_path, None, mlflow_store)

    assert shown.rows["mode"] == "aml"
    assert shown.rows["tracking URI"] == mlflow_store
    assert shown.rows["said by"] == str(tmp_path / "config.json")
    assert shown.rows["runtime"] == "17.3"
    assert shown.rows["versions"].startswith(f"dbx-aml {dbx_aml.__version__}, mlflow ")
    assert "init script" not in shown.rows
    assert shown.paths == {"config": tmp_path / "config.json"}
    assert str(shown) == (f"mode aml, tracking URI {mlflow_store}, registry URI {mlflow_store}")
    assert f'registry URI</th><td style="text-align: left">{mlflow_store}</td>' in (
        shown._repr_html_()
    )


def test_a_laptop_has_its_own_folder(tmp_path, mlflow_store, local_folder) -> None:
    shown = in_force(tmp_path, None, mlflow_store)

    assert shown.paths["local"] == local_folder
    assert shown.rows["runtime"] == "this machine, not Databricks"


def test_an_init_script_that_worked_is_not_red(tmp_path, mlflow_store) -> None:
    shown = in_force(tmp_path, {"state": "ok", "time": "2026-11-24T22:05:09+00:00"}, mlflow_store)

    assert shown.rows["init script"] == "ok 2026-11-24T22:05:09+00:00"
    assert shown.paths["init_script"] == tmp_path / "status.json"
    assert "color" not in shown._repr_html_()


def test_an_init_script_that_failed_is_red_with_its_reason(tmp_path, mlflow_store) -> None:
    shown = in_force(
        tmp_path, {"state": "failed", "time": "T", "reason": "no <index>; retry"}, mlflow_store
    )

    assert str(shown).splitlines()[1:] == ["WRONG: init script failed T: no <index>; retry"]
    html = shown._repr_html_()
    assert html.count("color: #d1242f") == 1
    assert "failed T: no &lt;index&gt;; retry" in html.partition("color: #d1242f")[2]


def test_an_init_script_that_did_not_end_is_red(tmp_path, mlflow_store) -> None:
    shown = in_force(tmp_path, {"state": "started"}, mlflow_store)

    assert shown.wrong == {"init script"}
    assert shown.rows["init script"] == "started: it did not end"
