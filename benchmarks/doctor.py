"""`dbx-aml doctor` where every host is black-holed: connections open and nothing ever answers."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import ROUNDS, Figure
from dbx_aml import AmlWorkspace, Link
from tests.support.azureml import azureml_service
from tests.support.child_process import clean_environment
from tests.support.databricks import databricks_service

_GOAL_S = 6.0
_COMMAND = Path(sys.executable).with_name("dbx-aml")


def run() -> list[Figure]:
    """Measure the command, all services' hosts dead, beside the same with all of them there."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with azureml_service(folder / "aml") as aml, databricks_service(folder / "db") as team:
            workspace = AmlWorkspace.from_tracking_uri(aml.tracking_uri)
            Link(mode="dual", aml_workspace=workspace).save(folder)
            here = {**clean_environment(), **team.environment(), **aml.environment()}
            answered = _median(folder, here)
            aml.fault("black-hole")
            team.fault("black-hole")
            dead = _median(folder, here)
    met = dead <= _GOAL_S
    goal = f"at most {_GOAL_S:.0f} s"
    return [Figure("`dbx-aml doctor`, no host answers", dead, answered, "all answer", goal, met)]


def _median(folder: Path, environment: dict[str, str]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run(
            [_COMMAND, "doctor"],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        times.append(time.perf_counter() - started)
    return statistics.median(times)
