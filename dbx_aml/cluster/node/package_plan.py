"""What to add to this node, computed before anything is changed."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import parse_wheel_filename

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.node.installed_packages import installed, wheel_of
from dbx_aml.cluster.node.marker import KeptPackage
from dbx_aml.cluster.node.pip import run_pip
from dbx_aml.cluster.node.requirements import (
    PLUGIN,
    REQUIREMENTS_FILE,
    Wheel,
    constraints,
    missing_requirements,
    read_pins,
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to add and how.

    Args:
        pins: Version by name of each package to add.
        files: The wheel of each.
        kept_packages: Packages of the runtime that are newer than ours allow, and stay.
        arguments: Of "pip install"; nothing of it asks an index any more.
    """

    pins: Mapping[str, str]
    files: tuple[Path, ...]
    kept_packages: tuple[KeptPackage, ...]
    arguments: tuple[str, ...]


def plan_from_wheelhouse(
    wheelhouse: Path, machine: Mapping[str, str], wheel: Path, work: Path
) -> Plan:
    """Return the plan that adds from a wheelhouse what the machine lacks, hashes checked.

    Args:
        wheelhouse: The folder that 'dbx-aml cluster wheelhouse' filled.
        machine: Version by name of what is there and stays.
        wheel: This package's.
        work: A folder for files that pip reads.

    Raises:
        ClusterError: It lacks something, or the machine has a package that is too old.
    """
    ours = Wheel.from_file(wheel)
    lines = (wheelhouse / REQUIREMENTS_FILE).read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if not read_pins(line).keys() & machine.keys()]
    pins = read_pins("\n".join(wanted))
    files = {name: _file(wheelhouse, name, version) for name, version in pins.items()}
    plugin = [Wheel.from_file(files[PLUGIN])] if PLUGIN in files else []
    there = {**machine, **{one.name: one.version for one in plugin}}
    requirements = work / REQUIREMENTS_FILE
    requirements.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
    return Plan(
        pins=pins,
        files=tuple(files.values()),
        kept_packages=missing_requirements([*plugin, ours], there).kept_packages,
        arguments=(
            *("--find-links", str(wheelhouse), "--require-hashes"),
            *("--requirement", str(requirements)),
        ),
    )


def plan_from_index(machine: Mapping[str, str], wheel: Path, work: Path, path: list[str]) -> Plan:
    """Return the plan that adds from the package index what the machine lacks.

    Args:
        machine: Version by name of what is there and stays.
        wheel: This package's.
        work: A folder for files that pip reads and writes.
        path: Where this Python finds its packages.

    Raises:
        ClusterError: The index does not answer or has no fitting packages, or the machine has a
            package that is too old.
    """
    folder = work / "wheels"
    ours = Wheel.from_file(Path(shutil.copy(wheel, _empty(folder))))
    if PLUGIN in machine:
        both = [wheel_of(installed(path)[PLUGIN]), ours]
    else:
        _download(folder, str(ours.requirement(PLUGIN)))
        both = [Wheel.from_file(file) for file in folder.iterdir()]
    there = {**machine, **{one.name: one.version for one in both}}
    found = missing_requirements(both, there)
    resolved = _resolved(found.to_add, machine, work)
    if resolved:
        _download(folder, *(f"{name}=={version}" for name, version in resolved.items()))
    files = tuple(folder.iterdir())
    return Plan(
        pins={one.name: one.version for one in map(Wheel.from_file, files)},
        files=files,
        kept_packages=found.kept_packages,
        arguments=tuple(map(str, files)),
    )


def _empty(folder: Path) -> Path:
    """Return a folder that is empty and there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _download(folder: Path, *wanted: str) -> None:
    run_pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), *wanted)


def _resolved(to_add: tuple[str, ...], machine: Mapping[str, str], work: Path) -> dict[str, str]:
    """Return what pip would add for these requirements, with every package of the machine fixed."""
    if not to_add:
        return {}
    fixed, report = work / "constraints.txt", work / "report.json"
    fixed.write_text(constraints(machine), encoding="utf-8")
    run_pip(
        *("install", "--dry-run", "--report", str(report), "--only-binary", ":all:"),
        *("--constraint", str(fixed), *to_add),
    )
    found = [one["metadata"] for one in json.loads(report.read_text(encoding="utf-8"))["install"]]
    pins = read_pins("\n".join(f"{one['name']}=={one['version']}" for one in found))
    changed = sorted(pins.keys() & machine.keys())
    if changed:
        raise ClusterError(
            f"what is added must leave the runtime's packages as they are: {changed} would change; "
            "use a wheelhouse"
        )
    return pins


def _file(wheelhouse: Path, name: str, version: str) -> Path:
    for file in wheelhouse.glob("*.whl"):
        found, pin, *_ = parse_wheel_filename(file.name)
        if found == name and str(pin) == version:
            return file
    raise ClusterError(
        f"wheelhouse must hold {name} {version}: {wheelhouse} does not; fill it anew with "
        "'dbx-aml cluster wheelhouse'"
    )
