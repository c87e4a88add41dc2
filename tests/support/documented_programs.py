"""Programs on the PATH of a page's commands; each run is a fork of one process.

`dbx-aml` runs, but takes the hashes of the stand-in wheels for those of the release. make, pip and
databricks only check that their arguments name something that exists: a target, a wheel, an extra,
a job, a variable. `program_client.py` calls the programs.
"""

import importlib
import json
import os
import re
import sys
from pathlib import Path

import yaml

from tests.support.node.wheel import own_wheel, sha256
from tests.support.program_server import wait_for_program

ROOT = Path(__file__).parents[2]
_BUNDLE_COMMANDS = {"validate", "deploy", "run", "summary", "destroy"}
# Most commands import these libraries, which takes 3 s.
_LIBRARIES = (
    "azureml.mlflow",
    "databricks.sdk",
    "mlflow.pyfunc",
    "mlflow.sklearn",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "pyspark.sql",
    "dbx_aml.cli.main",
)


def make(*targets: str) -> None:
    """Check that the targets exist; `build` writes the wheel into the current folder."""
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(targets) <= set(known), (targets, known)
    if "build" in targets:
        own_wheel(Path("dist"))


def pip(command: str, *requirements: str) -> None:
    """Check that each requirement is a wheel of this package, with extras that it has."""
    assert command == "install", command
    setup = (ROOT / "setup.py").read_text()
    for requirement in requirements:
        wheel, _, extras = requirement.partition("[")
        assert Path(wheel).name.startswith("dbx_aml-"), requirement
        assert Path(wheel).is_file(), requirement
        for extra in filter(None, extras.rstrip("]").split(",")):
            assert f'"{extra}": ' in setup, requirement


def databricks(group: str, command: str, *arguments: str) -> None:
    """Check subcommands, jobs, parameters, variables and local files; `deploy` builds the wheel."""
    if group == "fs":
        source, destination = arguments[-2:]
        assert command == "cp" and Path(source).exists(), source
        assert destination.startswith("dbfs:/Volumes/"), destination
        return
    assert group == "bundle" and command in _BUNDLE_COMMANDS, (group, command)
    if command == "deploy":
        own_wheel(Path("dist"))
    bundle = _read_yaml(ROOT / "databricks.yml")
    jobs = _read_yaml(ROOT / "resources" / "jobs.yml")["resources"]["jobs"]
    parameters: set[str] = set()
    if command == "run":
        job = jobs[arguments[0]]
        parameters = {parameter["name"] for parameter in job["parameters"]}
        arguments = arguments[1:]
    for option, value in zip(arguments[::2], arguments[1::2], strict=True):
        name = value.partition("=")[0]
        known = {
            "--params": parameters,
            "--var": set(bundle["variables"]),
            "--target": set(bundle["targets"]),
        }
        assert name in known[option], (option, value)


def dbx_aml(*arguments: str) -> None:
    """Run dbx-aml where the index has stand-ins of the wheels that a runtime lacks."""
    from dbx_aml.cli.main import main
    from dbx_aml.cluster.node.requirements import WheelHash
    from dbx_aml.cluster.resolve import Wheel
    from dbx_aml.cluster.runtimes import Runtime

    entries = [
        str(WheelHash(name=wheel.name, version=wheel.version, sha256=sha256(file)))
        for file in sorted(Path(os.environ["STAND_IN_WHEELS"]).glob("*.whl"))
        for wheel in [Wheel.from_file(file)]
    ]
    Runtime.list_lines = property(lambda _: entries)  # type: ignore[assignment, method-assign]
    sys.argv = ["dbx-aml", *arguments]
    sys.exit(main())


def python_blocks() -> None:
    """Run one block of Python after the other, read as JSON lines; end each with a NUL."""
    names = {"__name__": "__main__"}
    for line in sys.stdin:
        exec(json.loads(line), names)
        sys.stdout.write("\0\n")
        sys.stdout.flush()


def shared_java() -> None:
    """Start a Java process and print the variables by which other programs use it.

    It has the settings of a local session in the current folder, also for the other programs. It
    ends with the standard input.
    """
    from dbx_aml.local.notebook.shared_spark import borrow_spark
    from dbx_aml.local.spark import local_spark

    spark = local_spark()
    with borrow_spark(spark) as variables:
        pass
    spark.stop()
    sys.stdout.write(f"{json.dumps(variables)}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _read_yaml(file: Path) -> dict:
    content: dict = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    for library in _LIBRARIES:
        importlib.import_module(library)
    program, *command_line = wait_for_program(int(sys.argv[1]))
    programs = {
        "make": make,
        "pip": pip,
        "databricks": databricks,
        "dbx-aml": dbx_aml,
        "python-blocks": python_blocks,
        "shared-java": shared_java,
    }
    programs[program](*command_line)
