"""Fixtures: one stand-in for a pytest worker; each test finds it empty and without faults."""

from collections.abc import Iterator

import pytest

from tests.support.azureml.service_process import AzureMl, azureml_service


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
