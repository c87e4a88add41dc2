"""A tracking server of the mirror."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from dbx_aml._common.daemon_threads import DaemonThreadPool
from dbx_aml.tracking.mirror.server import MlflowServer


def thread_pools(repository: ArtifactRepository) -> list[Any]:
    """Return the pools of a repository and of the repositories in it."""
    pools = [repository._create_thread_pool()]
    for value in vars(repository).values():
        if isinstance(value, ArtifactRepository):
            pools += thread_pools(value)
        elif isinstance(value, ThreadPoolExecutor | DaemonThreadPool):
            pools.append(value)
    return pools


@pytest.mark.parametrize(
    ("tracking_uri", "artifact_uri"),
    [
        ("http://127.0.0.1:5000", "mlflow-artifacts:/1/2/artifacts"),
        ("http://127.0.0.1:5000", "s3://bucket/1/2/artifacts"),
        ("sqlite:///mlflow.db", "file:///mlruns/1/2/artifacts"),
    ],
)
def test_the_end_of_a_process_waits_for_no_thread_of_an_artifact_repository(
    tracking_uri: str, artifact_uri: str
) -> None:
    repository = MlflowServer(tracking_uri, "databricks").artifact_repository(artifact_uri)
    pools = thread_pools(repository)
    assert len(pools) >= 2
    assert {type(pool) for pool in pools} == {DaemonThreadPool}
