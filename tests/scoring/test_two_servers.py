"""Calls in two threads at the same time, each with another tracking and registry server."""

import itertools
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest

from dbx_aml import register_model
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring.pinned_model import pin_model
from tests.support.mirror import EXPERIMENT_PATH, MirrorStores
from tests.support.models import XY, save_model

ROUNDS = 30


@pytest.fixture
def stores(tmp_path, mlflow_store):
    """Two empty stores, none of them MLflow's current one; each with a run that logged a model."""
    stores = {}
    for name, factor in (("east", 2.0), ("west", 3.0)):
        shutil.copy(tmp_path / "mlflow.db", tmp_path / f"{name}.db")
        uri = f"sqlite:///{tmp_path / f'{name}.db'}"
        client = mlflow.MlflowClient(uri, uri)
        experiment_id = client.create_experiment(name, (tmp_path / name).as_uri())
        run_id = client.create_run(experiment_id).info.run_id
        model = save_model(tmp_path, lambda rows, factor=factor: rows[["x"]] * factor, XY)
        client.log_artifacts(run_id, model, "model")
        stores[name] = (uri, run_id, factor)
    return stores


def in_two_threads(stores, call):
    """Call with each store in another thread, both at the same time in each round."""
    barrier = threading.Barrier(len(stores))

    def rounds(name):
        results = []
        for _ in range(ROUNDS):
            barrier.wait(60)
            results.append(call(name, *stores[name]))
        return results

    with ThreadPoolExecutor(len(stores)) as pool:
        return dict(zip(stores, pool.map(rounds, stores), strict=True))


@pytest.mark.slow
def test_models_registered_at_the_same_time_go_to_the_registry_of_their_call(stores):
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()

    def register(name, uri, run_id, factor):
        return register_model(
            f"runs:/{run_id}/model", f"model_of_{name}", tracking_uri=uri, registry_uri=uri
        )

    versions = in_two_threads(stores, register)

    for name, (uri, run_id, _) in stores.items():
        assert [int(version.version) for version in versions[name]] == list(range(1, ROUNDS + 1))
        (registered,) = mlflow.MlflowClient(uri, uri).search_registered_models()
        assert registered.name == f"model_of_{name}"
        assert {version.run_id for version in versions[name]} == {run_id}
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before


def test_models_pinned_at_the_same_time_are_those_of_the_registry_of_their_call(stores, tmp_path):
    """The registered model has one name in both registries and is another model in each."""
    for uri, run_id, _ in stores.values():
        register_model(f"runs:/{run_id}/model", "shared", tracking_uri=uri, registry_uri=uri)
    numbers = {name: itertools.count() for name in stores}

    def pin(name, uri, run_id, factor):
        folder = tmp_path / f"{name}_{next(numbers[name])}"
        model = pin_model(ModelUri.parse("models:/shared/1"), mlflow.MlflowClient(uri, uri), folder)
        return model.run_id, mlflow.pyfunc.load_model(str(model.folder)).predict(XY)["x"][0]

    models = in_two_threads(stores, pin)

    for name, (_, run_id, factor) in stores.items():
        assert set(models[name]) == {(run_id, factor)}


@pytest.mark.slow
def test_runs_mirrored_at_the_same_time_go_to_the_destination_of_their_call(tmp_path):
    numbers = {name: itertools.count() for name in ("east", "west")}
    pairs = {}
    for name in ("east", "west"):
        (tmp_path / name).mkdir()
        pairs[name] = (MirrorStores(tmp_path / name),)

    def mirror(name, stores):
        stores.create_run(f"run {next(numbers[name])}", side=name)
        return stores.mirror()

    in_two_threads(pairs, mirror)

    for name, (stores,) in pairs.items():
        experiment = stores.destination.get_experiment_by_name(EXPERIMENT_PATH)
        runs = stores.destination.search_runs([experiment.experiment_id])
        assert len(runs) == ROUNDS
        assert {run.data.tags["side"] for run in runs} == {name}
