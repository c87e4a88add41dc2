"""Checks of Databricks: credential, user, experiment folder."""

import re
from pathlib import Path

import pytest

import dbx_aml
from dbx_aml import Link
from dbx_aml.doctor import run as doctor_run
from tests.doctor.conftest import RunCheck
from tests.support.databricks import TOKEN, USER, Databricks


def test_workspace_and_user_are_reported(run_check: RunCheck, databricks_only: Databricks) -> None:
    assert run_check("Databricks credential").message == (
        f"{databricks_only.host}: DATABRICKS_TOKEN is set"
    )
    assert run_check("Databricks user").message == f"{USER}, in users"
    assert run_check("Databricks host").status == "ok"


def test_a_wrong_token_is_one_failure(
    databricks_only: Databricks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-wrong")
    report = dbx_aml.run_doctor()
    assert [result.check for result in report.failed] == ["Databricks user"]
    assert "got 401 Credential was not sent" in report.failed[0].message
    results = {result.check: result for result in report.results}
    assert results["experiment folder"].status == "skipped"
    assert "'Databricks user'" in results["experiment folder"].message


def test_a_profile_of_the_sdk_is_used(
    run_check: RunCheck,
    databricks_only: Databricks,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "databrickscfg"
    file.write_text(f"[team]\nhost = {databricks_only.host}\ntoken = {TOKEN}\n")
    monkeypatch.delenv("DATABRICKS_HOST")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))
    link = Link(databricks_tracking_uri="databricks://team")
    assert run_check("Databricks credential", link).message == f"{databricks_only.host}: pat"
    assert run_check("Databricks user", link).status == "ok"
    result = run_check("Databricks credential", Link(databricks_tracking_uri="databricks://other"))
    assert result.status == "failed"
    assert "run 'databricks auth login'" in result.fix
    assert TOKEN not in result.message
    monkeypatch.setattr(doctor_run, "TIMEOUT_S", 1.5)
    databricks_only.fault("black-hole")
    result = run_check("Databricks credential", link)
    assert re.search(r"got no answer from its host in \d\.\d s$", result.message)
    assert "HTTPS_PROXY" in result.fix


def test_the_caller_may_write_to_the_experiment_or_its_folder(
    run_check: RunCheck, databricks_only: Databricks
) -> None:
    assert run_check("experiment folder").message == f"{USER} may write to folder /Users/{USER}"
    iris = Link(experiment="/Shared/iris")
    assert run_check("experiment folder", iris).status == "ok"
    result = run_check("experiment folder", Link(experiment="/Shared/no/iris"))
    assert (result.status, result.fix) == ("failed", "databricks workspace mkdirs /Shared/no")
    shared = str(databricks_only.files.items["/Shared"].object_id)
    databricks_only.permissions.set_managers("directories", shared, "ml-team")
    result = run_check("experiment folder", iris)
    assert (result.status, result.message) == ("failed", f"{USER} may not write to folder /Shared")
    assert "CAN EDIT" in result.fix and "admins, ml-team" in result.fix
    experiment = {"experiment_id": "77", "name": "/Shared/iris", "lifecycle_stage": "active"}
    databricks_only.experiments.experiments["77"] = experiment
    databricks_only.permissions.set_owner("experiments", "77", USER)
    result = run_check("experiment folder", iris)
    assert result.message == f"{USER} may write to experiment /Shared/iris"
    databricks_only.deny("GET .*/permissions/experiments")
    result = run_check("experiment folder", iris)
    assert (result.status, "may not see who may write" in result.message) == ("warning", True)
