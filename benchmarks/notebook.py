"""`dbx-aml notebook run` against a program with the same work: a Spark session and a picture."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Figure, medians

LIMIT_S = 2.5
WORK = """
import matplotlib.pyplot as plt
rows = spark.range(1000).selectExpr("id", "id * 2 as twice").toPandas()
plt.plot(rows.id, rows.twice)
"""
PROGRAM = f"""
import matplotlib
matplotlib.use("agg")
from dbx_aml.local.notebook.workspace_stub import local_workspace
with local_workspace() as spark:
{"".join(f"    {line}" + chr(10) for line in WORK.strip().splitlines())}
    plt.savefig("picture.png")
"""


def run() -> list[Figure]:
    """Measure the command, with a page, and the program, each with a new Spark engine."""
    command = Path(sys.executable).with_name("dbx-aml")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "main.py").write_text(f"# Databricks notebook source\n{WORK.strip()};\n")

        def start(*arguments: str | Path) -> None:
            root = {"DBX_AML_LOCAL_ROOT": str(folder / "root")}
            subprocess.run(
                arguments, cwd=folder, check=True, capture_output=True, env={**os.environ, **root}
            )

        notebook_s, program_s = medians(
            lambda: start(command, "notebook", "run", "main.py", "--html", "page.html"),
            lambda: start(sys.executable, "-c", PROGRAM),
            rounds=5,
        )
    extra_s = notebook_s - program_s
    note, goal = f"{extra_s:.1f} s more", f"at most {LIMIT_S} s more"
    figure = Figure(
        "dbx-aml notebook run --html",
        notebook_s,
        program_s,
        "same work",
        goal,
        extra_s <= LIMIT_S,
        note,
    )
    return [figure]
