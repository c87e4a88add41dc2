"""Tracking in both: what dual tracking costs, and mirroring against mlflow-export-import.

Two MLflow servers on SQLite, as `mlflow server --workers 1` starts them, each with its artifacts on
disk. mlflow-export-import runs in another Python environment.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import requests
import urllib3

from benchmarks.common import ROOT, Figure
from tests.support.azureml.backend import Backend
from tests.support.azureml.service_process import azureml_service
from tests.support.azureml.upstream import Upstream
from tests.support.child_process import clean_environment
from tests.support.mirror import databricks_environment

CALLS = 2000
ROUNDS = 3
DUAL_ROUNDS = 6
# A smaller share of the points, for a look while one works on it.
SCALE = float(os.environ.get("DBX_AML_BENCH_SCALE", "1"))
RUNS, METRICS, STEPS = 100, 10, max(1, int(1000 * SCALE))
PARAMS, FILES = 20, 5
DONE_RUNS = 10_000
EXPERIMENTS, RUNS_IN_EACH = 20, 5
LATENCY_S = 0.1
# Runs that the mirror writes at once; each of them has up to four calls under way.
AT_ONCE = 8
A_CALL = 1000
PATH = "/Users/ana@contoso.com/benchmark"
MIRROR = "import sys; from dbx_aml.cli.main import main; main(['mirror', *sys.argv[1:]])"
IDLE = """
import sys, time
from dbx_aml.tracking.mirror.mirror_runs import mirror_runs
from dbx_aml.tracking.mirror.run_states import RunStates
from dbx_aml.tracking.mirror.server import MlflowServer
from dbx_aml.tracking.mirror.source_runs import find_experiment_ids, find_runs
source, destination = MlflowServer(sys.argv[1], "databricks"), MlflowServer(sys.argv[2], "aml")
started = time.perf_counter()
ids = find_experiment_ids(source, [])
states = RunStates(source, destination, ids)
results = list(mirror_runs(source, destination, find_runs(source, ids), states=states))
assert {result.status for result in results} == {"unchanged"}, results[:3]
print(time.perf_counter() - started)
"""
FILL = """
import sys
import mlflow
for experiment in range(int(sys.argv[2])):
    mlflow.set_experiment(f"/Users/ana@contoso.com/new/{experiment}")
    for number in range(int(sys.argv[3])):
        with mlflow.start_run():
            mlflow.log_param("p", number)
            mlflow.log_metric("m", number)
"""
NOTHING_NEW = """
import contextlib, io, json, sys, time
import mlflow
# MLflow imports it at its first call to Databricks.
import databricks.sdk
from dbx_aml.cli.main import main
started, output = time.perf_counter(), io.StringIO()
with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
    main(["mirror", "--json"])
print(json.dumps([time.perf_counter() - started, json.loads(output.getvalue())["counts"]]))
"""
LOOP = """
import sys, time
import mlflow
mlflow.set_experiment("/Users/ana@contoso.com/loop")
class Twice(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2
with mlflow.start_run():
    mlflow.log_metric("warm", 1.0)
    started = time.perf_counter()
    for step in range(int(sys.argv[2])):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.pyfunc.log_model(name="model", python_model=Twice(), pip_requirements=[])
    print("TOOK", time.perf_counter() - started)
"""


def run() -> list[Figure]:
    """Measure and return the figures."""
    return [_dual(), *_bulk(), _nothing_new(), _idle()]


def _dual() -> Figure:
    """A training loop, in mode "dual" and in Databricks alone, on the same servers."""
    with TemporaryDirectory() as folder:
        primary = Backend(Path(folder))
        with azureml_service(Path(folder) / "azureml") as azureml:
            primary.wait()
            plain = databricks_environment(primary.port)
            dual = {"DBX_AML_MODE": "dual", "DBX_AML_AML_TRACKING_URI": azureml.tracking_uri}
            taken: dict[str, list[float]] = {"dual": [], "alone": []}
            for turn in range(DUAL_ROUNDS + 1):
                # Either is first as often: a machine's speed drifts by more than is measured here.
                for mode in sorted(taken, reverse=bool(turn % 2)):
                    environment = plain | (dual if mode == "dual" else {})
                    done = azureml.run(
                        LOOP, str(int(CALLS * SCALE)), environment=environment, timeout_s=600
                    )
                    if done.returncode:
                        raise RuntimeError(done.stderr)
                    if turn:
                        taken[mode].append(float(done.stdout.partition("TOOK ")[2].split()[0]))
    ours, theirs = (statistics.median(times) for times in taken.values())
    name = f"{int(CALLS * SCALE):,} calls of `log_metric` and one `log_model`, dual"
    return Figure(name, ours, theirs, "Databricks alone", "at most 1.05x", ours <= 1.05 * theirs)


def _bulk() -> Iterator[Figure]:
    """Many runs: against the limits and export-import, at once and with a slow network."""
    what = f"{RUNS} runs x {METRICS} metrics x {STEPS:,} steps"
    with TemporaryDirectory() as folder, _server(Path(folder) / "src") as (src, database):
        _fill(src, database)
        with _server(Path(folder) / "limit") as (dst, _):
            limit = _limit(dst)
        with _server(Path(folder) / "ours") as (dst, _):
            ours = _mirror(src, dst)
        with _server(Path(folder) / "theirs") as (dst, _):
            theirs = _export_import(src, dst, Path(folder) / "export")
        yield Figure(
            what, ours, limit, "limit: `log_batch` alone", "at most 1.10x", ours <= 1.1 * limit
        )
        yield Figure(what, ours, theirs, "mlflow-export-import", "faster", ours <= theirs)
        with (
            _server(Path(folder) / "slow") as (dst, _),
            _proxy(src, 0) as source,
            _proxy(dst, LATENCY_S) as destination,
        ):
            ours = _mirror(source.uri, destination.uri)
        calls = (
            f"{source.calls / RUNS:.1f} calls a run to the source, {destination.calls / RUNS:.1f}"
        )
        bound = max(limit, destination.calls * LATENCY_S / AT_ONCE)
        yield Figure(
            what,
            ours,
            bound,
            f"limit: the calls, {AT_ONCE} at once, or `log_batch` alone",
            "at most 1.15x",
            ours <= 1.15 * bound,
            f"each call to the destination takes 100 ms more; {calls} to the destination",
        )
        with (
            _server(Path(folder) / "slow theirs") as (dst, _),
            _proxy(dst, LATENCY_S) as destination,
        ):
            theirs = _export_import(src, destination.uri, Path(folder) / "export again")
        yield Figure(
            what,
            ours,
            theirs,
            "mlflow-export-import",
            "5x faster",
            theirs >= 5 * ours,
            "each call to the destination takes 100 ms more",
        )


def _nothing_new() -> Figure:
    """A plain `dbx-aml mirror` from Databricks to Azure ML where nothing is new."""
    with TemporaryDirectory() as folder:
        primary = Backend(Path(folder))
        with azureml_service(Path(folder) / "azureml") as azureml:
            primary.wait()
            dual = {"DBX_AML_MODE": "dual", "DBX_AML_AML_TRACKING_URI": azureml.tracking_uri}
            environment = databricks_environment(primary.port) | dual
            arguments = (str(EXPERIMENTS), str(RUNS_IN_EACH))
            azureml.run(FILL, *arguments, environment=environment, timeout_s=600)
            azureml.run(NOTHING_NEW, environment=environment, timeout_s=600)
            times = []
            for _ in range(ROUNDS):
                azureml.reset()
                started = time.perf_counter()
                done = azureml.run(NOTHING_NEW, environment=environment, timeout_s=600)
                whole = time.perf_counter() - started
                seconds, counts = json.loads(done.stdout.splitlines()[-1])
                assert counts == {"unchanged": EXPERIMENTS * RUNS_IN_EACH}, counts
                times.append(seconds)
            calls = len(azureml.requests(path="/mlflow/"))
    ours = statistics.median(times)
    return Figure(
        f"nothing new in {EXPERIMENTS} experiments of {RUNS_IN_EACH} runs",
        ours,
        2.0,
        "goal",
        "2 s",
        ours <= 2,
        f"{calls} calls to Azure ML; with the imports of MLflow and databricks-sdk {whole:.1f} s",
    )


def _idle() -> Figure:
    """Nothing to do, on many runs that are done; the limit reads the same pages."""
    with (
        TemporaryDirectory() as folder,
        _server(Path(folder) / "src") as (src, src_database),
        _server(Path(folder) / "dst") as (dst, dst_database),
    ):
        _fill_done(src, src_database, dst, dst_database)
        times = [float(_python(IDLE, src, dst)) for _ in range(ROUNDS)]
        limits = [sum(_read_pages(uri) for uri in (src, dst)) for _ in range(ROUNDS)]
    ours, limit = statistics.median(times), statistics.median(limits)
    name = f"nothing new in {DONE_RUNS:,} done runs"
    return Figure(name, ours, limit, "limit: the same pages", "at most 1.25x", ours <= 1.25 * limit)


def _read_pages(uri: str) -> float:
    """Return the seconds that reading all runs takes, without a client of MLflow."""
    started, token = time.perf_counter(), None
    experiment_id = _call(uri, "experiments/get-by-name", params={"experiment_name": PATH})[
        "experiment"
    ]["experiment_id"]
    while True:
        body = {"experiment_ids": [experiment_id], "max_results": 1000, "page_token": token}
        token = _call(uri, "runs/search", json=body).get("next_page_token")
        if not token:
            return time.perf_counter() - started


def _call(uri: str, call: str, **content: Any) -> dict[str, Any]:
    method = "POST" if "json" in content else "GET"
    response = requests.request(method, f"{uri}/api/2.0/mlflow/{call}", timeout=60, **content)
    answer: dict[str, Any] = response.json()
    return answer


@contextmanager
def _server(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the URI of an MLflow server, and its database."""
    folder.mkdir(parents=True)
    server = Backend(folder)
    server.wait()
    try:
        yield f"http://127.0.0.1:{server.port}", folder / "mlflow.db"
    finally:
        server._server_process.kill()
        server._server_process.wait()


@dataclass(kw_only=True)
class Proxy:
    """A proxy that delays and counts the requests to a server."""

    uri: str
    calls: int = 0


@contextmanager
def _proxy(uri: str, latency_s: float) -> Iterator[Proxy]:
    """Yield a proxy of a server."""
    upstream = Upstream(int(uri.rpartition(":")[2]))

    class Connection(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.calls += 1
            time.sleep(latency_s)
            request = (self.command, self.path, dict(self.headers), body or None)
            try:
                answer = upstream.send(*request)
            except urllib3.exceptions.ProtocolError:
                # The server had closed the connection, which was idle for five seconds.
                answer = upstream.send(*request)
            self.send_response_only(answer.status)
            for name, text in answer.headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, text)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Connection) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        proxy = Proxy(uri=f"http://127.0.0.1:{server.server_address[1]}")
        yield proxy
        server.shutdown()


def _fill(uri: str, database: Path) -> None:
    """Make the runs; their points go straight into the database, which takes seconds."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient(uri)
    experiment = client.create_experiment(PATH)
    for number in range(RUNS):
        tags = {"dbx_aml.mirror": "pending"}
        made = client.create_run(experiment, run_name=f"run {number}", tags=tags)
        run_id = made.info.run_id
        client.log_batch(run_id, params=[Param(f"p{i}", str(i)) for i in range(PARAMS)])
        for file in range(FILES):
            client.log_text(run_id, "x" * 10_000, f"files/{file}.txt")
        client.set_terminated(run_id)
        with sqlite3.connect(database, timeout=60) as connection:
            for metric in range(METRICS):
                rows = [
                    (f"m{metric}", step / 7, 1_700_000_000_000 + step, run_id, step, 0)
                    for step in range(STEPS)
                ]
                columns = "(key, value, timestamp, run_uuid, step, is_nan)"
                connection.executemany(f"INSERT INTO metrics {columns} VALUES (?,?,?,?,?,?)", rows)
                connection.execute(
                    f"INSERT INTO latest_metrics {columns} VALUES (?,?,?,?,?,?)", rows[-1]
                )


def _fill_done(src: str, src_database: Path, dst: str, dst_database: Path) -> None:
    """Mirror one run, and make copies of it and of its mirrored run in both databases."""
    from mlflow import MlflowClient

    client = MlflowClient(src)
    experiment = client.create_experiment(PATH)
    made = client.create_run(experiment, tags={"dbx_aml.mirror": "pending"})
    run_id = made.info.run_id
    client.set_terminated(run_id)
    _python(MIRROR, "--source-tracking-uri", src, "--destination-tracking-uri", dst)
    mirrored_id = client.get_run(run_id).data.tags["dbx_aml.mirror.aml.run_id"]
    for database, copied_id in ((src_database, run_id), (dst_database, mirrored_id)):
        with sqlite3.connect(database, timeout=60) as connection:
            for table in ("runs", "tags"):
                cursor = connection.execute(f"SELECT * FROM {table}")
                rows = [row for row in cursor.fetchall() if copied_id in row]
                marks = ",".join("?" * len(cursor.description))
                for number in range(1, DONE_RUNS):
                    new_ids = {run_id: f"{number:032x}", mirrored_id: f"f{number:031x}"}
                    copies = [[new_ids.get(value, value) for value in row] for row in rows]
                    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)


def _limit(uri: str) -> float:
    """Return the seconds that writing the points takes, with MLflow's client and nothing else."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(uri)
    experiment = client.create_experiment(PATH)
    taken = 0.0
    for _ in range(RUNS):
        run_id = client.create_run(experiment).info.run_id
        points = [
            Metric(f"m{metric}", step / 7, 1_700_000_000_000 + step, step)
            for metric in range(METRICS)
            for step in range(STEPS)
        ]
        started = time.perf_counter()
        for first in range(0, len(points), A_CALL):
            client.log_batch(run_id, points[first : first + A_CALL])
        taken += time.perf_counter() - started
    return taken


def _mirror(src: str, dst: str) -> float:
    # The source's tags are of the turn before.
    started = time.perf_counter()
    _python(
        MIRROR,
        "--source-tracking-uri",
        src,
        "--destination-tracking-uri",
        dst,
        "--include-unmarked",
    )
    taken = time.perf_counter() - started
    _forget(src)
    return taken


def _forget(src: str) -> None:
    """Let the source's runs be pending again."""
    from mlflow import MlflowClient

    client = MlflowClient(src)
    experiment = client.get_experiment_by_name(PATH)
    assert experiment
    for made in client.search_runs([experiment.experiment_id], max_results=1000):
        assert made.data.tags["dbx_aml.mirror"] == "done", made.data.tags
        client.set_tag(made.info.run_id, "dbx_aml.mirror", "pending")
        client.delete_tag(made.info.run_id, "dbx_aml.mirror.aml.run_id")


def _export_import(src: str, dst: str, folder: Path) -> float:
    tools = _export_import_tools()
    environment = {**clean_environment(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    started = time.perf_counter()
    for uri, arguments in (
        (src, ["export-experiment", "--experiment", PATH, "--output-dir", str(folder)]),
        (dst, ["import-experiment", "--experiment-name", PATH, "--input-dir", str(folder)]),
    ):
        subprocess.run(
            [str(tools / arguments[0]), *arguments[1:]],
            env={**environment, "MLFLOW_TRACKING_URI": uri},
            check=True,
            capture_output=True,
        )
    return time.perf_counter() - started


def _export_import_tools() -> Path:
    """Return the folder of its commands, installed once."""
    home = ROOT / "export-import"
    if not (home / "bin" / "import-experiment").exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", home], check=True)
        packages = ["mlflow-export-import==1.2.0", "tabulate", "mlflow==3.15.0"]
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode"]
        python = ["--python", str(home / "bin" / "python")]
        subprocess.run([*install, *python, *packages], check=True)
    return home / "bin"


def _python(code: str, *arguments: str) -> str:
    environment: dict[str, Any] = {**clean_environment(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout
