"""Comparing two runs names each difference."""

import sqlite3
from pathlib import Path

import mlflow
import numpy as np
from mlflow.utils.file_utils import local_file_uri_to_path

from dbx_aml.models import lineage
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.compare import compare_models_without_run, compare_runs
from tests.support.mirror import MirrorStores


def test_each_difference_is_named_with_both_values(stores: MirrorStores) -> None:
    run_id = stores.create_run("different")
    stores.mirror()
    (mirrored_id,) = stores.mirrored_ids(run_id)
    source, destination = stores.servers()
    assert list(compare_runs(source, destination, [source.get_run(run_id)])) == []
    stores.destination.log_metric(mirrored_id, "loss", 99.0, 1, 1)
    stores.source.log_metric(run_id, "loss", 0.25, 7, 77)
    stores.source.log_metric(run_id, "accuracy", 1.0, 1, 1)
    stores.source.log_text(run_id, "HELLO", "notes/a.txt")
    stores.source.set_tag(run_id, "team", "c")
    stores.source.log_param(run_id, "beta", "1")

    differences = {
        (difference.kind, difference.name): (difference.source, difference.destination)
        for difference in compare_runs(source, destination, [source.get_run(run_id)])
    }

    assert set(differences) == {
        ("metric", "loss"),
        ("metric", "accuracy"),
        ("artifact", "notes/a.txt"),
        ("tag", "team"),
        ("param", "beta"),
    }
    assert differences["metric", "loss"] == ("6 points, with 0.25 at step 77", "6, 1 missing")
    assert differences["tag", "team"] == ("c", "a b")
    assert differences["param", "beta"] == ("1", "")


def test_a_run_without_a_mirrored_run_is_one_difference(stores: MirrorStores) -> None:
    run_id = stores.create_run("pending")
    source, destination = stores.servers()
    (difference,) = compare_runs(source, destination, [source.get_run(run_id)])
    assert (difference.kind, difference.name) == ("run", run_id)


def test_each_of_a_dozen_faults_at_the_destination_is_found(stores: MirrorStores) -> None:
    with mlflow.start_run(run_name="run", tags={tags.STATUS: tags.PENDING}) as run:
        run_id = run.info.run_id
        mlflow.set_tag("mine", "1")
        mlflow.log_metrics({"loss": 1.0, "gone": 2.0}, step=1)
        mlflow.log_text("hello", "a.txt")
        mlflow.log_text("hello", "b.txt")
        mlflow.log_input(mlflow.data.from_numpy(np.arange(3), name="numbers"), "training")
        model = mlflow.initialize_logged_model(name="model", params={"depth": "1"})
        mlflow.log_metric("acc", 0.7, model_id=model.model_id)
    agent = mlflow.initialize_logged_model(name="agent")
    mlflow.finalize_logged_model(agent.model_id, "READY")
    stores.mirror()
    (mirrored_id,) = stores.mirrored_ids(run_id)
    source, destination = stores.servers()

    def find_differences() -> set[tuple[str, str]]:
        found = [
            *compare_runs(source, destination, [source.get_run(run_id)]),
            *compare_models_without_run(source, destination, [stores.experiment_id]),
        ]
        return {(difference.kind, difference.name) for difference in found}

    assert find_differences() == set()
    copies = {
        copied_model.name: copied_model.model_id
        for copied_model in stores.destination.search_logged_models(["1"])
    }
    stores.source.delete_tag(run_id, "mine")
    stores.destination.log_param(mirrored_id, "extra", "1")
    stores.destination.update_run(mirrored_id, status="FAILED", name="other")
    stores.destination.rename_experiment("1", "other")
    stores.destination.set_logged_model_tags(copies["model"], {lineage.SOURCE_TAGS: '["x"]'})
    stores.destination.set_logged_model_tags(copies["model"], {"x": "1"})
    stores.destination.finalize_logged_model(copies["agent"], "FAILED")
    artifact_uri = stores.destination.get_run(mirrored_id).info.artifact_uri
    artifacts = Path(local_file_uri_to_path(artifact_uri))
    (artifacts / "a.txt").write_text("hallo")
    (artifacts / "b.txt").unlink()
    with sqlite3.connect(stores.destination_uri.removeprefix("sqlite:///")) as connection:
        connection.execute("DELETE FROM metrics WHERE key = 'gone'")
        connection.execute("DELETE FROM input_tags")
        connection.execute("DELETE FROM inputs")
        connection.execute("UPDATE logged_model_metrics SET metric_value = 0.6")
        connection.execute("UPDATE logged_model_params SET param_value = '2'")

    assert find_differences() == {
        ("tag", "mine"),
        ("tag", "mlflow.runName"),
        ("param", "extra"),
        ("run", "status"),
        ("run", "run_name"),
        ("experiment", "name"),
        ("metric", "gone"),
        ("dataset", "numbers"),
        ("artifact", "a.txt"),
        ("artifact", "b.txt"),
        ("model tag", "model/x"),
        ("model param", "model/depth"),
        ("model metric", "model/acc"),
        ("model status", "agent"),
    }
