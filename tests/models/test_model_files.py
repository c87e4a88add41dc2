"""A model is found on the servers of the client that is passed, never on MLflow's current ones."""

from types import SimpleNamespace

import mlflow
import pytest
from mlflow.entities import FileInfo

from dbx_aml._common.errors import UnsafePathError
from dbx_aml.models.model_files import locate_model
from dbx_aml.models.model_uri import ModelUri
from tests.support.models import XY, save_model, weighted_sum


def locate(text, client):
    return locate_model(ModelUri.parse(text), client)


@pytest.fixture
def client(mlflow_store, tmp_path):
    """A client of a store with one run that logged a model; MLflow's current store is another."""
    client = mlflow.MlflowClient(mlflow_store, mlflow_store)
    run_id = client.create_run("1").info.run_id
    client.log_artifacts(run_id, save_model(tmp_path, weighted_sum, XY), "model")
    client.create_registered_model("sum")
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    client.create_model_version("sum", source, run_id)
    client.set_registered_model_alias("sum", "champion", "1")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")
    mlflow.set_registry_uri(f"sqlite:///{tmp_path}/other.db")
    client.run_id = run_id
    return client


@pytest.mark.parametrize("text", ["models:/sum@champion", "models:/sum/1"])
def test_an_alias_is_resolved_to_its_version_with_the_run_that_logged_it(client, tmp_path, text):
    location = locate(text, client)
    assert str(location.uri) == "models:/sum/1"
    assert location.run_id == client.run_id
    assert (location.download(tmp_path / "files") / "MLmodel").exists()


def test_a_model_of_a_run_is_downloaded_from_the_artifacts_of_the_run(client, tmp_path):
    location = locate(f"runs:/{client.run_id}/model", client)
    assert location.run_id == client.run_id
    assert location.source.endswith(f"{client.run_id}/artifacts/model")
    assert (location.download(tmp_path / "files") / "MLmodel").exists()


def test_of_several_logged_models_of_a_run_the_one_with_the_highest_step_is_found(mlflow_store):
    models = []
    with mlflow.start_run() as run:
        for step in (7, 3):
            models.append(mlflow.initialize_logged_model(name="net"))
            output = mlflow.entities.LoggedModelOutput(models[-1].model_id, step)
            mlflow.MlflowClient().log_outputs(run.info.run_id, [output])
    location = locate(f"runs:/{run.info.run_id}/net", mlflow.MlflowClient())
    assert location.model_id == models[0].model_id
    assert location.run_id == run.info.run_id


@pytest.mark.parametrize(
    ("registry_uri", "repository_class", "attribute"),
    [
        ("databricks-uc://east", "UnityCatalogModelsArtifactRepository", "registry_uri"),
        ("databricks://east", "DatabricksModelsArtifactRepository", "databricks_profile_uri"),
    ],
)
def test_a_version_in_databricks_is_read_with_the_profile_of_its_registry(
    registry_uri, repository_class, attribute
):
    client = SimpleNamespace(
        tracking_uri="databricks://west",
        _registry_uri=registry_uri,
        get_model_version=lambda name, version: SimpleNamespace(
            run_id="4be1", creation_timestamp=1_790_000_000_000
        ),
    )
    repository = locate("models:/main.ml.delay/3", client).repository
    assert type(repository).__name__ == repository_class
    assert getattr(repository, attribute) == registry_uri


@pytest.mark.parametrize("path", ["../x", "/etc/x", "model/../../x"])
def test_a_model_with_a_file_outside_of_its_folder_is_not_downloaded(
    client, tmp_path, monkeypatch, path
):
    repository = type(locate("models:/sum/1", client).repository)
    list_artifacts = repository.list_artifacts

    def list_with_foreign_path(self, folder=None):
        return [*list_artifacts(self, folder), FileInfo(path, False, 5)]

    monkeypatch.setattr(repository, "list_artifacts", list_with_foreign_path)
    with pytest.raises(UnsafePathError, match="path must stay inside its folder: got "):
        locate("models:/sum/1", client).repository.list_artifacts("")
