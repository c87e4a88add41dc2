"""A Python with the packages of a runtime, Spark and Delta, as close as an index has them."""

import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement

from dbx_aml._common.uv import compile_requirements, run_uv
from dbx_aml.cluster.node.requirements import read_hashes
from dbx_aml.cluster.resolve import node_requirements
from dbx_aml.cluster.runtimes import Runtime, known_runtimes
from tests.support.node.runtime import find_python

# The runtimes with Spark that this release supports, without those for machine learning.
NAMES = ("16.4", "17.3", "18", "19")
# In the checkout: a node links the files of the environment, and links stay on one disk.
FOLDER = Path(__file__).parents[2] / "build" / "runtimes"
# Delta of each minor release of Spark. Databricks has its own, which no index has.
_DELTA = {"3.5": "3.3.3", "4.0": "4.0.1", "4.1": "4.4.0", "4.2": "4.4.0"}
# What programs on a cluster use and the runtime has, beside the requirements of this package.
_USED_BY_PROGRAMS = ("cloudpickle", "numpy", "plotly", "pyarrow", "scikit-learn", "scipy")
_SPARK = ("delta-spark", "py4j", "pyspark")
_TIMEOUT_S = 600.0


def runtime_with_python(name: str) -> Runtime:
    """Return a runtime with the version of Python for which an index has its packages."""
    runtime = known_runtimes()[name]
    # Databricks has built this pandas for Python 3.12; an index has it for 3.11 only.
    is_old = runtime.packages["pandas"].startswith("1.")
    return replace(runtime, python="3.11") if is_old else runtime


def make_environment(runtime: Runtime) -> Path:
    """Return a virtual environment with the packages of a runtime; it is kept until they change.

    It has no package that the runtime lacks: those are for the init script to add.
    """
    folder, python = FOLDER / runtime.name, find_python(runtime.python)
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    minor = subprocess.check_output(command, text=True).strip()
    requirements = _requirements(runtime)
    constraints = [f"{name}=={version}" for name, version in runtime.packages.items()]
    inputs = "\n".join([python, minor, *requirements, *constraints])
    stamp = folder / "inputs.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != inputs:
        pins = _resolve(minor, requirements, constraints)
        of_runtime = [
            line for line in pins.splitlines() if _name(line) in {*runtime.packages, *_SPARK}
        ]
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(folder / "python")], check=True)
        install = ("pip", "install", "--quiet", "--compile-bytecode", "--no-deps")
        target = ("--python", str(folder / "python" / "bin" / "python"), "--requirement", "-")
        run_uv([*install, *target], _TIMEOUT_S, input_text="\n".join(of_runtime))
        stamp.write_text(inputs, encoding="utf-8")
    return folder / "python"


def _requirements(runtime: Runtime) -> list[str]:
    assert runtime.spark is not None
    major, minor, _ = runtime.spark.split(".")
    spark = f"pyspark>={runtime.spark},=={major}.{minor}.*"
    return [
        *(Requirement(line).name for line in node_requirements(runtime)),
        *(f"{entry.name}=={entry.version}" for entry in read_hashes(runtime.requirements)),
        *_USED_BY_PROGRAMS,
        spark,
        f"delta-spark=={_DELTA[f'{major}.{minor}']}",
    ]


def _resolve(python: str, requirements: list[str], constraints: list[str]) -> str:
    """Return the pins; of pyspark the oldest release that Delta takes."""
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "constraint": constraints,
            "override": [line for line in constraints if line.startswith("azure-storage-blob==")],
        }
        arguments = ["--resolution", "lowest-direct"]
        for option, lines in files.items():
            file = Path(folder) / option
            file.write_text("\n".join(lines), encoding="utf-8")
            arguments += [f"--{option}", str(file)]
        return compile_requirements(
            python, arguments, _TIMEOUT_S, input_text="\n".join(requirements)
        )


def _name(pin: str) -> str:
    return pin.partition("==")[0]
