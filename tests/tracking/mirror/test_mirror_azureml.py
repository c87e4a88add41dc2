"""Track in both: unmodified programs in Databricks, their runs in Azure ML, whatever happens."""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from tests.support.azureml import AzureMl
from tests.support.azureml.backend import Backend
from tests.support.mirror import assert_soon, databricks_environment

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

_MIRROR = "import sys; from dbx_aml.cli.main import main; main(['mirror', *sys.argv[2:]])"
# Whoever started the tests in the background has switched that off for all that they start.
_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
_SNAPSHOTS = """
import json, sys
from tests.support.mirror import experiment_content
uris = ("databricks", sys.argv[1])
print("FOUND:" + json.dumps([experiment_content(uri, sys.argv[2]) for uri in uris]))
"""
_PRELUDE = """
import json, os, sys, time
import mlflow
from mlflow import MlflowClient
mlflow.set_experiment(sys.argv[2])
"""


class Both:
    """An MLflow server that MLflow takes for Databricks, and the stand-in of Azure ML.

    Args:
        backend: The server.
        azureml: The stand-in.
    """

    def __init__(self, backend: Backend, azureml: AzureMl) -> None:
        self.azureml = azureml
        self.uri = f"http://127.0.0.1:{backend.port}"
        self.client = MlflowClient(self.uri)
        self.timeout_s = 120.0
        self.environment = {
            **databricks_environment(backend.port),
            "DBX_AML_MODE": "dual",
            "DBX_AML_AML_TRACKING_URI": azureml.tracking_uri,
            "DBX_AML_RETRY_TIMEOUT_S": "5",
        }

    def start(self, code: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        environment = {**self.environment, **more}
        return self.azureml.start(code, *arguments, environment=environment)

    def run(self, code: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **more}
        done = self.azureml.run(code, *arguments, timeout_s=self.timeout_s, environment=environment)
        assert done.returncode == 0, done.stderr
        return done

    def train(self, path: str, code: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program that knows nothing of Azure ML; its experiment is set."""
        return self.run(_PRELUDE + dedent(code), path, **more)

    def mirror(self, *arguments: str) -> dict[str, Any]:
        """Mirror, and return the counts of what became of the runs."""
        done = self.run(_MIRROR, *arguments, "--json")
        counts: dict[str, Any] = json.loads(done.stdout)["counts"]
        return counts

    def fails(self, *arguments: str) -> str:
        """Return the line that the command says when it fails."""
        done = self.azureml.run(_MIRROR, *arguments, environment=self.environment)
        assert done.returncode == 1, done.stdout
        return done.stderr

    def snapshots(self, path: str) -> list[dict[str, Any]]:
        """Return what both sides have of an experiment."""
        found: list[dict[str, Any]] = json.loads(
            self.run(_SNAPSHOTS, path).stdout.rpartition("FOUND:")[2]
        )
        return found

    def are_equal(self, path: str, count: int) -> bool:
        source, destination = self.snapshots(path)
        assert len(source) == count
        assert unlike(source, destination) == []
        return True

    def states(self, path: str) -> dict[str, str]:
        experiment = self.client.get_experiment_by_name(path)
        runs = self.client.search_runs([experiment.experiment_id])
        return {run.info.run_name: run.data.tags.get("dbx_aml.mirror", "") for run in runs}

    def fill(self, path: str, runs: int, *, points: int = 300, files: int = 2) -> None:
        """Make runs at the source that are over and marked, the first one the others' parent."""
        experiment = self.client.create_experiment(path)
        parent: dict[str, str] = {}
        for number in range(runs):
            made = self.client.create_run(
                experiment, run_name=f"run {number}", tags={"dbx_aml.mirror": "pending", **parent}
            )
            run_id = made.info.run_id
            parent = parent or {"mlflow.parentRunId": run_id}
            metrics = [Metric(f"größe {i % 3}", i / 7, 1000 + i, i) for i in range(points)]
            for first in range(0, points, 1000):
                self.client.log_batch(run_id, metrics[first : first + 1000])
            self.client.log_batch(run_id, params=[Param("alpha", str(number))])
            for file in range(files):
                self.client.log_text(run_id, f"{number} {file}\n" * 1000, f"größe/ü {file}.txt")
            self.client.set_terminated(run_id)


def unlike(source: dict[str, Any], destination: dict[str, Any]) -> list[Any]:
    """Return what two snapshots do not have alike, field by field."""
    assert set(source) == set(destination)
    return [
        (name, field, sorted(map(str, _items(mine) ^ _items(yours))))
        for name in source
        for field, mine in source[name].items()
        if (yours := destination[name][field]) != mine
    ]


def _items(value: Any) -> set[str]:
    return set(map(str, value.items() if isinstance(value, dict) else [value]))


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The server that stands for Databricks; it starts while the stand-in of Azure ML does."""
    yield Backend(tmp_path_factory.mktemp("databricks"))


@pytest.fixture
def both(primary: Backend, azureml: AzureMl) -> Both:
    primary.wait()
    return Both(primary, azureml)


def test_an_ordinary_program_is_seen_while_it_runs_and_whole_when_it_has_ended(
    both: Both,
) -> None:
    path = "/Users/ana@contoso.com/live/größe"
    done = both.train(
        path,
        """
        import numpy as np
        with mlflow.start_run(run_name="live") as run:
            mlflow.log_params({f"p{i}": "x" * 600 if i == 7 else i for i in range(300)})
            for step in range(50):
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
            # Only the test looks there.
            aml, seen, started = MlflowClient(sys.argv[1]), {}, time.monotonic()
            while seen.get("loss") != 1 / 50 and time.monotonic() - started < 30:
                time.sleep(0.2)
                there = aml.get_experiment_by_name(sys.argv[2])
                runs = aml.search_runs([there.experiment_id]) if there else []
                seen = runs[0].data.metrics if runs else {}
            print("SEEN", time.monotonic() - started, runs[0].info.status)
            mlflow.log_input(mlflow.data.from_numpy(np.arange(3), name="zahlen"), "training")
            mlflow.log_text("hello", "a/b.txt")
            for number in range(3):
                with mlflow.start_run(run_name=f"child {number}", nested=True):
                    mlflow.log_metric("m", number)
            class Twice(mlflow.pyfunc.PythonModel):
                def predict(self, context, model_input, params=None):
                    return model_input * 2
            mlflow.pyfunc.log_model(name="twice", python_model=Twice(), pip_requirements=[])
        # The program goes on for a while, as a notebook does.
        started = time.monotonic()
        while time.monotonic() - started < 60 and MlflowClient().search_runs(
            [run.info.experiment_id], "tags.`dbx_aml.mirror` = 'pending'"
        ):
            time.sleep(1)
        """,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SEEN")]
    _, seconds, status = line.split()

    assert float(seconds) < 10
    assert status == "RUNNING"
    # Nobody has called the command yet.
    assert both.states(path) == dict.fromkeys(["live", "child 0", "child 1", "child 2"], "done")
    assert both.are_equal(path, 4)
    assert both.mirror() == {}


def test_an_outage_neither_stops_nor_slows_a_program_and_nothing_is_lost(both: Both) -> None:
    path = "/Users/ana@contoso.com/outage"
    both.azureml.fault("status", status=503)
    done = both.train(
        path,
        """
        with mlflow.start_run(run_name="outage"):
            times = []
            for step in range(100):
                started = time.monotonic()
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
                times.append(time.monotonic() - started)
            time.sleep(8)
            mlflow.log_text("hello", "a.txt")
        print(json.dumps([sorted(times)[-5], time.time()]))
        """,
    )
    ended = time.time()
    slow, left = json.loads(done.stdout.splitlines()[-1])

    assert slow < 1
    assert ended - left < 15
    assert "runs are tracked, but not mirrored for now" in done.stderr
    assert done.stderr.count("runs are tracked") == 1
    assert both.states(path) == {"outage": "pending"}
    # Neither in the command: it says so, once, within the bound, and the run stays pending.
    assert "503" in both.fails()
    both.azureml.reset()
    assert both.mirror() == {"done": 1}
    assert both.are_equal(path, 1)


def test_killed_programs_and_their_children_lose_nothing(both: Both) -> None:
    path = "/Users/ana@contoso.com/killed"
    left = both.train(
        path,
        """
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context
        import joblib
        from joblib.externals.loky import get_reusable_executor
        def child(name):
            with mlflow.start_run(run_name=name, nested=True):
                mlflow.log_metric("m", len(name))
            return os.getpid()
        with mlflow.start_run(run_name="parent"):
            mlflow.log_metric("m", 1)
            with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
                list(pool.map(child, ["forked 1", "forked 22"]))
            joblib.Parallel(2)(joblib.delayed(child)(name) for name in ["loky 1", "loky 22"])
            # They would keep this program's output open after it has gone.
            get_reusable_executor().shutdown(wait=True)
            time.sleep(3)
        mlflow.start_run(run_name="left")
        mlflow.log_metric("m", 2)
        mlflow.log_text("a checkpoint", "a.txt")
        sys.stdout.flush()
        os._exit(0)
        """,
    )
    assert "Traceback" not in left.stderr
    program = """
    mlflow.start_run(run_name="sigkill")
    mlflow.log_text("a checkpoint", "a.txt")
    print("ready", flush=True)
    for step in range(100000):
        mlflow.log_metric("m", step, step=step)
    """
    with both.start(_PRELUDE + dedent(program), path) as killed:
        assert killed.stdout
        killed.stdout.readline()
        time.sleep(4 * random.random())
        killed.send_signal(signal.SIGKILL)
    names = {"parent", "forked 1", "forked 22", "loky 1", "loky 22", "left", "sigkill"}
    states = both.states(path)
    assert set(states) == names
    assert set(states.values()) <= {"pending", "done"}

    counts = both.mirror()

    # They say RUNNING for ever; what they had logged is there, artifacts too.
    assert counts["running"] == 2
    source, destination = both.snapshots(path)
    for name in ("left", "sigkill"):
        assert source[name]["artifacts"], name
    assert unlike(source, destination) == []


def test_an_autologged_sweep_of_fifty_children_hangs_together_on_both_sides(both: Both) -> None:
    path = "/Users/ana@contoso.com/sweep"
    done = both.train(
        path,
        """
        from sklearn.datasets import load_iris
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV
        mlflow.sklearn.autolog(max_tuning_runs=None)
        X, y = load_iris(return_X_y=True, as_frame=True)
        grid = {"C": [2.0 ** i for i in range(25)], "fit_intercept": [True, False]}
        GridSearchCV(LogisticRegression(max_iter=5), grid, cv=2).fit(X, y)
        """,
    )
    assert "Traceback" not in done.stderr

    counts = both.mirror("--experiment", path)

    assert set(counts) <= {"done"}, counts
    assert both.are_equal(path, 51)
    source, destination = both.snapshots(path)
    parents = [run["parent"] for run in destination.values()]
    (sweep,) = {parent for parent in parents if parent}
    assert parents.count(sweep) == 50
    assert {"best_estimator", "model"} <= set(destination[sweep]["models"]), source[sweep]["models"]
    assert destination[sweep]["params"]["best_C"]
    assert both.mirror("--experiment", path, "--include-unmarked") == {"up_to_date": 51}


def test_two_notebooks_on_one_cluster_share_an_experiment_and_mix_up_nothing(both: Both) -> None:
    path = "/Users/ana@contoso.com/two"
    program = _PRELUDE + dedent(
        """
        for number in range(5):
            with mlflow.start_run(run_name=f"{sys.argv[3]} {number}"):
                for step in range(20):
                    mlflow.log_metric("loss", number + step / 7, step=step)
                mlflow.log_text(sys.argv[3], "who.txt")
                time.sleep(1)
        """
    )
    both.client.create_experiment(path)
    notebooks = [both.start(program, path, name) for name in ("ana", "ben")]
    # And the scheduled job, at the same time.
    both.mirror("--experiment", path)
    for notebook in notebooks:
        _, said = notebook.communicate(timeout=120)
        assert notebook.returncode == 0, said
        assert "Traceback" not in said

    both.mirror("--experiment", path)

    assert both.are_equal(path, 10)
    assert set(both.states(path).values()) == {"done"}
    _, destination = both.snapshots(path)
    assert destination["ana 3"]["artifacts"].keys() == {"who.txt"}
    assert destination["ana 3"]["artifacts"] != destination["ben 3"]["artifacts"]


def test_watch_goes_on_through_an_outage_until_it_is_stopped(both: Both) -> None:
    path = "/Users/ana@contoso.com/watch"
    both.fill(path, 1)
    with both.start(_CTRL_C + _MIRROR, "--experiment", path, "--watch", "1") as watching:
        try:
            assert_soon(lambda: set(both.states(path).values()) == {"done"}, 60)
            both.azureml.fault("status", status=503)
            both.fill(f"{path} again", 1)
            made = both.client.create_run(
                both.client.get_experiment_by_name(path).experiment_id,
                run_name="later",
                tags={"dbx_aml.mirror": "pending"},
            )
            both.client.log_metric(made.info.run_id, "m", 1.0)
            both.client.set_terminated(made.info.run_id)
            time.sleep(8)
            assert both.states(path)["later"] == "pending"
            both.azureml.reset()
            assert_soon(lambda: both.states(path)["later"] == "done", 60)
            assert watching.poll() is None
        finally:
            watching.send_signal(signal.SIGINT)
            _, said = watching.communicate(timeout=30)
    assert "Traceback" not in said
    assert "503" in said
    assert both.are_equal(path, 2)
    assert both.states(f"{path} again") == {"run 0": "pending"}


def test_on_a_terminal_a_bar_tells_runs_points_bytes_and_time_left(both: Both) -> None:
    path = "/Users/ana@contoso.com/bar"
    both.fill(path, 6, points=3000)
    terminal, end = os.openpty()
    environment = {**both.environment, "TERM": "xterm", "COLUMNS": "120"}
    with both.azureml.start(
        _MIRROR, "--experiment", path, environment=environment, terminal=end
    ) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            shown += part
        assert process.wait(30) == 0
    os.close(terminal)
    text = shown.decode()
    assert "6/6" in text
    assert "18,000 points" in text
    assert re.search(r"[\d.]+ kB", text)
    assert re.search(r"\d:\d\d:\d\d", text)


def _kill_at_random_moments(both: Both, path: str, moments: int, runs: int) -> None:
    both.fill(path, runs)
    for _ in range(moments):
        with both.start(_MIRROR, "--experiment", path) as process:
            both.azureml.reset()
            # From the first call on: imports take seconds, and are nothing to kill.
            deadline = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < deadline:
                if both.azureml.requests(path="runs"):
                    break
                time.sleep(0.02)
            time.sleep(random.random() * 1.5)
            process.send_signal(signal.SIGKILL)
            process.communicate()
    both.azureml.reset()
    counts = both.mirror("--experiment", path)
    assert set(counts) <= {"done"}, counts
    assert both.are_equal(path, runs)
    assert set(both.states(path).values()) == {"done"}


def test_a_reconciler_killed_at_three_moments_ends_with_both_sides_equal(both: Both) -> None:
    _kill_at_random_moments(both, "/Users/ana@contoso.com/kills", 3, 8)


@pytest.mark.timeout(1800)
def test_a_reconciler_killed_at_many_moments_ends_with_both_sides_equal(
    both: Both, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--chaos"):
        pytest.skip("the long version; ask with --chaos")
    _kill_at_random_moments(both, "/Users/ana@contoso.com/many kills", 20, 80)


def test_throttling_lost_answers_and_short_tokens_are_met(both: Both) -> None:
    path = "/Users/ana@contoso.com/faults"
    both.fill(path, 5)
    both.azureml.token_lifetime(4)
    both.azureml.fault("lost-answer", path="runs/create", skip=1, count=2)
    both.azureml.fault("lost-answer", path="experiments/create", count=1)
    both.azureml.fault("lost-answer", path="runs/log-batch", skip=3, count=3)
    both.azureml.fault("lost-answer", path="batch/metadata", skip=1, count=1)
    both.azureml.fault("lost-answer", host="blob", method="PUT", skip=2, count=1)
    both.azureml.fault("status", status=429, retry_after_s=1, path="runs/(search|update)", count=6)

    assert both.mirror("--experiment", path) == {"done": 5}

    both.azureml.reset()
    assert both.are_equal(path, 5)
    verified = both.run(_MIRROR, "verify", "--experiment", path)
    assert verified.stdout == "5 runs compared, 0 differences\n"


def test_a_destination_without_permission_is_one_line_and_changes_nothing(both: Both) -> None:
    path = "/Users/ana@contoso.com/denied"
    both.fill(path, 3)
    both.azureml.deny("Microsoft.MachineLearningServices/workspaces/experiments/*write")

    said = both.fails("--experiment", path)

    assert said.startswith("dbx-aml: both services must let the caller mirror: got "), said
    assert said.count("\n") == 1, said
    assert set(both.states(path).values()) == {"pending"}
    both.azureml.deny("*")
    assert "caller must be allowed to use workspace" in both.fails("--experiment", path)
    both.azureml.reset()
    assert both.mirror("--experiment", path) == {"done": 3}


def test_runs_of_azure_ml_go_the_other_way_with_the_sides_exchanged(both: Both) -> None:
    path = "/Users/ana@contoso.com/back"
    done = both.run(
        _PRELUDE
        + dedent(
            """
            with mlflow.start_run(run_name="parent"):
                mlflow.log_params({f"p{i}": "x" * 600 if i == 7 else i for i in range(210)})
                for step in range(20):
                    mlflow.log_metric("loss", step / 7, step=step)
                mlflow.log_text("hello", "a/b.txt")
                class Twice(mlflow.pyfunc.PythonModel):
                    def predict(self, context, model_input, params=None):
                        return model_input * 2
                mlflow.pyfunc.log_model(name="twice", python_model=Twice(), pip_requirements=[])
                with mlflow.start_run(run_name="child", nested=True):
                    mlflow.log_metric("m", 1)
            """
        ),
        path,
        DBX_AML_MODE="aml",
        MLFLOW_TRACKING_URI=both.azureml.tracking_uri,
    )
    assert "Traceback" not in done.stderr
    both.environment["DBX_AML_MODE"] = "aml"

    assert both.mirror("--experiment", path, "--include-unmarked") == {"done": 2}

    databricks, aml = both.snapshots(path)
    for name in ("parent", "child"):
        # Databricks sets that itself.
        aml[name]["tags"].pop("mlflow.user")
        databricks[name]["tags"].pop("mlflow.user", None)
    assert unlike(aml, databricks) == []
    assert both.mirror("--experiment", path, "--include-unmarked") == {"up_to_date": 2}


@pytest.mark.timeout(1800)
def test_a_large_artifact_and_many_points_never_are_in_memory(
    both: Both, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = "/Users/ana@contoso.com/large"
    is_long = request.config.getoption("--chaos")
    both.timeout_s = 1200 if is_long else 120
    both.fill(path, 1, points=1_000_000 if is_long else 20_000, files=0)
    experiment = both.client.get_experiment_by_name(path)
    (run,) = both.client.search_runs([experiment.experiment_id])
    large = tmp_path / "large.bin"
    with large.open("wb") as stream:
        for _ in range(1024 if is_long else 300):
            stream.write(os.urandom(2**20))
    both.client.log_artifact(run.info.run_id, str(large))
    code = """
import resource, sys
from dbx_aml.cli.main import main
import mlflow, azure.storage.blob
import dbx_aml.tracking.azureml.artifact_repository
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    main(["mirror", *sys.argv[2:]])
finally:
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("GROWN", (after - before) / 1024)
"""
    done = both.run(code, "--experiment", path)

    assert float(done.stdout.split()[-1]) < 200
    assert both.are_equal(path, 1)
