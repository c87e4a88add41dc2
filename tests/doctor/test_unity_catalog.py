"""Checks of Unity Catalog: privileges on a model and on a volume."""

from tests.doctor.conftest import RunCheck
from tests.support.databricks import USER, Databricks

MODEL = "models:/main.flights.delay/3"


def test_a_model_needs_execute(run_check: RunCheck, databricks_only: Databricks) -> None:
    result = run_check("model in Unity Catalog", model_uri=MODEL)
    assert result.status == "failed"
    assert "main.flights.delay does not exist, or " in result.message
    assert result.fix.endswith("USE CATALOG, USE SCHEMA and EXECUTE")
    databricks_only.grants.models["main.flights.delay"] = "owner@contoso.com"
    databricks_only.grants.grant("function", "main.flights.delay", "others", "EXECUTE")
    result = run_check("model in Unity Catalog", model_uri=MODEL)
    assert result.status == "failed"
    assert result.fix == "ask its owner, owner@contoso.com, for EXECUTE on it"
    databricks_only.grants.models["main.flights.delay"] = USER
    assert run_check("model in Unity Catalog", model_uri=MODEL).status == "ok"
    result = run_check("model in Unity Catalog", model_uri="models:/delay/3")
    assert result.status == "skipped"


def test_a_volume_needs_read_and_write(run_check: RunCheck, databricks_only: Databricks) -> None:
    path = "/Volumes/main/flights/models/wheels"
    assert run_check("volume", volume=path).status == "failed"
    databricks_only.volumes.add("main.flights.models")
    databricks_only.grants.grant("volume", "main.flights.models", "account users", "READ_VOLUME")
    result = run_check("volume", volume=path)
    assert result.message == f"{USER} lacks WRITE VOLUME on volume main.flights.models"
    databricks_only.grants.grant("volume", "main.flights.models", USER, "ALL_PRIVILEGES")
    result = run_check("volume", volume=path)
    assert (
        result.message == f"{USER} has READ VOLUME and WRITE VOLUME on volume main.flights.models"
    )
    result = run_check("volume", volume="/Volumes/main/flights/models#2")
    assert result.message.startswith("volume main.flights.models#2 does not exist")


def test_a_caller_who_may_not_list_all_privileges_lists_only_their_own(
    run_check: RunCheck, databricks_only: Databricks
) -> None:
    databricks_only.grants.models["main.flights.delay"] = "owner@contoso.com"
    databricks_only.grants.grant("function", "main.flights.delay", USER, "EXECUTE")
    databricks_only.fault("status", status=403, path="effective-permissions", count=1)
    assert run_check("model in Unity Catalog", model_uri=MODEL).status == "ok"
    assert len(databricks_only.requests(path="effective-permissions")) == 2
    databricks_only.deny("effective-permissions")
    result = run_check("model in Unity Catalog", model_uri=MODEL)
    assert (result.status, "User does not have permission" in result.message) == ("failed", True)
