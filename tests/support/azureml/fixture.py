"""Fixtures: one stand-in for a pytest worker; each test finds it empty and without faults."""

import os
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.support.azureml.service_process import AzureMl, azureml_service
from tests.support.child_process import clean_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

_numbers = count()


@pytest.fixture(scope="session")
def azureml_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMl]:
    """The process of the stand-in, which takes some seconds to start."""
    with azureml_service(tmp_path_factory.mktemp("azureml")) as service:
        yield service


@pytest.fixture
def azureml(azureml_process: AzureMl) -> Iterator[AzureMl]:
    """A local stand-in of Azure ML without faults, runs, models and journal entries.

    Example:
        def test_a_run_is_kept(azureml):
            done = azureml.run("import mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]); ...")
            assert azureml.requests(path="runs/create")
    """
    azureml_process.reset()
    azureml_process.delete_data()
    yield azureml_process
    # Release clients that wait in a black hole.
    azureml_process.reset()


@pytest.fixture
def azureml_client(azureml: AzureMl, monkeypatch: pytest.MonkeyPatch) -> "MlflowClient":
    """A client in this process with a new store of this package; MLflow tracks to Azure ML.

    Example:
        def test_a_run_is_kept(azureml_client):
            with mlflow.start_run() as run: ...
            assert azureml_client.get_run(run.info.run_id)
    """
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    for name, text in azureml.environment().items():
        monkeypatch.setenv(name, text)
    import mlflow

    # MLflow keeps one store for each URI: a new URI gets a new store.
    uri = f"{azureml.tracking_uri}?test={next(_numbers)}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient()
