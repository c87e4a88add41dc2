"""Mirroring a run: everything arrives once, and an unmirrorable run keeps the reason."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import FileInfo, Metric
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from sklearn.linear_model import LinearRegression

from dbx_aml.models import lineage
from dbx_aml.tracking.mirror import lease, metrics, tags
from dbx_aml.tracking.mirror.mirror_run import RunMirror
from dbx_aml.tracking.mirror.mirror_runs import mirror_runs
from dbx_aml.tracking.mirror.source_runs import get_runs
from tests.support.mirror import EXPERIMENT_PATH, MirrorStores

PENDING_TAG = {tags.STATUS: tags.PENDING}
AML_TAGS = tags.DestinationTags("aml")


def test_everything_of_a_run_arrives_and_a_second_mirror_changes_nothing(
    stores: MirrorStores,
) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]})
    with mlflow.start_run(run_name="Größe 📏", description="線", tags=PENDING_TAG) as parent:
        mlflow.log_params({f"パラメータ {i}": "ü" * 200 for i in range(150)})
        mlflow.log_input(mlflow.data.from_pandas(frame, name="räume"), context="training")
        for step in (3, 1, -2):
            mlflow.log_metric("loss/größe", step / 7, step=step, timestamp=10_000 - step)
        MlflowClient().log_metric(parent.info.run_id, "same", 1.0, 5, 5)
        MlflowClient().log_metric(parent.info.run_id, "same", 1.0, 5, 5)
        for text, path in (("", "empty.txt"), ("線", "größe/深い/a b.txt"), ("x", "top")):
            mlflow.log_text(text, path)
        model = mlflow.sklearn.log_model(
            LinearRegression().fit(frame[["x"]], frame["y"]),
            name="classifier",
            pip_requirements=["scikit-learn"],
        )
        mlflow.log_metric("score", 0.5, step=2, model_id=model.model_id)
        for number in range(2):
            with mlflow.start_run(run_name=f"child {number}", nested=True, tags=PENDING_TAG):
                values = (float("nan"), float("inf"), float("-inf"), -0.0, 1e-300)
                for step, value in enumerate(values):
                    mlflow.log_metric("odd", value, step=step)
    with pytest.raises(ZeroDivisionError), mlflow.start_run(run_name="failed", tags=PENDING_TAG):
        raise ZeroDivisionError

    results = stores.mirror()

    assert {result.status for result in results.values()} == {"done"}
    stores.assert_equal()
    content = stores.destination_content()
    assert content["child 0"]["parent"] == "Größe 📏"
    assert len(content["child 0"]["metrics"]["odd"]) == 5
    (model,) = stores.destination.search_logged_models([stores.experiment_id])
    assert [(metric.key, metric.value, metric.step) for metric in model.metrics] == [
        ("score", 0.5, 2)
    ]
    assert "MLmodel" in content["Größe 📏"]["models"]["classifier"]["files"]
    assert content["failed"]["info"][0] == "FAILED"
    (mirrored_id,) = stores.mirrored_ids(parent.info.run_id)
    source_tags = stores.source_tags(parent.info.run_id)
    assert source_tags[tags.STATUS] == tags.DONE
    assert source_tags["dbx_aml.mirror.aml.run_id"] == mirrored_id
    mirrored_tags = stores.destination.get_run(mirrored_id).data.tags
    assert mirrored_tags[lineage.SOURCE_EXPERIMENT] == EXPERIMENT_PATH
    assert mirrored_tags[lineage.SOURCE_WORKSPACE] == stores.source_uri
    assert stores.mirror() == {}
    all_runs = stores.source.search_runs([stores.experiment_id])
    again = mirror_runs(*stores.servers(), all_runs)
    assert [result.status for result in again] == ["done"] * 4
    assert stores.destination_content() == content


def test_a_mirror_that_was_killed_half_way_writes_only_the_rest(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = stores.create_run("half")
    points = [Metric(f"m{i % 3}", i / 7, i, i) for i in range(3000)]
    for first in range(0, 3000, 1000):
        stores.source.log_batch(run_id, points[first : first + 1000])
    write_points, written = metrics.write_points, []

    def interrupt_second_call(server, mirrored_id, call_points) -> None:
        written.append(len(call_points))
        if len(written) == 2:
            raise KeyboardInterrupt
        write_points(server, mirrored_id, call_points)

    monkeypatch.setattr(metrics, "write_points", interrupt_second_call)
    source, destination = stores.servers()
    with pytest.raises(KeyboardInterrupt):
        RunMirror(source, destination).mirror(source.get_run(run_id))
    assert stores.source_tags(run_id)[tags.STATUS] == tags.PENDING
    monkeypatch.setattr(metrics, "write_points", write_points)
    # This process still runs, so its lease counts; a killed process has none.
    stores.source.set_tag(run_id, tags.LEASE, lease.RELEASED)

    result = stores.mirror()["half"]

    assert (result.status, result.metric_points) == ("done", 3005 - written[0])
    stores.assert_equal()


def test_a_mirror_that_was_killed_before_it_set_the_status_is_completed_by_the_next(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = stores.create_run("last")
    source, destination = stores.servers()
    with monkeypatch.context() as patch:
        patch.setattr(RunMirror, "_set_status", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            RunMirror(source, destination).mirror(source.get_run(run_id))
    # This process still runs, so its lease counts; a killed process has none.
    stores.source.set_tag(run_id, tags.LEASE, lease.RELEASED)

    assert stores.mirror()["last"].status == "done"
    assert stores.source_tags(run_id)[tags.STATUS] == tags.DONE
    assert stores.mirror() == {}


def test_a_running_run_stays_pending_until_its_end_and_a_resumed_run_is_mirrored_again(
    stores: MirrorStores,
) -> None:
    run = mlflow.start_run(run_name="long", tags=PENDING_TAG)
    mlflow.log_metric("m", 1.0, step=1)
    mlflow.log_text("later", "a.txt")
    assert stores.mirror()["long"].status == "running"
    (mirrored_id,) = stores.mirrored_ids(run.info.run_id)
    assert stores.destination.get_run(mirrored_id).info.status == "RUNNING"
    # Azure ML never changes an artifact, so a running run keeps its own.
    assert stores.destination.list_artifacts(mirrored_id) == []
    assert stores.mirror()["long"].metric_points == 0
    mlflow.log_metric("m", 2.0, step=2)
    mlflow.end_run()
    result = stores.mirror()["long"]
    assert (result.status, result.metric_points) == ("done", 1)
    stores.assert_equal()

    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("m", 3.0, step=3)
        assert stores.mirror()["long"].status == "running"
    assert stores.mirror()["long"].status == "done"
    stores.assert_equal()


def test_a_run_that_goes_on_without_an_end_is_running_although_its_copy_keeps_the_old_end(
    stores: MirrorStores,
) -> None:
    run_id = stores.create_run("resumed")
    stores.mirror()
    stores.source.update_run(run_id, status="RUNNING")
    # MLflow's own server keeps the end of a resumed run, other servers remove it.
    with closing(sqlite3.connect(stores.source_uri.removeprefix("sqlite:///"))) as database:
        database.execute("UPDATE runs SET end_time = NULL")
        database.commit()

    assert stores.mirror()["resumed"].status == "running"

    stores.source.set_terminated(run_id)
    assert stores.mirror()["resumed"].status == "done"
    stores.assert_equal()


def test_an_unmirrorable_run_keeps_the_reason_and_other_runs_are_mirrored(
    stores: MirrorStores,
) -> None:
    bad_id, good_id = stores.create_run("bad"), stores.create_run("good")
    stores.mirror()
    (mirrored_id,) = stores.mirrored_ids(bad_id)
    # MLflow never changes a param, so this run cannot become equal.
    different_id = stores.destination.create_run("0").info.run_id
    stores.destination.log_param(different_id, "alpha", "0.7")
    stores.destination.set_tag(different_id, lineage.SOURCE_RUN_ID, bad_id)
    stores.destination.delete_run(mirrored_id)
    stores.source.set_tag(bad_id, AML_TAGS.run_id, different_id)
    for run_id in (bad_id, good_id):
        stores.source.set_tag(run_id, tags.STATUS, tags.PENDING)
        stores.source.log_metric(run_id, "accuracy", 1.0)

    results = stores.mirror()

    assert {name: result.status for name, result in results.items()} == {
        "bad": "failed",
        "good": "done",
    }
    source_tags = stores.source_tags(bad_id)
    assert source_tags[tags.STATUS] == tags.FAILED
    assert "['alpha']" in source_tags[AML_TAGS.error]
    assert stores.source_tags(good_id)[tags.STATUS] == tags.DONE
    # A user may have deleted the run with the other value.
    assert {name: result.status for name, result in stores.mirror().items()} == {"bad": "failed"}
    source, destination = stores.servers()
    (result,) = mirror_runs(source, destination, get_runs(source, [bad_id]))
    assert result.status == "failed"


def test_a_run_is_not_done_while_its_mirrored_run_has_a_param_of_its_own(
    stores: MirrorStores,
) -> None:
    run_id = stores.create_run("run")
    stores.mirror()
    (mirrored_id,) = stores.mirrored_ids(run_id)
    stores.destination.log_param(mirrored_id, "extra", "1")
    stores.source.set_tag(run_id, "team", "other")

    result = stores.mirror()["run"]

    assert (result.status, "['extra']" in result.reason) == ("failed", True)


def test_a_run_is_not_done_while_its_mirrored_run_has_a_metric_of_its_own(
    stores: MirrorStores,
) -> None:
    run_id = stores.create_run("run")
    stores.mirror()
    (mirrored_id,) = stores.mirrored_ids(run_id)
    stores.destination.log_metric(mirrored_id, "extra", 1.0)
    stores.source.set_tag(run_id, "approved", "yes")

    result = stores.mirror()["run"]

    assert result.status == "failed"
    assert result.reason == "metric 'extra' must be the source's: got one of the destination alone"


@pytest.mark.parametrize("key", ["team", "mlflow.username"])
def test_a_run_is_not_done_if_the_destination_does_not_keep_a_tag(
    stores: MirrorStores, key: str
) -> None:
    run_id = stores.create_run("run", **{key: "a b"})
    with closing(sqlite3.connect(stores.destination_uri.removeprefix("sqlite:///"))) as database:
        database.execute(
            f"CREATE TRIGGER forget AFTER INSERT ON tags WHEN NEW.key = '{key}' "
            f"BEGIN DELETE FROM tags WHERE key = '{key}'; END"
        )

    result = stores.mirror()["run"]

    assert result.status == "failed"
    assert f"tag '{key}' must be the source's" in result.reason
    assert stores.source_tags(run_id)[tags.STATUS] == tags.FAILED


@pytest.mark.parametrize(
    "path", ["/home/u/.ssh/authorized_keys", "../x", "a/../../x", "a\\x", "a\nx"]
)
def test_a_run_with_an_artifact_outside_of_its_folder_fails_and_the_others_are_mirrored(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    bad_id, _ = stores.create_run("bad"), stores.create_run("good")
    list_artifacts = LocalArtifactRepository.list_artifacts
    downloads: list[str] = []

    def list_with_foreign_path(repository: Any, folder: str | None = None) -> list[FileInfo]:
        infos = list_artifacts(repository, folder)
        is_root_of_bad = bad_id in repository.artifact_uri and not folder
        return [*infos, FileInfo(path, False, 5)] if is_root_of_bad else infos

    def download_file(repository: Any, remote_file_path: str, local_path: str) -> None:
        downloads.append(remote_file_path)
        Path(local_path).write_bytes(Path(repository.artifact_dir, remote_file_path).read_bytes())

    monkeypatch.setattr(LocalArtifactRepository, "list_artifacts", list_with_foreign_path)
    monkeypatch.setattr(LocalArtifactRepository, "_download_file", download_file)
    results = stores.mirror()
    assert results["good"].status == "done"
    assert results["bad"].status == "failed"
    assert f"path must stay inside its folder: got {path!r}" in results["bad"].reason
    assert repr(path) in stores.source_tags(bad_id)[AML_TAGS.error]
    assert path not in downloads


def test_a_deleted_run_stays_at_the_destination_and_a_new_name_is_copied(
    stores: MirrorStores,
) -> None:
    deleted_id, early_id = stores.create_run("deleted"), stores.create_run("early")
    renamed_id = stores.create_run("old name")
    stores.source.delete_run(early_id)
    result = stores.mirror()["early"]
    assert result.status == "deleted"
    assert "before it was mirrored" in result.reason
    stores.source.delete_run(deleted_id)
    stores.source.update_run(renamed_id, name="new name")

    source, destination = stores.servers()
    runs = get_runs(source, [deleted_id, early_id, renamed_id])
    results = {result.name: result for result in mirror_runs(source, destination, runs)}

    assert {name: result.status for name, result in results.items()} == {
        "deleted": "deleted",
        "early": "deleted",
        "new name": "done",
    }
    (mirrored_id,) = stores.mirrored_ids(deleted_id)
    mirrored_run = stores.destination.get_run(mirrored_id)
    assert mirrored_run.info.lifecycle_stage == "active"
    assert mirrored_run.data.tags[lineage.SOURCE_LIFECYCLE_STAGE] == "deleted"
    (mirrored_id,) = stores.mirrored_ids(renamed_id)
    assert stores.destination.get_run(mirrored_id).info.run_name == "new name"


def test_of_several_mirrored_runs_of_one_run_the_first_stays(stores: MirrorStores) -> None:
    run_id = stores.create_run("duplicated")
    experiment_id = stores.destination.get_experiment_by_name(EXPERIMENT_PATH).experiment_id

    def create_duplicate(source_id: str) -> str:
        start_time = stores.source.get_run(source_id).info.start_time
        source_tag = {lineage.SOURCE_RUN_ID: source_id}
        run = stores.destination.create_run(experiment_id, start_time=start_time, tags=source_tag)
        return str(run.info.run_id)

    duplicates = [create_duplicate(run_id) for _ in range(3)]

    assert stores.mirror()["duplicated"].status == "done"

    assert stores.mirrored_ids(run_id) == [min(duplicates)]
    assert stores.source_tags(run_id)[AML_TAGS.run_id] == min(duplicates)
    # The duplicate appears after this process found its own mirrored run.
    late_id = stores.create_run("late")
    source, destination = stores.servers()
    run_mirror = RunMirror(source, destination)
    mirrored_run = run_mirror.mirrored_runs.find_or_create(source.get_run(late_id))
    duplicate_id = create_duplicate(late_id)
    assert run_mirror.mirror(source.get_run(late_id)).status == "done"
    assert stores.mirrored_ids(late_id) == [min(mirrored_run.info.run_id, duplicate_id)]
    stores.assert_equal()


def test_a_child_brings_its_parent_also_an_unmarked_parent(stores: MirrorStores) -> None:
    parent_id = stores.source.create_run(stores.experiment_id, run_name="parent").info.run_id
    stores.source.log_metric(parent_id, "m", 1.0)
    stores.source.set_terminated(parent_id)
    children = [
        stores.create_run(f"child {i}", **{tags.PARENT_RUN_ID: parent_id}) for i in range(4)
    ]
    orphan_id = stores.create_run("orphan", **{tags.PARENT_RUN_ID: "0" * 32})

    assert {result.status for result in stores.mirror().values()} == {"done"}

    def mirrored_parent_id(run_id: str) -> str | None:
        (mirrored_id,) = stores.mirrored_ids(run_id)
        return stores.destination.get_run(mirrored_id).data.tags.get(tags.PARENT_RUN_ID)

    assert [mirrored_parent_id(child) for child in children] == stores.mirrored_ids(parent_id) * 4
    assert mirrored_parent_id(orphan_id) is None
    stores.source.delete_run(orphan_id)
    stores.destination.delete_run(stores.mirrored_ids(orphan_id)[0])
    stores.assert_equal()


def test_the_reason_in_the_tags_of_a_run_has_no_password(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = stores.create_run("bad")

    def refuse(*_: object, **__: object) -> None:
        long_path = "path/" * 100
        raise MlflowException(f"no answer of https://ana:pa/s3cret@mlflow.example/{long_path}")

    monkeypatch.setattr(metrics, "write_points", refuse)

    (result,) = stores.mirror().values()

    error = stores.source_tags(run_id)[AML_TAGS.error]
    assert error == result.reason
    assert error.startswith("no answer of https://***@mlflow.example/path/")
