"""What to add to this node, computed before anything is changed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dbx_aml.errors import ClusterError
from dbx_aml.init_script.machine import installed, wheel_of
from dbx_aml.init_script.pip import run_pip
from dbx_aml.marker import Override
from dbx_aml.pins import OURS, PLUGIN, Wheel, needs, read_pins

REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to add and how.

    Args:
        pins: Version by name of each package to add.
        overrides: Packages of the runtime that are newer than ours allow, and stay.
        arguments: Of "pip install".
        isolated: Whether pip's own settings do not count.
    """

    pins: Mapping[str, str]
    overrides: tuple[Override, ...]
    arguments: tuple[str, ...]
    isolated: bool


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
        ClusterError: It lacks the plugin, or the machine has a package that is too old.
    """
    ours = Wheel.of_file(wheel)
    lines = (wheelhouse / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    by_name = {name: line for line in lines for name in read_pins(line)}
    wanted = {name: line for name, line in by_name.items() if name not in machine}
    pins = {name: read_pins(line)[name] for name, line in wanted.items()}
    _refuse_old_plugin(ours, {**machine, **pins})
    found = needs([*_plugin_files(wheelhouse, pins), ours], machine)
    requirements = work / REQUIREMENTS
    requirements.write_text("".join(f"{line}\n" for line in wanted.values()), encoding="utf-8")
    return Plan(
        pins=pins,
        overrides=found.overrides,
        arguments=(
            *("--no-index", "--find-links", str(wheelhouse), "--no-deps"),
            *("--require-hashes", "--requirement", str(requirements)),
        ),
        isolated=True,
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
    ours = Wheel.of_file(wheel)
    files = [wheel]
    plugin = installed(path).get(PLUGIN)
    if PLUGIN in machine and plugin is not None:
        wheels = [wheel_of(plugin), ours]
    else:
        folder = work / "plugin"
        run_pip("download", "--no-deps", "--dest", str(folder), str(ours.requirement(PLUGIN)))
        files += folder.glob("*.whl")
        wheels = [Wheel.of_file(file) for file in files]
    given = {one.name: one.version for one in wheels if one.name not in machine}
    _refuse_old_plugin(ours, {**machine, **given})
    found = needs(wheels, {**machine, **given})
    pins = {**_resolved(found.to_add, machine, work), **given}
    names = [f"{name}=={version}" for name, version in pins.items() if name not in given]
    return Plan(
        pins=pins,
        overrides=found.overrides,
        arguments=("--no-deps", *names, *map(str, files)),
        isolated=False,
    )


def _resolved(to_add: tuple[str, ...], machine: Mapping[str, str], work: Path) -> dict[str, str]:
    if not to_add:
        return {}
    constraints, report = work / "constraints.txt", work / "report.json"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in machine.items()))
    run_pip(
        *("install", "--dry-run", "--report", str(report), "--constraint", str(constraints)),
        *to_add,
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


def _plugin_files(wheelhouse: Path, pins: Mapping[str, str]) -> list[Wheel]:
    if PLUGIN not in pins:
        return []
    name = f"{PLUGIN.replace('-', '_')}-{pins[PLUGIN]}-*.whl"
    files = list(wheelhouse.glob(name))
    if not files:
        raise ClusterError(f"{wheelhouse} must hold {name}: it does not; fill it anew")
    return [Wheel.of_file(files[0])]


def _refuse_old_plugin(ours: Wheel, there: Mapping[str, str]) -> None:
    requirement = ours.requirement(PLUGIN)
    version = there.get(PLUGIN)
    if requirement is not None and not (
        version and requirement.specifier.contains(version, prereleases=True)
    ):
        raise ClusterError(
            f"{PLUGIN} must be {requirement.specifier} for {OURS} {ours.version}: "
            f"got {version or 'none'}; take it out of the cluster's libraries, or fill the "
            "wheelhouse anew"
        )
