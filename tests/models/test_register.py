"""Registered models: their versions, their lineage, and no remains of a failed registration."""

import json
import shutil

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from dbx_aml import register_model
from dbx_aml._common.errors import ArgumentError, ModelUriError, RegistryError
from dbx_aml.models.register import _tag_logged_model
from tests.support.models import XY, save_model, weighted_sum


@pytest.fixture
def logged(mlflow_store, tmp_path):
    """The run and the path of a model that was logged as an artifact of a run."""
    model = save_model(tmp_path, weighted_sum, XY)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(model, "model")
    return run.info.run_id, model


def test_a_first_model_is_version_1_and_says_where_it_came_from(logged):
    run_id, _ = logged
    version = register_model(f"runs:/{run_id}/model", "delay", tags={"team": "größe"})
    assert (version.name, str(version.version), version.status) == ("delay", "1", "READY")
    assert version.run_id == run_id
    tags = version.tags
    assert tags["dbx_aml.source_run_id"] == run_id
    assert tags["dbx_aml.source_model_uri"] == f"runs:/{run_id}/model"
    assert tags["team"] == "größe"
    assert json.loads(json.loads(tags["dbx_aml.signature"])["inputs"])[0]["name"] == "x"
    assert len(tags["dbx_aml.artifacts_sha256"]) == 64


def test_a_second_model_is_the_next_version_and_takes_the_alias(logged):
    uri = f"runs:/{logged[0]}/model"
    first = register_model(uri, "delay", alias="champion")
    second = register_model(uri, "delay", alias="champion")
    assert (first.aliases, str(second.version), second.aliases) == (["champion"], "2", ["champion"])
    found = mlflow.MlflowClient().get_model_version_by_alias("delay", "champion")
    assert str(found.version) == "2"
    hashes = {v.tags["dbx_aml.artifacts_sha256"] for v in (first, second)}
    assert len(hashes) == 1, "the same files have the same hash"


@pytest.mark.slow
def test_a_logged_model_of_mlflow_3_keeps_its_run(mlflow_store):
    from sklearn.linear_model import LinearRegression

    fitted = LinearRegression().fit(XY, [1.0, 2.0])
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(fitted, name="model", input_example=XY)
    version = register_model(info.model_uri, "delay")
    assert version.tags["dbx_aml.source_run_id"] == run.info.run_id
    assert version.tags["dbx_aml.source_model_uri"] == info.model_uri
    loaded = mlflow.pyfunc.load_model("models:/delay/1")
    np.testing.assert_allclose(loaded.predict(XY), fitted.predict(XY))


@pytest.mark.parametrize("text", ["no JSON", '"text"', "[" * 200_000])
def test_a_foreign_list_of_versions_on_a_logged_model_is_replaced(text):
    class Client:
        tags = {"mlflow.modelVersions": text}  # noqa: RUF012

        def get_logged_model(self, model_id):
            return self

        def set_logged_model_tags(self, model_id, tags):
            self.tags = tags

    client = Client()

    _tag_logged_model(client, "m-1", ModelVersion("delay", "3", 1))

    assert client.tags == {"mlflow.modelVersions": '[{"name": "delay", "version": "3"}]'}


def test_another_registry_is_used_for_this_call_only(logged, tmp_path):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "other.db")
    before = mlflow.get_registry_uri()
    register_model(logged[1], "delay", registry_uri=other)
    assert mlflow.get_registry_uri() == before
    assert mlflow.MlflowClient(registry_uri=other).get_model_version("delay", "1")
    with pytest.raises(MlflowException):
        mlflow.MlflowClient().get_registered_model("delay")


def test_a_signature_too_long_for_a_tag_is_told_by_its_hash(mlflow_store, tmp_path):
    wide = pd.DataFrame({f"column_{i}": [1.0] for i in range(200)})
    model = save_model(tmp_path, lambda rows: rows["column_0"], wide)
    tag = register_model(model, "wide").tags["dbx_aml.signature"]
    assert tag.startswith("sha256:")
    assert len(tag) == len("sha256:") + 64


def test_a_missing_model_leaves_no_registered_model_behind(logged):
    with pytest.raises(RegistryError, match=r"model must exist: got 'runs:/[0-9a-f]+/nothing'"):
        register_model(f"runs:/{logged[0]}/nothing", "delay")
    assert mlflow.MlflowClient().search_registered_models() == []


@pytest.fixture
def refused(mlflow_store, monkeypatch):
    """The registry refuses every new version, after the registered model was made."""
    store = mlflow.MlflowClient()._get_registry_client().store

    def refuse(*args, **kwargs):
        raise MlflowException("quota of versions is used up\nlong explanation")

    monkeypatch.setattr(type(store), "create_model_version", refuse)


def test_a_refused_version_leaves_no_empty_registered_model(logged, refused):
    with pytest.raises(
        RegistryError,
        match=r"model must be registrable: got 'runs:/\w+/model' as 'delay'; quota of versions is "
        r"used up$",
    ):
        register_model(f"runs:/{logged[0]}/model", "delay")
    assert mlflow.MlflowClient().search_registered_models() == []


def test_a_refused_version_keeps_a_registered_model_that_was_there(logged, request):
    mlflow.MlflowClient().create_registered_model("delay", description="ours")
    request.getfixturevalue("refused")
    with pytest.raises(RegistryError, match="registrable"):
        register_model(f"runs:/{logged[0]}/model", "delay")
    assert mlflow.MlflowClient().get_registered_model("delay").description == "ours"


def test_an_alias_that_the_registry_refuses_says_that_the_version_is_there(logged, monkeypatch):
    def refuse(*_):
        raise MlflowException("no permission")

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", refuse)
    with pytest.raises(RegistryError, match=r"alias must be settable: got 'best' for version 1"):
        register_model(f"runs:/{logged[0]}/model", "delay", alias="best")
    assert str(mlflow.MlflowClient().get_model_version("delay", "1").version) == "1"


@pytest.mark.parametrize("alias", ["latest", "Latest", "v12", "a/b"])
def test_an_alias_that_mlflow_does_not_take_is_refused_before_anything_is_registered(logged, alias):
    with pytest.raises(
        ArgumentError, match=f"alias must be a name that MLflow takes: got '{alias}"
    ):
        register_model(f"runs:/{logged[0]}/model", "delay", alias=alias)
    assert mlflow.MlflowClient().search_registered_models() == []


def test_a_uri_that_moves_and_an_empty_name_are_refused_before_anything_is_asked():
    with pytest.raises(ModelUriError, match="must name a version or an alias"):
        register_model("models:/delay/latest", "copy")
    with pytest.raises(ArgumentError, match="model_name must not be empty: got ' '"):
        register_model("models:/delay/1", " ")
