"""Track in both: unmodified programs in Databricks, their runs in Azure ML, through any failure."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from dbx_aml.cli.main import main
from tests.support.azureml import AzureMl
from tests.support.azureml.backend import Backend
from tests.support.mirror import assert_soon, databricks_environment, experiment_content

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

_MIRROR = "import sys; from dbx_aml.cli.main import main; main(['mirror', *sys.argv[2:]])"
# A shell that starts the tests in the background makes all their processes ignore Ctrl-C.
_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
_PRELUDE = """
import json, os, sys, time
import mlflow
from mlflow import MlflowClient
mlflow.set_experiment(sys.argv[2])
"""


class DualServers:
    """An MLflow server in the place of Databricks, and the stand-in of Azure ML.

    Args:
        backend: MLflow server.
        azureml: Stand-in of Azure ML.
    """

    def __init__(self, backend: Backend, azureml: AzureMl) -> None:
        self.azureml = azureml
        self.source = MlflowClient(f"http://127.0.0.1:{backend.port}")
        self.variables = {
            **databricks_environment(backend.port),
            "DBX_AML_MODE": "dual",
            "DBX_AML_AML_TRACKING_URI": azureml.tracking_uri,
            "DBX_AML_RETRY_TIMEOUT_S": "5",
        }

    def start(self, code: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start Python code in a new process."""
        return self.azureml.start(code, *arguments, environment={**self.variables, **variables})

    def train(self, path: str, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a training program to its end; the program does not import this package."""
        environment = {**self.variables, **variables}
        finished = self.azureml.run(_PRELUDE + dedent(code), path, environment=environment)
        assert finished.returncode == 0, finished.stderr
        assert "Traceback" not in finished.stderr
        return finished

    def invoke(self, *arguments: str) -> Result:
        """Call `dbx-aml mirror` in this process."""
        return CliRunner().invoke(main, ["mirror", *arguments])

    def mirror(self, *arguments: str) -> dict[str, Any]:
        """Mirror; return the number of runs by status, without those that did not change."""
        result = self.invoke(*arguments, "--json")
        assert result.exit_code == 0, result.output
        counts: dict[str, Any] = json.loads(result.stdout)["counts"]
        return {status: count for status, count in counts.items() if status != "unchanged"}

    def contents(self, path: str) -> list[dict[str, Any]]:
        """Return the content of an experiment at the source and at the destination."""
        return [experiment_content(uri, path) for uri in ("databricks", self.azureml.tracking_uri)]

    def assert_equal(self, path: str, runs: int) -> None:
        """Assert that source and destination have the same runs of an experiment."""
        source, destination = self.contents(path)
        assert len(source) == runs
        assert differences(source, destination) == []

    def statuses(self, path: str) -> dict[str, str]:
        """Return the status tag of each source run by the run's name."""
        experiment = self.source.get_experiment_by_name(path)
        runs = self.source.search_runs([experiment.experiment_id])
        return {run.info.run_name: run.data.tags.get("dbx_aml.mirror", "") for run in runs}

    def create_runs(
        self, path: str, count: int, *, metric_points: int = 300, files: int = 2
    ) -> None:
        """Create pending source runs that have ended; the first run is the parent of the rest."""
        experiment_id = self.source.create_experiment(path)
        parent: dict[str, str] = {}
        for number in range(count):
            run_tags = {"dbx_aml.mirror": "pending", **parent}
            run = self.source.create_run(experiment_id, run_name=f"run {number}", tags=run_tags)
            run_id = run.info.run_id
            parent = parent or {"mlflow.parentRunId": run_id}
            metrics = [Metric(f"größe {i % 3}", i / 7, 1000 + i, i) for i in range(metric_points)]
            for first in range(0, metric_points, 1000):
                self.source.log_batch(run_id, metrics[first : first + 1000])
            self.source.log_batch(run_id, params=[Param("alpha", str(number))])
            for file in range(files):
                self.source.log_text(run_id, f"{number} {file}\n" * 1000, f"größe/ü {file}.txt")
            self.source.set_terminated(run_id)


def differences(source: dict[str, Any], destination: dict[str, Any]) -> list[Any]:
    """Return the differences between two contents, field by field."""
    assert set(source) == set(destination)
    return [
        (name, field, sorted(map(str, _as_set(value) ^ _as_set(destination[name][field]))))
        for name in source
        for field, value in source[name].items()
        if destination[name][field] != value
    ]


def _as_set(value: Any) -> set[str]:
    return set(map(str, value.items() if isinstance(value, dict) else [value]))


@pytest.fixture(scope="module")
def mlflow_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The MLflow server in the place of Databricks; it starts while Azure ML's stand-in does."""
    yield Backend(tmp_path_factory.mktemp("databricks"))


@pytest.fixture
def servers(
    mlflow_backend: Backend, azureml: AzureMl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> DualServers:
    mlflow_backend.wait()
    servers = DualServers(mlflow_backend, azureml)
    for name, value in {**azureml.environment(), **servers.variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return servers


def test_an_ordinary_program_is_mirrored_while_it_runs_and_whole_after_its_end(
    servers: DualServers,
) -> None:
    path = "/Users/ana@contoso.com/live/größe"
    finished = servers.train(
        path,
        """
        import numpy as np
        with mlflow.start_run(run_name="live") as run:
            mlflow.log_params({f"p{i}": "x" * 600 if i == 7 else i for i in range(300)})
            for step in range(50):
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
            # Only the test reads from Azure ML.
            aml, metrics, started = MlflowClient(sys.argv[1]), {}, time.monotonic()
            while metrics.get("loss") != 1 / 50 and time.monotonic() - started < 30:
                time.sleep(0.2)
                experiment = aml.get_experiment_by_name(sys.argv[2])
                runs = aml.search_runs([experiment.experiment_id]) if experiment else []
                metrics = runs[0].data.metrics if runs else {}
            print("MIRRORED", time.monotonic() - started, runs[0].info.status)
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
            time.sleep(0.2)
        """,
    )
    (line,) = [line for line in finished.stdout.splitlines() if line.startswith("MIRRORED")]
    _, seconds, status = line.split()

    assert float(seconds) < 30
    assert status == "RUNNING"
    names = ["live", "child 0", "child 1", "child 2"]
    assert servers.statuses(path) == dict.fromkeys(names, "done")
    servers.assert_equal(path, 4)
    assert servers.mirror("--experiment", path) == {}


def test_an_outage_neither_stops_nor_slows_a_program_and_nothing_is_lost(
    servers: DualServers,
) -> None:
    path = "/Users/ana@contoso.com/outage"
    servers.azureml.fault("status", status=503)
    finished = servers.train(
        path,
        """
        import logging, threading
        warned = threading.Event()
        class WarningHandler(logging.Handler):
            def emit(self, record):
                warned.set()
        logging.getLogger("dbx_aml.tracking.mirror.live_mirror").addHandler(WarningHandler())
        with mlflow.start_run(run_name="outage"):
            times = []
            for step in range(100):
                started = time.monotonic()
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
                times.append(time.monotonic() - started)
            assert warned.wait(60)
            mlflow.log_text("hello", "a.txt")
        print(json.dumps(sorted(times)[-5]))
        ended = time.monotonic()
        import atexit
        from dbx_aml.tracking import run_context
        run_context._stop_at_exit()
        assert time.monotonic() - ended < 30
        """,
        DBX_AML_RETRY_TIMEOUT_S="1",
    )
    slow_call_s = json.loads(finished.stdout.splitlines()[-1])

    assert slow_call_s < 1
    assert finished.stderr.count("runs are tracked, but not mirrored for now") <= 1
    assert servers.statuses(path) == {"outage": "pending"}
    # The command fails with one line, and the run stays pending.
    failed = servers.invoke()
    assert failed.exit_code == 1
    assert "503" in failed.stderr
    assert failed.output.count("\n") == 1
    servers.azureml.reset()
    assert servers.mirror("--experiment", path) == {"done": 1}
    servers.assert_equal(path, 1)


def test_killed_programs_and_their_children_lose_nothing(servers: DualServers) -> None:
    path = "/Users/ana@contoso.com/killed"
    servers.train(
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
            joblib.Parallel(2)([joblib.delayed(child)("loky 1")])
            # Its processes would keep this program's output open.
            get_reusable_executor().shutdown(wait=True)
        mlflow.start_run(run_name="exit")
        mlflow.log_metric("m", 2)
        mlflow.log_text("a checkpoint", "a.txt")
        sys.stdout.flush()
        os._exit(0)
        """,
    )
    servers.azureml.reset()
    program = """
    mlflow.start_run(run_name="sigkill")
    mlflow.log_text("a checkpoint", "a.txt")
    for step in range(100000):
        mlflow.log_metric("m", step, step=step)
    """
    with servers.start(_PRELUDE + dedent(program), path) as killed:
        # The live mirror is writing the first points.
        servers.azureml.wait_for(path="runs/log-batch")
        killed.send_signal(signal.SIGKILL)
    names = {"parent", "forked 1", "forked 22", "loky 1", "exit", "sigkill"}
    statuses = servers.statuses(path)
    assert set(statuses) == names
    assert set(statuses.values()) <= {"pending", "done"}

    counts = servers.mirror()

    # Killed runs keep the status RUNNING; everything that they logged is mirrored.
    assert counts["running"] == 2
    source, destination = servers.contents(path)
    for name in ("exit", "sigkill"):
        assert source[name]["artifacts"], name
    assert differences(source, destination) == []


def test_the_runs_of_an_autologged_sweep_hang_together_at_the_destination(
    servers: DualServers,
) -> None:
    path = "/Users/ana@contoso.com/sweep"
    servers.train(
        path,
        """
        from sklearn.datasets import load_iris
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV
        mlflow.sklearn.autolog(max_tuning_runs=None)
        X, y = load_iris(return_X_y=True, as_frame=True)
        grid = {"C": [1.0, 2.0], "fit_intercept": [True, False]}
        GridSearchCV(LogisticRegression(max_iter=5), grid, cv=2).fit(X, y)
        """,
        # Else MLflow loads each model in a process of its own, to find its packages.
        MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT="1",
    )

    counts = servers.mirror("--experiment", path)

    assert set(counts) <= {"done"}, counts
    servers.assert_equal(path, 5)
    source, destination = servers.contents(path)
    parents = [run["parent"] for run in destination.values()]
    (sweep,) = {parent for parent in parents if parent}
    assert parents.count(sweep) == 4
    assert {"best_estimator", "model"} <= set(destination[sweep]["models"]), source[sweep]["models"]
    assert destination[sweep]["params"]["best_C"]
    assert servers.mirror("--experiment", path, "--include-unmarked") == {"done": 5}


def test_two_programs_and_a_job_share_an_experiment_and_mix_up_nothing(
    servers: DualServers,
) -> None:
    path = "/Users/ana@contoso.com/two"
    program = _PRELUDE + dedent(
        """
        for number in range(3):
            with mlflow.start_run(run_name=f"{sys.argv[3]} {number}"):
                for step in range(5):
                    mlflow.log_metric("loss", number + step / 7, step=step)
                mlflow.log_text(sys.argv[3], "user.txt")
        """
    )
    servers.source.create_experiment(path)
    programs = [servers.start(program, path, user) for user in ("ana", "ben")]
    while any(running.poll() is None for running in programs):
        servers.mirror("--experiment", path)
    for ended in programs:
        _, errors = ended.communicate()
        assert ended.returncode == 0, errors
        assert "Traceback" not in errors

    servers.mirror("--experiment", path)

    servers.assert_equal(path, 6)
    assert set(servers.statuses(path).values()) == {"done"}
    _, destination = servers.contents(path)
    assert destination["ana 2"]["artifacts"].keys() == {"user.txt"}
    assert destination["ana 2"]["artifacts"] != destination["ben 2"]["artifacts"]


def test_watch_goes_on_after_an_outage_until_ctrl_c(servers: DualServers) -> None:
    path = "/Users/ana@contoso.com/watch"
    servers.create_runs(path, 1)
    arguments = ("--experiment", path, "--watch", "1")
    with servers.start(_CTRL_C + _MIRROR, *arguments, DBX_AML_RETRY_TIMEOUT_S="0") as watching:
        errors: list[str] = []
        assert watching.stderr
        reader = Thread(target=lambda: errors.extend(watching.stderr), daemon=True)
        reader.start()
        assert_soon(lambda: set(servers.statuses(path).values()) == {"done"}, 60)
        servers.azureml.fault("status", status=503)
        servers.create_runs(f"{path} of another experiment", 1)
        run = servers.source.create_run(
            servers.source.get_experiment_by_name(path).experiment_id,
            run_name="later",
            tags={"dbx_aml.mirror": "pending"},
        )
        servers.source.log_metric(run.info.run_id, "m", 1.0)
        servers.source.set_terminated(run.info.run_id)
        assert_soon(lambda: any("503" in line for line in errors), 60)
        assert servers.statuses(path)["later"] == "pending"
        servers.azureml.reset()
        assert_soon(lambda: servers.statuses(path)["later"] == "done", 60)
        assert watching.poll() is None
        watching.send_signal(signal.SIGINT)
        watching.wait(30)
        reader.join(30)
    assert not any("Traceback" in line for line in errors)
    servers.assert_equal(path, 2)
    assert servers.statuses(f"{path} of another experiment") == {"run 0": "pending"}


@pytest.mark.parametrize(
    ("kills", "runs"),
    [
        (1, 6),
        pytest.param(20, 80, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)]),
    ],
)
def test_a_command_that_was_killed_leaves_nothing_that_a_second_one_does_not_mend(
    servers: DualServers, kills: int, runs: int
) -> None:
    path = f"/Users/ana@contoso.com/{kills} kills"
    servers.create_runs(path, runs)
    for kill in range(kills):
        servers.azureml.reset()
        with servers.start(_MIRROR, "--experiment", path) as process:
            # Each kill comes some requests later than the kill before.
            servers.azureml.wait_for(path="runs", count=8 + 7 * kill)
            process.send_signal(signal.SIGKILL)
            process.communicate()
    servers.azureml.reset()
    counts = servers.mirror("--experiment", path)
    assert set(counts) <= {"done"}, counts
    servers.assert_equal(path, runs)
    assert set(servers.statuses(path).values()) == {"done"}


def test_throttling_lost_answers_and_short_tokens_are_met(servers: DualServers) -> None:
    path = "/Users/ana@contoso.com/faults"
    servers.create_runs(path, 5)
    servers.azureml.token_lifetime(4)
    servers.azureml.fault("lost-answer", path="runs/create", skip=1, count=2)
    servers.azureml.fault("lost-answer", path="experiments/create", count=1)
    servers.azureml.fault("lost-answer", path="runs/log-batch", skip=3, count=3)
    servers.azureml.fault("lost-answer", path="batch/metadata", skip=1, count=1)
    servers.azureml.fault("lost-answer", host="blob", method="PUT", skip=2, count=1)
    servers.azureml.fault(
        "status", status=429, retry_after_s=1, path="runs/(search|update)", count=6
    )

    assert servers.mirror("--experiment", path) == {"done": 5}

    servers.azureml.reset()
    servers.assert_equal(path, 5)
    verified = servers.invoke("verify", "--experiment", path)
    assert verified.stdout == "5 runs compared, 0 differences\n"


def test_a_destination_without_permission_is_one_line_and_changes_nothing(
    servers: DualServers,
) -> None:
    path = "/Users/ana@contoso.com/denied"
    servers.create_runs(path, 3)
    servers.azureml.deny("Microsoft.MachineLearningServices/workspaces/experiments/*write")

    failed = servers.invoke("--experiment", path)

    assert failed.exit_code == 1
    assert failed.stderr.startswith("dbx-aml: both services must let the caller mirror: got ")
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert set(servers.statuses(path).values()) == {"pending"}
    servers.azureml.deny("*")
    failed = servers.invoke("--experiment", path)
    assert "caller must be allowed to use workspace" in failed.stderr
    servers.azureml.reset()
    assert servers.mirror("--experiment", path) == {"done": 3}


def test_in_mode_aml_the_runs_of_azure_ml_are_mirrored_to_databricks(
    servers: DualServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/Users/ana@contoso.com/back"
    servers.train(
        path,
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
        """,
        DBX_AML_MODE="aml",
        MLFLOW_TRACKING_URI=servers.azureml.tracking_uri,
    )
    monkeypatch.setenv("DBX_AML_MODE", "aml")

    assert servers.mirror("--experiment", path, "--include-unmarked") == {"done": 2}

    databricks, aml = servers.contents(path)
    for name in ("parent", "child"):
        # Databricks sets this tag itself.
        aml[name]["tags"].pop("mlflow.user")
        databricks[name]["tags"].pop("mlflow.user", None)
    assert differences(aml, databricks) == []
    assert servers.mirror("--experiment", path, "--include-unmarked") == {"done": 2}


@pytest.mark.parametrize(
    ("megabytes", "metric_points", "max_megabytes"),
    [
        (128, 3000, 64),
        pytest.param(1024, 1_000_000, 200, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)]),
    ],
)
def test_a_large_artifact_and_many_points_are_never_whole_in_memory(
    servers: DualServers, tmp_path: Path, megabytes: int, metric_points: int, max_megabytes: int
) -> None:
    path = f"/Users/ana@contoso.com/{megabytes} megabytes"
    servers.create_runs(path, 1, metric_points=metric_points, files=0)
    experiment = servers.source.get_experiment_by_name(path)
    (run,) = servers.source.search_runs([experiment.experiment_id])
    large_file = tmp_path / "large.bin"
    block = os.urandom(2**20)
    with large_file.open("wb") as stream:
        for _ in range(megabytes):
            stream.write(block)
    servers.source.log_artifact(run.info.run_id, str(large_file))
    code = """
import resource, sys
from dbx_aml.cli.main import main
import mlflow, azure.storage.blob
import dbx_aml.tracking.azureml.artifact_repository
old_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    main(["mirror", *sys.argv[2:]])
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((peak - old_peak) / 1024)
"""
    finished = servers.azureml.run(
        code, "--experiment", path, timeout_s=1200, environment=servers.variables
    )

    assert finished.returncode == 0, finished.stderr
    assert float(finished.stdout.split()[-1]) < max_megabytes
    servers.assert_equal(path, 1)
