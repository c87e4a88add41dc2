"""The fixture: a new stand-in for each test, to which this process's own clients lead."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.child_process import clean_environment
from tests.support.databricks.handle import Databricks, databricks_service


@pytest.fixture
def databricks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databricks]:
    """A local stand-in of a Databricks workspace; the environment's variables lead to it.

    Example:
        def test_a_cluster_is_found(databricks):
            cluster = databricks.clusters.add("team")
            assert WorkspaceClient().clusters.get(cluster.cluster_id).cluster_name == "team"
    """
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    with databricks_service(tmp_path / "drivers") as service:
        for name, text in service.environment().items():
            monkeypatch.setenv(name, text)
        yield service
