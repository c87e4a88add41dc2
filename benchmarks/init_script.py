"""The init script against plain `pip install azureml-mlflow`, on runtime 18."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable

from benchmarks.common import ROOT, ROUNDS, Figure
from dbx_aml.cluster.runtimes import known_runtimes
from dbx_aml.cluster.wheelhouse import build_wheelhouse
from tests.support.node.node import LINK, Node
from tests.support.node.runtime import real_runtime
from tests.support.node.wheel import wheelhouse_variables

RUNTIME = "18"


def run() -> list[Figure]:
    """Measure the init script and pip, each time on a new node, and return the figures."""
    runtime = known_runtimes()[RUNTIME]
    folder = ROOT / "init_script"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wheelhouse = build_wheelhouse(folder / "wheelhouse", runtime).folder
    python = real_runtime(folder / "python", runtime)
    # The packages of a runtime are compiled.
    subprocess.run(
        [python / "bin" / "python", "-m", "compileall", "-q", python / "lib"], check=False
    )
    variables = {**LINK, **wheelhouse_variables(wheelhouse)}
    nodes = [Node(folder / f"node{number}", python) for number in range(2 * (ROUNDS + 1))]

    def run_script(node: Node) -> None:
        result = node.run(variables)
        if result.exit_code or not node.marker.is_ok:
            raise RuntimeError("\n".join(result.lines))

    def run_pip(node: Node) -> None:
        # A new node has no cache.
        arguments = ["install", "--quiet", "--no-cache-dir", "azureml-mlflow"]
        node_python = node.home / "python" / "bin" / "python"
        subprocess.run([node_python, "-m", "pip", *arguments], check=True)

    script_times, pip_times, second_run_times = [], [], []
    for number in range(ROUNDS + 1):
        script_s = _seconds(run_script, nodes[2 * number])
        pip_s = _seconds(run_pip, nodes[2 * number + 1])
        second_run_s = _seconds(run_script, nodes[2 * number])
        # The first round fills the caches of the disk.
        if number:
            script_times.append(script_s)
            pip_times.append(pip_s)
            second_run_times.append(second_run_s)
    first, pip, second = map(statistics.median, (script_times, pip_times, second_run_times))
    steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in nodes[-2].marker.steps.items())
    name, pip_name = f"init script on runtime {RUNTIME}", "pip install azureml-mlflow"
    return [
        Figure(name, first, pip, pip_name, "at most 0.7x", first <= 0.7 * pip, steps),
        Figure(f"{name}, again", second, first, "the first run", "at most 0.2 s", second <= 0.2),
    ]


def _seconds(run_once: Callable[[Node], None], node: Node) -> float:
    started = time.perf_counter()
    run_once(node)
    return time.perf_counter() - started
