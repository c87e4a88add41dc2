"""The check of MLflow servers that replace Databricks or Azure ML."""

from pathlib import Path

import pytest

from dbx_aml import Link
from dbx_aml.doctor.run import check_link
from tests.doctor.conftest import RunCheck


def test_a_local_database_is_not_created(run_check: RunCheck, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'x.db'}"
    result = run_check("MLflow server", Link(databricks_tracking_uri=uri))
    assert (result.status, result.message) == ("ok", f"{uri} is local")
    assert not (tmp_path / "x.db").exists()


def test_a_link_to_databricks_skips_the_check(run_check: RunCheck) -> None:
    assert run_check("MLflow server").status == "skipped"


@pytest.mark.slow
def test_a_server_that_does_not_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    report = check_link(Link(databricks_tracking_uri="http://127.0.0.1:9"))
    assert [result.check for result in report.failed] == ["MLflow server"]
    assert "http://127.0.0.1:9 must answer: got " in report.failed[0].message
