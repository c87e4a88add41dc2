"""In mode "dual" each run is marked when it is created and mirrored while it runs."""

import os
from contextlib import nullcontext
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.tracking._tracking_service.client import TrackingServiceClient

from dbx_aml import connect
from dbx_aml._common.fork_gate import is_background
from dbx_aml.tracking import run_context
from dbx_aml.tracking.mirror import active_run, live_mirror, tags
from dbx_aml.tracking.mirror.live_mirror import LiveMirror
from tests.support.mirror import EXPERIMENT_PATH, MirrorStores, assert_soon


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_mirror, "_TICK_S", 0.05)
    monkeypatch.setattr(active_run, "_INTERVAL_S", 0.1)


def test_a_run_is_mirrored_while_it_runs_and_whole_after_its_end(stores: MirrorStores) -> None:
    with connect(mode="dual", **stores.connect_arguments):
        mlflow.set_experiment(EXPERIMENT_PATH)
        with mlflow.start_run(run_name="first") as run:
            run_id = run.info.run_id
            # The server's answer to the request that created the run has the tag.
            assert run.data.tags[tags.STATUS] == tags.PENDING
            mlflow.log_metric("m", 1.0, step=1)
            mlflow.log_text("x", "a.txt")
            assert_soon(lambda: stores.mirrored_ids(run_id))
            (mirrored_id,) = stores.mirrored_ids(run_id)
            mlflow.log_metric("m", 2.0, step=2)
            mlflow.log_param("late", 1)
            mlflow.set_tag("mlflow.runName", "renamed")
            assert_soon(lambda: stores.destination.get_run(mirrored_id).data.params)
            assert_soon(lambda: stores.destination.get_run(mirrored_id).data.metrics == {"m": 2.0})
            assert stores.destination.get_run(mirrored_id).info.status == "RUNNING"
            # `dbx-aml mirror` in another process leaves the run to this process.
            assert {result.status for result in stores.mirror().values()} <= {"locked", "running"}
        # Runs that end before the thread has found them.
        for number in range(5):
            with mlflow.start_run(run_name=f"short {number}"):
                mlflow.log_metric("m", number)
        assert_soon(lambda: not stores.unfinished_runs())
        stores.assert_equal()
        with mlflow.start_run(run_id=run_id):
            mlflow.log_metric("m", 3.0, step=3)
            assert_soon(lambda: stores.source_tags(run_id)[tags.STATUS] == tags.PENDING)
        assert_soon(lambda: stores.source_tags(run_id)[tags.STATUS] == tags.DONE)
        stores.assert_equal()
        # Child processes mark their runs too.
        assert os.environ["DBX_AML_MODE"] == "dual"
    assert "DBX_AML_MODE" not in os.environ


def test_a_run_that_is_created_during_a_search_is_mirrored_after_the_next_run(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The thread does nothing by itself here.
    monkeypatch.setattr(live_mirror, "_TICK_S", 3600.0)
    create_run = TrackingServiceClient.create_run

    def search_and_create_run(*args: Any, **kwargs: Any) -> Run:
        mirror = run_context.current_live_mirror()
        assert mirror is not None
        mirror._update_runs(is_last=False)
        return create_run(*args, **kwargs)

    monkeypatch.setattr(TrackingServiceClient, "create_run", search_and_create_run)
    with connect(mode="dual", **stores.connect_arguments):
        mlflow.set_experiment(EXPERIMENT_PATH)
        with mlflow.start_run(run_name="first"):
            pass
        monkeypatch.setattr(TrackingServiceClient, "create_run", create_run)
        with mlflow.start_run(run_name="second"):
            pass
        mirror = run_context.current_live_mirror()
        assert mirror is not None
        mirror._update_runs(is_last=False)
        assert not stores.unfinished_runs()
        stores.assert_equal()


@pytest.mark.parametrize("mode", ["databricks", "aml", None])
def test_in_another_mode_no_run_is_marked_and_no_thread_is_started(
    stores: MirrorStores, mode: str | None
) -> None:
    uris = {"databricks_tracking_uri": stores.source_uri, "aml_tracking_uri": stores.source_uri}
    with connect(mode=mode, **uris) if mode else nullcontext():
        mlflow.set_experiment(EXPERIMENT_PATH)
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 1.0)
    assert not [key for key in run.data.tags if key.startswith("dbx_aml.")]
    assert run_context.current_live_mirror() is None


def test_a_run_on_another_server_than_the_links_source_is_not_marked(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = run_context.MirrorTagProvider()
    monkeypatch.setenv("DBX_AML_MODE", "dual")
    monkeypatch.setenv("DBX_AML_AML_TRACKING_URI", stores.destination_uri)
    monkeypatch.setenv("DBX_AML_DATABRICKS_TRACKING_URI", stores.source_uri)
    assert provider.in_context()
    mlflow.set_tracking_uri(stores.destination_uri)
    assert not provider.in_context()
    # Without the other server's URI the run is marked, so that it is mirrored later.
    monkeypatch.delenv("DBX_AML_AML_TRACKING_URI")
    monkeypatch.delenv("DBX_AML_DATABRICKS_TRACKING_URI")
    mlflow.set_tracking_uri("databricks")
    assert provider.tags() == {tags.STATUS: tags.PENDING}
    assert provider.in_context()


def test_a_forked_process_has_no_thread_and_leaves_its_parents_runs_alone(
    stores: MirrorStores,
) -> None:
    with connect(mode="dual", **stores.connect_arguments):
        mlflow.set_experiment(EXPERIMENT_PATH)
        with mlflow.start_run() as run:
            mirror = run_context.current_live_mirror()
            assert mirror is not None
            assert mirror.is_running
            process_token = mirror.process_token
            child = os.fork()
            if child == 0:
                is_new = not mirror.is_running and mirror.process_token != process_token
                os._exit(0 if is_new and mirror._untracked_ids == {run.info.run_id} else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert mirror.is_running
            assert mirror.process_token == process_token


def test_a_process_forks_only_while_the_thread_is_between_two_requests(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: set[bool] = set()
    update_runs = LiveMirror._update_runs

    def record_update(mirror: LiveMirror, *, is_last: bool) -> None:
        delays.add(is_background())
        update_runs(mirror, is_last=is_last)

    monkeypatch.setattr(LiveMirror, "_update_runs", record_update)
    with connect(mode="dual", **stores.connect_arguments):
        mlflow.set_experiment(EXPERIMENT_PATH)
        with mlflow.start_run():
            pass
        mirror = run_context.current_live_mirror()
        assert mirror is not None
        mirror.stop()
    assert delays == {True}


def test_runs_of_the_client_are_marked_and_mirrored_as_those_of_the_fluent_api(
    stores: MirrorStores,
) -> None:
    with connect(mode="dual", **stores.connect_arguments):
        # Ray Tune, Optuna and MLflow projects create their runs in this way.
        alone = mlflow.MlflowClient().create_run(stores.experiment_id, run_name="alone")
        mlflow.MlflowClient().set_terminated(alone.info.run_id)
        with mlflow.start_run(experiment_id=stores.experiment_id, run_name="parent") as parent:
            parent_tag = {tags.PARENT_RUN_ID: parent.info.run_id}
            trial = mlflow.MlflowClient().create_run(
                stores.experiment_id, run_name="trial", tags=parent_tag
            )
            mlflow.MlflowClient().set_terminated(trial.info.run_id)
            assert trial.data.tags.items() >= {**parent_tag, tags.STATUS: tags.PENDING}.items()
        other = mlflow.MlflowClient(stores.destination_uri).create_run("0")
        assert tags.STATUS not in other.data.tags
        assert_soon(lambda: not stores.unfinished_runs())
    assert set(stores.destination_content()) == {"alone", "parent", "trial"}
    assert tags.STATUS not in mlflow.MlflowClient().create_run("0").data.tags
