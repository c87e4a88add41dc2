"""The fixture: one stand-in for all tests of a module, with nothing wrong at the start of each."""

from collections.abc import Iterator

import pytest

from tests.support.azureml.handle import AzureMl, azureml_service


@pytest.fixture(scope="module")
def azureml_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMl]:
    """The stand-in's process, which takes some seconds to start."""
    with azureml_service(tmp_path_factory.mktemp("azureml")) as service:
        yield service


@pytest.fixture
def azureml(azureml_process: AzureMl) -> Iterator[AzureMl]:
    """A local stand-in of Azure ML, without faults and with an empty journal.

    Example:
        def test_a_run_is_kept(azureml):
            done = azureml.run("import mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]); ...")
            assert azureml.requests(path="runs/create")
    """
    azureml_process.reset()
    yield azureml_process
    # A client in a black hole is let go.
    azureml_process.reset()
