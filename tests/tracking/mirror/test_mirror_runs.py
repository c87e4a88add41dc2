"""Many runs at once: two processes create no second run, and the progress only grows."""

import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError

from dbx_aml.tracking.mirror.lease import Lease
from dbx_aml.tracking.mirror.mirror_runs import Progress
from dbx_aml.tracking.mirror.mirrored_runs import MirroredRuns
from tests.support.mirror import EXPERIMENT_PATH, MirrorStores


def test_two_mirrors_at_once_create_no_second_run(stores: MirrorStores) -> None:
    for number in range(8):
        stores.create_run(f"run {number}")

    with ThreadPoolExecutor(2) as pool:
        results = [
            result
            for mirrored in pool.map(lambda _: stores.mirror(lock_timeout_s=20), range(2))
            for result in mirrored.values()
        ]

    assert [result.error for result in results if result.error] == []
    statuses = {result.status for result in stores.mirror().values()}
    assert statuses <= {"done", "unchanged"}
    stores.assert_equal()


def test_entries_that_another_process_inserts_a_moment_earlier_are_no_failure(
    stores: MirrorStores,
) -> None:
    stores.create_run("run")
    refused_tables = []

    def insert_first(
        connection: Any, _: Any, statement: str, parameters: Any, __: Any, is_many: bool
    ) -> None:
        insert = re.match(r"INSERT INTO (experiment_tags|params)\b", statement)
        is_destination = str(connection.engine.url) == stores.destination_uri
        if not is_destination or insert is None or insert[1] in refused_tables:
            return
        refused_tables.append(insert[1])
        with closing(sqlite3.connect(connection.engine.url.database)) as database, database:
            execute = database.executemany if is_many else database.execute
            execute(statement, parameters)

    event.listen(Engine, "before_cursor_execute", insert_first)
    try:
        status = stores.mirror()["run"].status
    finally:
        event.remove(Engine, "before_cursor_execute", insert_first)

    assert sorted(refused_tables) == ["experiment_tags", "params"]
    assert status == "done"
    stores.assert_equal()


def test_a_refused_write_of_a_model_without_a_run_is_tried_again(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.create_run("run")
    stores.mirror()
    model = stores.source.create_logged_model(stores.experiment_id, name="agent")
    stores.source.finalize_logged_model(model.model_id, "READY")
    create_model = SqlAlchemyStore.create_logged_model

    def create_and_refuse(self: SqlAlchemyStore, *args: Any, **kwargs: Any) -> Any:
        create_model(self, *args, **kwargs)
        monkeypatch.setattr(SqlAlchemyStore, "create_logged_model", create_model)
        with self.ManagedSessionMaker(read_only=False):
            raise IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE constraint failed"))

    monkeypatch.setattr(SqlAlchemyStore, "create_logged_model", create_and_refuse)

    assert stores.mirror()["agent"].status == "done"
    experiment = stores.destination.get_experiment_by_name(EXPERIMENT_PATH)
    models = stores.destination.search_logged_models([experiment.experiment_id])
    assert [(model.name, str(model.status)) for model in models] == [("agent", "READY")]


def test_a_mirror_that_creates_its_run_after_another_has_finished_leaves_one_run(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_run_id = stores.create_run("run")
    create_run = MirroredRuns._create

    def mirror_and_create_run(self: MirroredRuns, *args: Any) -> Run:
        monkeypatch.setattr(MirroredRuns, "_create", create_run)
        with monkeypatch.context() as patch:
            # Both have read the run before one of them set the lease.
            patch.setattr(Lease, "is_expired", True)
            assert {result.status for result in stores.mirror().values()} == {"done"}
        return create_run(self, *args)

    monkeypatch.setattr(MirroredRuns, "_create", mirror_and_create_run)
    stores.mirror()

    stores.assert_equal()
    assert len(stores.mirrored_ids(source_run_id)) == 1
    assert stores.mirror() == {}


def test_the_progress_counts_runs_points_and_bytes(stores: MirrorStores) -> None:
    for number in range(3):
        stores.create_run(f"run {number}")
    reports: list[tuple[int, ...]] = []

    def report(progress: Progress) -> None:
        reports.append(
            (
                progress.runs,
                progress.finished_runs,
                progress.metric_points,
                progress.artifact_bytes,
            )
        )

    stores.mirror(report=report)

    assert reports[-1] == (3, 3, 15, 15)
    assert reports == sorted(reports)


@pytest.mark.slow
def test_two_threads_that_mirror_between_different_servers_never_mix_them(tmp_path: Path) -> None:
    pairs = {}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        pairs[name] = MirrorStores(tmp_path / name)

    def mirror_rounds(name: str) -> list[str]:
        statuses = []
        for number in range(15):
            pairs[name].create_run(f"{name} {number}")
            statuses += [result.status for result in pairs[name].mirror().values()]
        return statuses

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(mirror_rounds, pairs)) == [["done"] * 15] * 2

    for name, stores in pairs.items():
        stores.assert_equal()
        assert set(stores.destination_content()) == {f"{name} {number}" for number in range(15)}
