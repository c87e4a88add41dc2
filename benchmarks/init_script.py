"""The init script against plain `pip install azureml-mlflow dbx-aml`, on what runtime 18 brings."""

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
from tests.support.node.wheel import own_wheel

RUNTIME = "18"


def run() -> list[Figure]:
    """Measure both sides, each time on a fresh node, and return the figures."""
    machine = known_runtimes()[RUNTIME]
    place = ROOT / "init_script"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    own = own_wheel(place / "own")
    wheelhouse = build_wheelhouse(place / "wheelhouse", machine, own).folder
    python = real_runtime(place / "python", machine)
    # A runtime comes compiled.
    subprocess.run(
        [python / "bin" / "python", "-m", "compileall", "-q", python / "lib"], check=False
    )
    variables = {**LINK, "DBX_AML_WHEELHOUSE_PATH": str(wheelhouse)}
    nodes = [Node(place / f"node{turn}", python) for turn in range(2 * (ROUNDS + 1))]

    def script(node: Node) -> None:
        outcome = node.run(variables)
        if outcome.code or not node.marker.is_ok:
            raise RuntimeError("\n".join(outcome.lines))

    def pip(node: Node) -> None:
        # A fresh node has no cache.
        words = ["-m", "pip", "install", "--quiet", "--no-cache-dir", "azureml-mlflow", str(own)]
        subprocess.run([node.home / "python" / "bin" / "python", *words], check=True)

    ours, theirs, again = [], [], []
    for turn in range(ROUNDS + 1):
        seconds = (
            _seconds(script, nodes[2 * turn]),
            _seconds(pip, nodes[2 * turn + 1]),
            _seconds(script, nodes[2 * turn]),
        )
        if turn:
            for taken, one in zip((ours, theirs, again), seconds, strict=True):
                taken.append(one)
    first, plain, second = map(statistics.median, (ours, theirs, again))
    steps = ", ".join(f"{name} {taken:.1f} s" for name, taken in nodes[-2].marker.steps.items())
    name, pip_name = f"init script on runtime {RUNTIME}", "pip install azureml-mlflow dbx-aml"
    return [
        Figure(name, first, plain, pip_name, "at most 0.5x", first <= 0.5 * plain, steps),
        Figure(f"{name}, again", second, first, "the first run", "at most 1 s", second <= 1),
    ]


def _seconds(side: Callable[[Node], None], node: Node) -> float:
    started = time.perf_counter()
    side(node)
    return time.perf_counter() - started
