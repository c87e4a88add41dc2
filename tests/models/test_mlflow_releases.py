"""MLflow 2.19 to 3 differ in some calls; `make runtimes` runs them with each release."""

from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repository_registry

from dbx_aml._common.errors import ModelUriError
from dbx_aml.models.mlflow_releases import (
    artifact_repository,
    get_logged_model,
    spark_udf_requirements,
    validate_alias,
)


def test_a_client_of_mlflow_2_says_in_one_line_what_stands_for_a_logged_model() -> None:
    with pytest.raises(ModelUriError) as caught:
        get_logged_model(object(), "m-5f0c12ab")  # type: ignore[arg-type]
    message = str(caught.value)
    assert "which has no logged models: got 'models:/m-5f0c12ab'" in message
    assert message.endswith("pass for example 'runs:/<run id>/model'")


def test_files_of_an_mlflow_before_3_2_are_asked_from_the_server_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There the function has no parameter for a server, and asks MLflow's process-wide one."""
    locations = []

    def get_of_mlflow_2(artifact_uri: str) -> Any:
        locations.append(artifact_uri)

    monkeypatch.setattr(artifact_repository_registry, "get_artifact_repository", get_of_mlflow_2)

    artifact_repository("mlflow-artifacts:/1/5f0c/artifacts", "http://127.0.0.1:9")
    artifact_repository("dbfs:/databricks/mlflow-tracking/1/5f0c/artifacts", "databricks://team")

    assert locations == [
        "http://127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/1/5f0c/artifacts",
        "dbfs://team@databricks/databricks/mlflow-tracking/1/5f0c/artifacts",
    ]


@pytest.mark.parametrize("alias", ["latest", "v1", "a b", ""])
def test_an_alias_that_mlflow_keeps_for_itself_is_refused(alias: str) -> None:
    validate_alias("champion")
    with pytest.raises(MlflowException):
        validate_alias(alias)


@pytest.mark.parametrize(
    ("mlflow_version", "requirements"),
    [("2.19.0", ["flask>=2.2"]), ("2.20.4", ["flask>=2.2"]), ("2.21.3", []), ("3.12.0", [])],
)
def test_spark_udf_of_an_mlflow_before_2_21_needs_flask(
    mlflow_version: str, requirements: list[str]
) -> None:
    assert spark_udf_requirements(mlflow_version) == requirements
