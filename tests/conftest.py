"""The stand-ins of both services as fixtures, and the reset of global state after each test.

The fixtures for Spark and MLflow come from the plugin `dbx_aml`.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.azureml.fixture import azureml, azureml_client, azureml_process
from tests.support.databricks.fixture import databricks, databricks_server

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
_OFF_UNLESS_ASKED = {
    "live": "needs real workspaces",
    "nightly": "takes minutes",
    "runtime": "installs a runtime",
}


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin("dbx_aml"):
        raise pytest.UsageError("the plugin dbx_aml must be installed: got none; run 'make setup'")


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
def _local_root(dbx_aml_local_root: Path) -> None:
    """No test writes to the local root of the checkout."""


@pytest.fixture
def environments_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the cache of resolved and built environments."""
    from dbx_aml.local import built_environment, pinned_environment

    folder = tmp_path / "cache"
    for module in (built_environment, pinned_environment):
        monkeypatch.setattr(module, "environments_folder", lambda: folder)
    return folder


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
