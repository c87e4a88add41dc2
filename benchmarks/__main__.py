"""Run the benchmarks named, or all, and write their figures into README.md beside this file."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

ALL = (
    "start",
    "tiny",
    "throughput",
    "threads",
    "failing_rows",
    "nightly",
    "follow",
    "challenger",
    "segments",
    "own_environment",
    "estimate",
    "tracking",
    "mirror",
    "init_script",
    "doctor",
    "monitor",
    "notebook",
)
RESULTS = Path(__file__).with_name("README.md")
HEAD = """\
| what | ours, s | theirs, s | theirs is | ratio | goal | met | |
|---|---|---|---|---|---|---|---|
"""


def machine() -> str:
    """Return the machine and the versions that the figures belong to, on one line."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*: (.*)", info.read_text())
        cpu = found[1] if found else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = (
        "pyspark",
        "delta-spark",
        "mlflow",
        "azureml-mlflow",
        "scikit-learn",
        "lightgbm",
        "pandas",
    )
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}, {versions}"
    )


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all."""
    # MLflow prints two lines for each run that ends.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name in names or ALL:
        print(f"{name} ...", file=sys.stderr, flush=True)
        lines = "".join(f"{f.line}\n" for f in importlib.import_module(f"benchmarks.{name}").run())
        print(lines, end="", flush=True)
        _write(name, lines)


def _write(name: str, lines: str) -> None:
    """Put one benchmark's lines between its marks, and the machine above the table."""
    text = RESULTS.read_text(encoding="utf-8")
    block = f"<!-- {name} -->\n{HEAD}{lines}<!-- end {name} -->"
    text = re.sub(f"<!-- {name} -->.*<!-- end {name} -->", lambda _: block, text, flags=re.DOTALL)
    text = re.sub("(?<=<!-- machine -->\n).*", lambda _: machine(), text)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
