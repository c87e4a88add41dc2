"""`dbx-aml doctor` with hosts that accept connections and never answer."""

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
    """Measure the command with all hosts silent, and with all hosts answering."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (
            azureml_service(folder / "aml") as aml,
            databricks_service(folder / "databricks") as databricks,
        ):
            workspace = AmlWorkspace.from_tracking_uri(aml.tracking_uri)
            Link(mode="dual", aml_workspace=workspace).save(folder)
            environment = {
                **clean_environment(),
                **databricks.environment(),
                **aml.environment(),
            }
            answering_s = _median_seconds(folder, environment)
            aml.fault("black-hole")
            databricks.fault("black-hole")
            silent_s = _median_seconds(folder, environment)
    goal = f"at most {_GOAL_S:.0f} s"
    name = "`dbx-aml doctor`, no host answers"
    return [Figure(name, silent_s, answering_s, "all answer", goal, silent_s <= _GOAL_S)]


def _median_seconds(folder: Path, environment: dict[str, str]) -> float:
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
