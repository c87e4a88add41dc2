"""The fixtures: one stand-in for each worker of the test run, empty at the start of each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.child_process import clean_environment
from tests.support.databricks.stand_in import Databricks, databricks_service


@pytest.fixture(scope="session")
def databricks_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databricks]:
    """The stand-in of this worker; tests use `databricks`."""
    with databricks_service(tmp_path_factory.mktemp("drivers")) as server:
        yield server


@pytest.fixture
def databricks(
    databricks_server: Databricks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Databricks:
    """An empty stand-in of a Databricks workspace; the environment variables lead to it.

    Example:
        def test_a_cluster_is_found(databricks):
            cluster = databricks.clusters.add("team")
            assert WorkspaceClient().clusters.get(cluster.cluster_id).cluster_name == "team"
    """
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    databricks_server.reset(tmp_path / "drivers")
    for name, value in databricks_server.environment().items():
        monkeypatch.setenv(name, value)
    return databricks_server
