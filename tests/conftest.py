"""Fixtures that every test module shares, and the reset of global state after each test."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.azureml.fixture import azureml, azureml_client, azureml_process
from tests.support.databricks.fixture import databricks, databricks_server
from tests.support.mlflow_database import empty_mlflow_database

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["azureml", "azureml_client", "azureml_process", "databricks", "databricks_server"]

# Python shows a collected timestamp in the zone of its process.
os.environ["TZ"] = "UTC"
time.tzset()

_MODULES_WITH_STATE = (
    "dbx_aml.link.connected_link",
    "dbx_aml.tracking.run_context",
    "dbx_aml.tracking.connect",
    "dbx_aml.tracking.azureml.service_context",
    "dbx_aml.azure.credentials",
)
_OFF_UNLESS_ASKED = {"live": "needs real workspaces", "nightly": "takes minutes"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--connect", action="store_true", help="the spark fixture is a Spark Connect session"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The longest modules first, by timeout and number of tests: the other workers have no test left
    # while the last module runs.
    longest: dict[Path, tuple[float, int]] = {}
    for item in items:
        limit, count = longest.get(item.path, (0, 0))
        marker = item.get_closest_marker("timeout")
        longest[item.path] = (max(limit, marker.args[0] if marker else 0), count + 1)
    items.sort(key=lambda item: longest[item.path], reverse=True)
    for marker, reason in _OFF_UNLESS_ASKED.items():
        if marker not in str(config.option.markexpr):
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=f"{reason}; ask with -m {marker}"))


@pytest.fixture(scope="session", autouse=True)
def local_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the shared Spark session; no test writes to the checkout's own."""
    folder = tmp_path_factory.mktemp("local")
    os.environ["DBX_AML_LOCAL_ROOT"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def spark(request: pytest.FixtureRequest, local_folder: Path) -> Iterator["SparkSession"]:
    """A local Spark session with Delta; one for all tests, so each names its own tables.

    Example:
        def test_a_table_has_rows(spark):
            assert spark.range(3).count() == 3
    """
    from dbx_aml.local.spark import local_spark

    session = local_spark(
        local_folder,
        master="local[2]",
        connect=request.config.getoption("--connect"),
        conf={
            "spark.sql.shuffle.partitions": "1",
            "spark.driver.memory": "2g",
            # Tests are short: without the second compiler they take half the time.
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
        },
    )
    yield session
    session.stop()


@pytest.fixture
def mlflow_store(tmp_path: Path) -> str:
    """The URI of an empty SQLite store of this test, set as tracking and as registry URI.

    The active experiment is "tests", its artifacts are under `tmp_path` too.

    Example:
        def test_a_run_is_kept(mlflow_store):
            with mlflow.start_run() as run: ...
            assert mlflow.get_run(run.info.run_id)
    """
    import mlflow

    shutil.copy(empty_mlflow_database(), tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.create_experiment("tests", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("tests")
    return uri


@pytest.fixture(autouse=True)
def _restore_global_state() -> Iterator[None]:
    """Restore the environment, the current folder, and the state of MLflow and of this package."""
    environment, folder = dict(os.environ), Path.cwd()
    yield
    os.chdir(folder)
    if "mlflow" in sys.modules:
        _reset_mlflow()
    for name in _MODULES_WITH_STATE:
        if name in sys.modules:
            sys.modules[name].reset_for_tests()
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def _reset_mlflow() -> None:
    import mlflow
    from mlflow.tracking import fluent
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    while mlflow.active_run():
        mlflow.end_run()
    tracking._tracking_uri = None
    registry._registry_uri = None
    fluent._active_experiment_id = None
