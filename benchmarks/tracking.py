"""Logging to Azure ML: our store against plain azureml-mlflow, both on the same local stand-in."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import ROUNDS, Figure
from tests.support.azureml.service_process import AzureMl, azureml_service

CALLS = 200
BATCHES = 100
VALUES = 10_000
# Plain azureml-mlflow posts each value before it returns: so many tell how long all would take.
SAMPLE = 100
LATENCY_S = 0.1

# A client; MLflow goes on without a plugin that it cannot import: "plain" has just Microsoft's.
CLIENT = """
import json, sys, time
if sys.argv[2] == "plain":
    sys.modules["dbx_aml"] = None
import mlflow
from mlflow.entities import Metric
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
store = type(client._tracking_client.store).__module__
assert store.startswith("azureml." if sys.argv[2] == "plain" else "dbx_aml."), store
mlflow.set_experiment("benchmark")
{lines}
print("SECONDS:" + json.dumps(seconds))
"""
CALL_BY_CALL = """
with mlflow.start_run() as run:
    mlflow.log_metric("warm", 1.0)
    seconds = {}
    started = time.perf_counter()
    for i in range(int(sys.argv[3])):
        mlflow.log_metric("loss", 1 / (i + 1), step=i)
    seconds["log_metric"] = time.perf_counter() - started
    started = time.perf_counter()
    for i in range(int(sys.argv[4])):
        values = [Metric(f"m{k}", k / (i + 1), 1700000000000, i) for k in range(100)]
        client.log_batch(run.info.run_id, metrics=values)
    seconds["log_batch"] = time.perf_counter() - started
"""
LOOP = """
with mlflow.start_run() as run:
    mlflow.log_metric("warm", 1.0)
    started = time.perf_counter()
    for i in range(int(sys.argv[3])):
        mlflow.log_metric("loss", 1 / (i + 1), step=i, synchronous=sys.argv[4] != "async")
    seconds = {"loop": time.perf_counter() - started}
"""


def _measure(azureml: AzureMl, lines: str, *arguments: object) -> dict[str, float]:
    done = azureml.run(CLIENT.replace("{lines}", lines), *map(str, arguments), timeout_s=1800)
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds: dict[str, float] = json.loads(done.stdout.rpartition("SECONDS:")[2])
    return seconds


def run() -> list[Figure]:
    """Measure both stores and return the figures."""
    figures = []
    with TemporaryDirectory() as folder, azureml_service(Path(folder) / "azureml") as azureml:
        taken: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
        for turn in range(ROUNDS + 1):
            for store, measurements in taken.items():
                measured = _measure(azureml, CALL_BY_CALL, store, CALLS, BATCHES)
                if turn:
                    measurements.append(measured)
        for call, count in (("log_metric", CALLS), ("log_batch", BATCHES)):
            ours, plain = (
                statistics.median(seconds[call] for seconds in taken[store]) for store in taken
            )
            name = f"{count} calls of `{call}`"
            met = ours <= 1.05 * plain
            figures.append(Figure(name, ours, plain, "plain azureml-mlflow", "at most 1.05x", met))
        azureml.fault("delay", delay_s=LATENCY_S, path="runs/log")
        plain = _measure(azureml, LOOP, "plain", SAMPLE, "async")["loop"] * VALUES / SAMPLE
        waits = _measure(azureml, LOOP, "ours", SAMPLE, "sync")["loop"] * VALUES / SAMPLE
        ours = _measure(azureml, LOOP, "ours", VALUES, "async")["loop"]
    note = f"each answer takes 100 ms; one by one measured on {SAMPLE}, times {VALUES // SAMPLE}"
    name = f"training loop, {VALUES:,} values"
    baseline = "plain azureml-mlflow"
    return [
        *figures,
        Figure(
            f"{name}, one by one", waits, plain, baseline, "not slower", waits <= 1.05 * plain, note
        ),
        Figure(
            f"{name}, `synchronous=False`", ours, plain, baseline, "10x", ours <= plain / 10, note
        ),
    ]
