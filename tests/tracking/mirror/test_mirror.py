"""Mirroring between two MLflow servers: everything arrives, once, and what cannot says why."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from sklearn.linear_model import LinearRegression

from dbx_aml import connect
from dbx_aml.cli.main import main
from dbx_aml.tracking import run_context
from dbx_aml.tracking.mirror import lease as leases
from dbx_aml.tracking.mirror import metrics as point
from dbx_aml.tracking.mirror import pending_runs as queue
from dbx_aml.tracking.mirror import tags as tag
from dbx_aml.tracking.mirror.mirror_run import Copier, Outcome
from dbx_aml.tracking.mirror.mirror_runs import Progress, reconcile
from dbx_aml.tracking.mirror.server import Side
from tests.support.alone import leave_alone
from tests.support.mirror import snapshot, wait_for

PATH = "/Users/ana@contoso.com/größe/イリス"


class Pair:
    """Two SQLite stores: the source is MLflow's own in this process."""

    def __init__(self, folder: Path, empty: Path) -> None:
        self.src, self.dst = (f"sqlite:///{folder / name}.db" for name in ("src", "dst"))
        for name, uri in (("src", self.src), ("dst", self.dst)):
            shutil.copy(empty, folder / f"{name}.db")
            location = (folder / f"{name}-artifacts").as_uri()
            MlflowClient(uri).create_experiment(PATH, artifact_location=location)
        self.source, self.destination = MlflowClient(self.src), MlflowClient(self.dst)
        self.experiment = self.source.get_experiment_by_name(PATH).experiment_id

    @property
    def uris(self) -> tuple[str, ...]:
        return ("--source-tracking-uri", self.src, "--destination-tracking-uri", self.dst)

    def mirror(self, *arguments: str) -> Result:
        which = arguments[:1] if arguments[:1] in (("status",), ("verify",)) else ()
        rest = arguments[len(which) :]
        return CliRunner().invoke(
            main, ["mirror", *which, *self.uris, *rest], env={"COLUMNS": "200"}
        )

    def sides(self) -> tuple[Side, Side]:
        return Side(self.src, "databricks"), Side(self.dst, "aml")

    def outcomes(self, *, wait_s: float = 0.0) -> dict[str, Outcome]:
        src, dst = self.sides()
        runs = queue.pending(src, [self.experiment])
        return {one.name: one for one in reconcile(src, dst, runs, wait_s=wait_s)}

    def run(self, name: str, **tags: str) -> str:
        """Make a run that is marked and over, with a little of everything; return its id."""
        run = self.source.create_run(
            self.experiment, run_name=name, tags={tag.STATE: tag.PENDING, **tags}
        )
        run_id = str(run.info.run_id)
        points = [Metric("loss", 1 / (step + 1), 1000 + step, step) for step in range(5)]
        self.source.log_batch(run_id, points, [Param("alpha", "0.5")], [RunTag("team", "a b")])
        self.source.log_text(run_id, "hello", "notes/a.txt")
        self.source.set_terminated(run_id)
        return run_id

    def tags(self, run_id: str) -> dict[str, str]:
        return dict(self.source.get_run(run_id).data.tags)

    def started(self, run_id: str) -> int:
        return int(self.source.get_run(run_id).info.start_time)

    def mirrors(self, run_id: str, view: int = ViewType.ACTIVE_ONLY) -> list[str]:
        found = self.destination.search_runs(
            [self.destination.get_experiment_by_name(PATH).experiment_id],
            f"tags.`{tag.SOURCE_RUN}` = '{run_id}'",
            run_view_type=view,
        )
        return [run.info.run_id for run in found]

    def are_equal(self) -> bool:
        source, destination = snapshot(self.src, PATH), snapshot(self.dst, PATH)
        assert source == destination
        return True


@pytest.fixture
def pair(
    tmp_path: Path, empty_mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pair]:
    leave_alone(monkeypatch, tmp_path)
    found = Pair(tmp_path, empty_mlflow_store)
    mlflow.set_tracking_uri(found.src)
    mlflow.set_registry_uri(found.src)
    mlflow.set_experiment(PATH)
    yield found


def test_everything_of_a_run_arrives_and_doing_it_again_changes_nothing(pair: Pair) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]})
    marked = {tag.STATE: tag.PENDING}
    with mlflow.start_run(run_name="Größe 📏", description="線", tags=marked) as parent:
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
            with mlflow.start_run(run_name=f"kind {number}", nested=True, tags=marked):
                values = (float("nan"), float("inf"), float("-inf"), -0.0, 1e-300)
                for step, value in enumerate(values):
                    mlflow.log_metric("odd", value, step=step)
    with pytest.raises(ZeroDivisionError), mlflow.start_run(run_name="failed", tags=marked):
        raise ZeroDivisionError

    done = pair.mirror("--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["counts"] == {"done": 4}
    assert pair.are_equal()
    seen = snapshot(pair.dst, PATH)
    assert seen["kind 0"]["parent"] == "Größe 📏"
    assert len(seen["kind 0"]["metrics"]["odd"]) == 5
    (model,) = pair.destination.search_logged_models([pair.experiment])
    assert [(one.key, one.value, one.step) for one in model.metrics] == [("score", 0.5, 2)]
    assert "MLmodel" in seen["Größe 📏"]["models"]["classifier"]["files"]
    assert seen["failed"]["info"][0] == "FAILED"
    (mirrored,) = pair.mirrors(parent.info.run_id)
    tags = pair.tags(parent.info.run_id)
    assert (tags[tag.STATE], tags["dbx_aml.mirror.aml.run_id"]) == (tag.DONE, mirrored)
    there = pair.destination.get_run(mirrored).data.tags
    assert there[tag.SOURCE_EXPERIMENT] == PATH
    assert there[tag.SOURCE_WORKSPACE] == pair.src
    before = snapshot(pair.dst, PATH)
    assert pair.mirror().output == "nothing to mirror\n"
    assert json.loads(pair.mirror("--include-unmarked", "--json").stdout)["counts"] == {"same": 4}
    assert snapshot(pair.dst, PATH) == before
    assert pair.mirror("verify").output == "4 runs compared, 0 differences\n"


def test_a_run_that_is_killed_half_way_goes_on_where_it_was(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = pair.run("half")
    points = [Metric(f"m{i % 3}", i / 7, i, i) for i in range(3000)]
    for first in range(0, 3000, 1000):
        pair.source.log_batch(run_id, points[first : first + 1000])
    write, calls = point.write, []

    def dies(*arguments: Any) -> None:
        calls.append(len(arguments[2]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(point, "write", dies)
    src, dst = pair.sides()
    with pytest.raises(KeyboardInterrupt):
        Copier(src, dst).mirror(src.run(run_id))
    assert pair.tags(run_id)[tag.STATE] == tag.PENDING
    monkeypatch.setattr(point, "write", write)
    # Its lease is of this process, which is alive: for another one it is as if it were not.
    pair.source.set_tag(run_id, tag.LEASE, leases.FREE)

    outcome = pair.outcomes()["half"]

    assert (outcome.state, outcome.points) == (tag.DONE, 3005 - calls[0])
    assert pair.are_equal()


def test_only_what_is_missing_is_written_and_found_by_one_tag(pair: Pair) -> None:
    marked = pair.run("marked")
    plain = pair.source.create_run(pair.experiment, run_name="plain").info.run_id
    pair.source.log_metric(plain, "m", 1.0)
    pair.source.set_terminated(plain)

    dry = pair.mirror("--dry-run", "--json")
    assert [one["run_id"] for one in json.loads(dry.stdout)["runs"]] == [marked]
    assert pair.mirrors(marked) == []
    assert tag.LEASE not in pair.tags(marked)
    assert pair.mirror().exit_code == 0
    assert pair.mirrors(plain) == []
    assert pair.mirror("--since", "1h", "--include-unmarked", "--experiment", PATH).exit_code == 0
    assert pair.are_equal()
    # What is logged after it was done, with nothing said: seen by --all from the search alone.
    pair.source.log_metric(marked, "late", 2.0)
    outcomes = json.loads(pair.mirror("--include-unmarked", "--json").stdout)
    assert outcomes["counts"] == {"done": 1, "same": 1}
    assert [one["points"] for one in outcomes["runs"] if one["state"] == "done"] == [1]
    assert pair.are_equal()
    assert (
        pair.mirror("--since", "2099-01-01", "--include-unmarked").output == "nothing to mirror\n"
    )
    assert pair.mirror("--since", "soon").exit_code == 2


def test_a_running_run_stays_pending_until_it_is_over_and_a_resumed_one_is_seen(
    pair: Pair,
) -> None:
    run = mlflow.start_run(run_name="long", tags={tag.STATE: tag.PENDING})
    mlflow.log_metric("m", 1.0, step=1)
    mlflow.log_text("later", "a.txt")
    assert pair.outcomes()["long"].state == "running"
    (target,) = pair.mirrors(run.info.run_id)
    assert pair.destination.get_run(target).info.status == "RUNNING"
    # Azure ML never changes an artifact, so a run that goes on keeps its own.
    assert pair.destination.list_artifacts(target) == []
    assert pair.outcomes()["long"].points == 0
    mlflow.log_metric("m", 2.0, step=2)
    mlflow.end_run()
    outcome = pair.outcomes()["long"]
    assert (outcome.state, outcome.points) == (tag.DONE, 1)
    assert pair.are_equal()

    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("m", 3.0, step=3)
        assert pair.outcomes()["long"].state == "running"
    assert pair.outcomes()["long"].state == tag.DONE
    assert pair.are_equal()


def test_a_killed_program_leaves_its_artifacts_too(pair: Pair) -> None:
    run = pair.source.create_run(pair.experiment, run_name="killed", tags={tag.STATE: tag.PENDING})
    pair.source.log_text(run.info.run_id, "a checkpoint", "a.txt")
    child = subprocess.Popen(["true"])
    child.wait()
    gone = leases.Lease(host=socket.gethostname(), pid=child.pid, nonce="x", until=time.time() + 50)
    pair.source.set_tag(run.info.run_id, tag.LEASE, str(gone))

    assert pair.outcomes()["killed"].state == "running"

    assert pair.are_equal()


def test_two_reconcilers_at_once_make_no_second_run(pair: Pair) -> None:
    for number in range(12):
        pair.run(f"run {number}")

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: pair.outcomes(wait_s=10), range(2)))

    states = {one.state for outcomes in both for one in outcomes.values()}
    assert states <= {tag.DONE, "same"}, both
    assert pair.are_equal()
    assert all(one.error is None for outcomes in both for one in outcomes.values())


def test_of_two_runs_that_were_made_at_once_one_stays(pair: Pair) -> None:
    run_id = pair.run("twice")
    there = pair.destination.get_experiment_by_name(PATH).experiment_id
    made = [
        pair.destination.create_run(
            there, start_time=pair.started(run_id), tags={tag.SOURCE_RUN: run_id}
        ).info.run_id
        for _ in range(3)
    ]

    assert pair.outcomes()["twice"].state == tag.DONE

    assert pair.mirrors(run_id) == [min(made)]
    assert pair.tags(run_id)["dbx_aml.mirror.aml.run_id"] == min(made)
    # What two programs made and one of them filled: the one that stays is filled as well.
    late = pair.run("late")
    src, dst = pair.sides()
    copier = Copier(src, dst)
    target = copier.targets.of(src.run(late))
    other = pair.destination.create_run(
        there, start_time=pair.started(late), tags={tag.SOURCE_RUN: late}
    ).info.run_id
    assert copier.mirror(src.run(late)).state == tag.DONE
    assert pair.mirrors(late) == [min(target.info.run_id, other)]
    assert pair.mirror("verify").exit_code == 0


def test_a_run_at_which_another_process_is_is_left_to_it_until_it_is_gone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = pair.run("held")
    with subprocess.Popen(["sleep", "60"]) as other:
        held = leases.Lease(
            host=socket.gethostname(), pid=other.pid, nonce="x", until=time.time() + 50
        )
        pair.source.set_tag(run_id, tag.LEASE, str(held))
        outcome = pair.outcomes()["held"]
        assert (outcome.state, outcome.reason) == ("held", f"{held.holder} is at it")
        assert pair.tags(run_id)[tag.LEASE] == str(held)
        assert pair.mirrors(run_id) == []
        other.kill()
    assert pair.outcomes()["held"].state == tag.DONE

    # Another machine whose clock is a day ahead, and which is gone.
    skewed = pair.run("skewed")
    far = leases.Lease(host="another", pid=1, nonce="x", until=time.time() + 86_400)
    pair.source.set_tag(skewed, tag.LEASE, str(far))
    monkeypatch.setattr(leases, "LEASE_S", 1.0)
    assert pair.outcomes()["skewed"].state == "held"
    assert pair.outcomes(wait_s=12)["skewed"].state == tag.DONE


def test_a_run_that_cannot_be_mirrored_says_why_and_stops_no_other(pair: Pair) -> None:
    bad, good = pair.run("bad"), pair.run("good")
    pair.outcomes()
    (target,) = pair.mirrors(bad)
    # Nothing changes a param, so nothing can be done about this one.
    store = Side(pair.dst, "aml").store
    there = pair.destination.create_run("0").info.run_id
    pair.destination.log_param(there, "alpha", "other")
    pair.destination.set_tag(there, tag.SOURCE_RUN, bad)
    store.delete_run(target)
    pair.source.set_tag(bad, "dbx_aml.mirror.aml.run_id", there)
    for run_id in (bad, good):
        pair.source.set_tag(run_id, tag.STATE, tag.PENDING)
        pair.source.log_metric(run_id, "more", 1.0)

    done = pair.mirror()

    assert done.exit_code == 1
    assert "1 done, 1 failed" in done.output
    assert "every run must be mirrored: 1 of 2 were not; the first one" in done.output
    tags = pair.tags(bad)
    assert tags[tag.STATE] == tag.FAILED
    assert "got other values for ['alpha']" in tags[tag.ERROR]
    assert pair.tags(good)[tag.STATE] == tag.DONE
    counts = json.loads(pair.mirror("status", "--json").stdout)
    assert [(one["experiment"], one["failed"], one["done"]) for one in counts] == [(PATH, 1, 1)]
    assert "got other values" in counts[0]["reasons"][0]
    # It is not tried again and again, but once it is asked for.
    assert pair.mirror().output == "nothing to mirror\n"
    assert pair.mirror("--run-id", bad).exit_code == 1


def test_verify_prints_each_difference_and_exits_1(pair: Pair) -> None:
    run_id = pair.run("differs")
    pair.outcomes()
    (target,) = pair.mirrors(run_id)
    pair.destination.log_metric(target, "loss", 99.0, 1, 1)
    pair.source.log_metric(run_id, "loss", 0.25, 7, 77)
    pair.source.log_metric(run_id, "new", 1.0, 1, 1)
    pair.source.log_text(run_id, "HELLO", "notes/a.txt")
    pair.source.set_tag(run_id, "team", "c")
    pair.source.log_param(run_id, "beta", "1")

    done = pair.mirror("verify", "--json")

    assert done.exit_code == 1
    assert "1 of 1 runs differ" in done.stderr
    found = {(one["what"], one["key"]): one for one in json.loads(done.stdout)["differences"]}
    assert set(found) == {
        ("metric", "loss"),
        ("metric", "new"),
        ("artifact", "notes/a.txt"),
        ("tag", "team"),
        ("param", "beta"),
    }
    assert found["metric", "loss"]["src"] == "6 points, with 0.25 at step 77"
    assert found["metric", "loss"]["dst"] == "6, 1 missing"
    assert (found["tag", "team"]["src"], found["tag", "team"]["dst"]) == ("c", "a b")
    shown = pair.mirror("verify").output
    assert "1 runs compared, 5 differences" in shown
    assert "6 points, with 0.25 at step 77" in shown


def test_a_deleted_and_a_renamed_run_are_handled_and_said(pair: Pair) -> None:
    gone, early, renamed = pair.run("gone"), pair.run("early"), pair.run("before")
    pair.source.delete_run(early)
    outcomes = pair.outcomes()
    assert outcomes["early"].state == "deleted"
    assert "before it was mirrored" in outcomes["early"].reason
    pair.source.delete_run(gone)
    pair.source.update_run(renamed, name="after")

    done = pair.mirror("--include-unmarked")

    assert done.exit_code == 0, done.output
    assert "2 deleted, 1 done" in done.output
    (target,) = pair.mirrors(gone)
    kept = pair.destination.get_run(target)
    assert kept.info.lifecycle_stage == "active"
    assert kept.data.tags[tag.SOURCE_STAGE] == "deleted"
    (target,) = pair.mirrors(renamed)
    assert pair.destination.get_run(target).info.run_name == "after"


def test_a_child_brings_its_parent_even_where_nobody_marked_that(pair: Pair) -> None:
    parent = pair.source.create_run(pair.experiment, run_name="parent").info.run_id
    pair.source.log_metric(parent, "m", 1.0)
    pair.source.set_terminated(parent)
    children = [pair.run(f"child {i}", **{tag.PARENT: parent}) for i in range(8)]
    orphan = pair.run("orphan", **{tag.PARENT: "0" * 32})

    assert {one.state for one in pair.outcomes().values()} == {tag.DONE}

    (target,) = pair.mirrors(parent)
    parents = [
        pair.destination.get_run(pair.mirrors(child)[0]).data.tags[tag.PARENT] for child in children
    ]
    assert parents == [target] * 8
    assert tag.PARENT not in pair.destination.get_run(pair.mirrors(orphan)[0]).data.tags
    pair.source.delete_run(orphan)
    pair.destination.delete_run(pair.mirrors(orphan)[0])
    assert pair.are_equal()


def test_status_counts_by_experiment_and_tells_the_oldest(pair: Pair) -> None:
    assert "no run of" in pair.mirror("status").output
    pair.run("one")
    pair.outcomes()
    two = pair.source.create_run(
        pair.experiment,
        start_time=int((time.time() - 3 * 86_400) * 1000),
        tags={tag.STATE: tag.PENDING},
    )
    (counts,) = json.loads(pair.mirror("status", "--json").stdout)
    assert (counts["pending"], counts["done"], counts["failed"]) == (1, 1, 0)
    assert 3 * 86_400 <= counts["oldest_pending_s"] < 3 * 86_400 + 600
    assert "3 d" in pair.mirror("status", "--experiment", PATH).output
    assert tag.LEASE not in pair.tags(two.info.run_id)


def test_wrong_input_is_one_line_and_changes_nothing(pair: Pair) -> None:
    run_id = pair.run("kept")
    for arguments, said in (
        (("--experiment", "/nope"), "experiment must exist in"),
        (("--run-id", "0" * 32), "run must exist in"),
        (("status", "--experiment", "/nope"), "experiment must exist in"),
        (("--destination-tracking-uri", pair.src), "source and destination must be two servers"),
        (("--source-tracking-uri", "http://127.0.0.1:9"), "MLflow server http://127.0.0.1:9 must"),
        (
            ("--destination-tracking-uri", "http://127.0.0.1:9"),
            "MLflow server http://127.0.0.1:9 must",
        ),
    ):
        done = pair.mirror(*arguments)
        assert done.exit_code == 1, arguments
        assert done.output.startswith(f"dbx-aml: {said}"), done.output
        assert done.output.count("\n") == 1, done.output
    assert CliRunner().invoke(main, ["mirror"]).exit_code == 1
    assert pair.mirror("--watch", "5", "--dry-run").exit_code == 2
    assert pair.tags(run_id)[tag.STATE] == tag.PENDING
    assert pair.mirrors(run_id) == []


def test_progress_tells_runs_points_and_bytes(pair: Pair) -> None:
    for number in range(3):
        pair.run(f"run {number}")
    seen: list[tuple[int, ...]] = []

    def report(now: Progress) -> None:
        seen.append((now.runs, now.done, now.points, now.bytes))

    src, dst = pair.sides()
    list(reconcile(src, dst, queue.pending(src, [pair.experiment]), report=report))

    assert seen[-1] == (3, 3, 15, 15)
    assert seen == sorted(seen)


@pytest.mark.parametrize("lost", [1, 4], ids=["in between", "the last one"])
@pytest.mark.parametrize("by_place", [True, False])
def test_a_point_that_the_destination_does_not_keep_is_found_and_said(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, lost: int, by_place: bool
) -> None:
    run_id = pair.run("lossy")
    write = point.write

    def lossy(side: Side, run_id: str, points: Any) -> None:
        write(side, run_id, [one for i, one in enumerate(points) if i != lost])

    monkeypatch.setattr(point, "write", lossy)
    monkeypatch.setattr(point, "_WAITS_S", ())
    if not by_place:
        monkeypatch.setattr(point, "_token", lambda place: f"another server's {place}")

    outcome = pair.outcomes()["lossy"]

    assert outcome.state == tag.FAILED
    assert outcome.reason == "metric 'loss' must have the source's 5 points: got 4"
    assert pair.tags(run_id)[tag.STATE] == tag.FAILED
    monkeypatch.setattr(point, "write", write)
    pair.mirror("--include-unmarked")
    assert pair.tags(run_id)[tag.STATE] == tag.DONE
    assert pair.are_equal()


def test_what_was_written_is_counted_without_being_read_where_the_server_allows_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        pair.run(f"run {number}")
    asked: list[int] = []
    pages = point.pages

    def counted(side: Side, *arguments: Any, **more: Any) -> Any:
        for page, token in pages(side, *arguments, **more):
            if side.name == "aml":
                asked.append(len(page))
            yield page, token

    monkeypatch.setattr(point, "pages", counted)
    assert {one.state for one in pair.outcomes().values()} == {tag.DONE}
    assert sum(asked) <= 6, asked
    assert pair.are_equal()


def test_points_are_the_same_from_every_server() -> None:
    assert point.packed((float("nan"), 1, 1)) == point.packed((-float("nan"), 1, 1))
    assert point.packed((float("inf"), 1, 1)) == point.packed((sys.float_info.max, 1, 1))
    assert point.packed((-float("inf"), 1, 1)) == point.packed((-sys.float_info.max, 1, 1))
    assert point.packed((-0.0, 1, 1)) == point.packed((0.0, 1, 1))
    assert point.packed((1.0, 1, 1)) != point.packed((1.0, 1, 2))
    one, other = point.Points(), point.Points()
    for step in range(10):
        assert one.add((0.1, step, step))
        other.add((0.1, 9 - step, 9 - step))
    assert not one.add((0.1, 3, 3))
    assert one.series == other.series
    other.add((0.1, 10, 10))
    assert one.series != other.series


def test_in_mode_dual_each_run_is_marked_when_it_is_made_and_mirrored_while_it_goes_on(
    pair: Pair,
) -> None:
    uris = {"databricks_tracking_uri": pair.src, "aml_tracking_uri": pair.dst}
    with connect(mode="dual", **uris):
        mlflow.set_experiment(PATH)
        with mlflow.start_run(run_name="first") as run:
            # In what the server answered to the request that made it.
            assert run.data.tags[tag.STATE] == tag.PENDING
            mlflow.log_metric("m", 1.0, step=1)
            mlflow.log_text("x", "a.txt")
            assert wait_for(lambda: pair.mirrors(run.info.run_id))
            (target,) = pair.mirrors(run.info.run_id)
            mlflow.log_metric("m", 2.0, step=2)
            mlflow.log_param("late", 1)
            assert wait_for(lambda: pair.destination.get_run(target).data.params)
            assert pair.destination.get_run(target).data.metrics == {"m": 2.0}
            assert pair.destination.get_run(target).info.status == "RUNNING"
            # A reconciler elsewhere leaves it alone.
            assert pair.outcomes()["first"].state in ("held", "running")
        # Many short ones, which are over before anybody looks.
        for number in range(10):
            with mlflow.start_run(run_name=f"short {number}"):
                mlflow.log_metric("m", number)
        assert wait_for(lambda: not list(queue.pending(pair.sides()[0], [pair.experiment])))
        assert pair.are_equal()
        with mlflow.start_run(run_id=run.info.run_id):
            mlflow.log_metric("m", 3.0, step=3)
            assert wait_for(lambda: pair.tags(run.info.run_id)[tag.STATE] == tag.PENDING)
        assert wait_for(lambda: pair.tags(run.info.run_id)[tag.STATE] == tag.DONE)
        assert pair.are_equal()
        assert os.environ["DBX_AML_MODE"] == "dual"
    assert "DBX_AML_MODE" not in os.environ


@pytest.mark.parametrize("mode", ["databricks", "aml", None])
def test_in_another_mode_nothing_is_marked_and_no_thread_is_started(
    pair: Pair, mode: str | None
) -> None:
    uris = {"databricks_tracking_uri": pair.src, "aml_tracking_uri": pair.src}
    with connect(mode=mode, **uris) if mode else nullcontext():
        mlflow.set_experiment(PATH)
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 1.0)
    assert not [key for key in run.data.tags if key.startswith("dbx_aml.")]
    assert run_context._live is None


def test_a_run_on_another_server_than_the_link_says_is_not_marked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBX_AML_MODE", "dual")
    monkeypatch.setenv("DBX_AML_AML_TRACKING_URI", pair.dst)
    monkeypatch.setenv("DBX_AML_DATABRICKS_TRACKING_URI", pair.src)
    assert run_context.MirrorTagProvider().in_context()
    mlflow.set_tracking_uri(pair.dst)
    assert not run_context.MirrorTagProvider().in_context()
    # Nobody says what is the other side: marked for whoever knows.
    monkeypatch.delenv("DBX_AML_AML_TRACKING_URI")
    monkeypatch.delenv("DBX_AML_DATABRICKS_TRACKING_URI")
    mlflow.set_tracking_uri("databricks")
    assert run_context.MirrorTagProvider().tags() == {tag.STATE: tag.PENDING}
    assert run_context.MirrorTagProvider().in_context()


def test_a_forked_child_has_no_thread_and_leaves_its_parents_runs_alone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(mode="dual", databricks_tracking_uri=pair.src, aml_tracking_uri=pair.dst):
        mlflow.set_experiment(PATH)
        with mlflow.start_run() as run:
            live = run_context._live
            assert live is not None
            assert live.is_on
            process = live.process
            child = os.fork()
            if child == 0:
                is_new = not live.is_on and live.process != process
                os._exit(0 if is_new and live._foreign == {run.info.run_id} else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert live.is_on
            assert live.process == process
