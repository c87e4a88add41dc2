"""Programs that documented commands name but that the tests must not run: make, pip, databricks.

`dbx-aml` runs, but takes the hashes of the stand-in wheels for those of the release. Each other
program checks that its arguments name something that exists: a target, a wheel, an extra, a job, a
variable. Run as `python -m tests.support.documented_programs PROGRAM ARGUMENT...`.
"""

import os
import re
import sys
from pathlib import Path

import yaml

from tests.support.node.wheel import own_wheel, sha256

ROOT = Path(__file__).parents[2]
_BUNDLE_COMMANDS = {"validate", "deploy", "run", "summary", "destroy"}


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


def _read_yaml(file: Path) -> dict:
    content: dict = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    program, *command_line = sys.argv[1:]
    programs = {"make": make, "pip": pip, "databricks": databricks, "dbx-aml": dbx_aml}
    programs[program](*command_line)
