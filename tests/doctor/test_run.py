"""All checks together: all ok on the stand-ins, one failure for one cause, an end in time."""

import time
from pathlib import Path
from threading import Event

import pytest

import dbx_aml
from dbx_aml import AmlWorkspace, Link
from dbx_aml._common.errors import ArgumentError, ModelUriError
from dbx_aml.doctor import run as doctor_run
from dbx_aml.doctor.check_result import CheckResult, ok
from dbx_aml.doctor.checks import CheckContext
from dbx_aml.doctor.report import DoctorReport
from tests.support.azureml import AzureMl
from tests.support.databricks import TOKEN, USER, Databricks


def by_check(report: DoctorReport) -> dict[str, CheckResult]:
    return {result.check: result for result in report.results}


def test_an_unconfigured_machine_has_one_warning_and_skips_the_services() -> None:
    report = dbx_aml.run_doctor()
    assert report.is_ok
    results = by_check(report)
    assert results["settings"].status == "warning"
    assert results["settings"].fix.startswith("dbx-aml link set")
    for name in ("token", "sign-in host", "Databricks credential", "clock"):
        assert results[name].status == "skipped"


def test_a_file_that_cannot_be_read_fails_and_the_other_checks_still_run() -> None:
    Path("config.json").write_text("{")
    results = by_check(dbx_aml.run_doctor())
    assert results["settings"].status == "failed"
    assert "config.json must be a readable JSON object" in results["settings"].message
    assert results["settings"].fix
    assert "'settings'" in results["token"].message
    assert results["packages"].status == "ok"


def test_wrong_arguments_raise_before_any_check() -> None:
    with pytest.raises(ModelUriError, match="model URI must name a version or an alias"):
        dbx_aml.run_doctor(model_uri="models:/delay")
    with pytest.raises(ArgumentError, match="volume must be a path: got '/dbfs/x'"):
        dbx_aml.run_doctor(volume="/dbfs/x")


@pytest.mark.azureml
def test_all_checks_are_ok_on_both_stand_ins_and_nothing_is_created(
    databricks: Databricks, aml: AzureMl
) -> None:
    workspace = AmlWorkspace.from_tracking_uri(aml.tracking_uri)
    Link(mode="dual", aml_workspace=workspace, experiment="/Shared/iris").save(".")
    databricks.grants.models["main.flights.delay"] = "admin@contoso.com"
    databricks.grants.grant("function", "main.flights.delay", "account users", "EXECUTE")
    databricks.volumes.add("main.flights.models")
    databricks.grants.grant("volume", "main.flights.models", USER, "READ_VOLUME", "WRITE_VOLUME")
    model = Path("model")
    model.mkdir()
    (model / "requirements.txt").write_text("mlflow\n")
    report = dbx_aml.run_doctor(model_uri=str(model), volume="/Volumes/main/flights/models")
    results = by_check(report)
    assert {name for name, result in results.items() if result.status != "ok"} == {
        "init script",
        "model in Unity Catalog",
        "cloud metadata",
        "MLflow server",
    }, report
    assert report.is_ok
    assert results["actions"].message == (
        "may create runs, write artifacts, register models, deploy endpoints, submit jobs, clean up"
    )
    assert ".blob.core.windows.net through proxy" in results["artifact host"].message
    assert results["experiment folder"].message == f"{USER} may write to folder /Shared"
    assert results["clock"].message.startswith("within 30 s of ")
    assert databricks.writes() == []
    # A value that several checks need is requested once.
    assert len(databricks.requests(path="scim")) == 1
    requests = aml.requests()
    assert len([entry for entry in requests if entry.path.endswith("/token")]) == 1
    assert len([entry for entry in requests if entry.path.endswith("/workspaces/mlw-team")]) == 1
    posts = {entry.path.rpartition("/")[2] for entry in requests if entry.method == "POST"}
    assert posts == {"token", "search"}


@pytest.mark.azureml
def test_the_checks_of_a_link_are_a_part_of_all_checks(
    databricks: Databricks, aml: AzureMl
) -> None:
    workspace = AmlWorkspace.from_tracking_uri(aml.tracking_uri)
    report = doctor_run.check_link(Link(mode="dual", aml_workspace=workspace))
    assert report.is_ok
    assert {result.check for result in report.results} == set(doctor_run.LINK_CHECKS)
    assert databricks.writes() == []


@pytest.mark.azureml
def test_a_wrong_secret_is_one_failure_and_checks_that_need_a_token_are_skipped(
    aml: AzureMl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not-the-secret")
    report = dbx_aml.run_doctor()
    assert [result.check for result in report.failed] == ["token"]
    assert "AADSTS7000215: the client secret is wrong" in report.failed[0].message
    results = by_check(report)
    for name in ("workspace", "actions", "artifact host"):
        assert results[name].status == "skipped"
        assert "'token'" in results[name].message
    assert results["tracking host"].status == "ok"
    assert "not-the-secret" not in f"{report}{report.to_dict()}"


@pytest.mark.azureml
@pytest.mark.slow
def test_a_check_that_raises_or_hangs_does_not_delay_the_others(
    databricks: Databricks, aml: AzureMl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_error(context: CheckContext) -> CheckResult:
        raise RuntimeError(f"message with {TOKEN}\nand a second line")

    never = Event()
    monkeypatch.setenv("DBX_AML_REGISTRY", "databricks-uc")
    monkeypatch.setattr(doctor_run, "TIMEOUT_S", 4.0)
    aml.fault("black-hole")
    databricks.fault("black-hole")
    monkeypatch.setitem(doctor_run.CHECKS, "raising", raise_error)
    monkeypatch.setitem(doctor_run.CHECKS, "hanging", lambda context: never.wait() and ok(""))
    started = time.monotonic()
    report = dbx_aml.run_doctor()
    never.set()
    # Without a limit this would not end.
    assert time.monotonic() - started < 30
    results = by_check(report)
    assert "RuntimeError: message with *** and a second line" in results["raising"].message
    assert results["hanging"].message == "no answer in 4 s"
    assert {result.check for result in report.failed} == {
        "raising", "hanging", "token", "sign-in host", "management host", "tracking host",
        "Databricks user", "Databricks host",
    }  # fmt: skip
    assert all(result.fix for result in report.failed)
    assert all(result.seconds <= 4 for result in report.results)
    assert results["packages"].status == "ok"
    assert "'token'" in results["workspace"].message
