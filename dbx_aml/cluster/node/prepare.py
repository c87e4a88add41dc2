"""Prepare this node; run by `dbx_aml_init.sh` straight from the wheel of this package."""

import argparse
import logging
import os
import platform
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dbx_aml._common.errors import ClusterError, DbxAmlError, LinkError, WorkspaceError
from dbx_aml.cluster.node.installed_packages import compile_files, search_path, versions
from dbx_aml.cluster.node.marker import NodeMarker, read_marker
from dbx_aml.cluster.node.package_changes import check, install, roll_back
from dbx_aml.cluster.node.package_plan import Plan, plan_from_index, plan_from_wheelhouse
from dbx_aml.cluster.node.requirements import PACKAGE, Wheel
from dbx_aml.cluster.node.spark_environment import (
    OWN_FOLDER,
    is_written,
    variables,
    write_environment,
    write_link,
    write_whole,
)
from dbx_aml.cluster.node.verify import Prover
from dbx_aml.cluster.runtimes import newest_release
from dbx_aml.link.link import Link

log = logging.getLogger(__name__)

# Exit codes; the script knows them too.
FAILED, WRONG_SETTINGS, TRY_AGAIN = 1, 2, 75


@dataclass(frozen=True, kw_only=True)
class Node:
    """What the script found out, and where things are.

    Args:
        home: Databricks' folder, "/databricks".
        work: A folder that is gone afterwards.
        wheel: The wheel that this code runs from.
        wheelhouse: Where the packages come from; None for the index.
        config: The link's file; None where variables or the node's own say it.
        runtime: Databricks Runtime, where known.
        is_driver: Whether this is the driver's node.
        fingerprint: Hash of the script and its settings.
        steps: Seconds of each step so far.
    """

    home: Path
    work: Path
    wheel: Path
    wheelhouse: Path | None
    config: Path | None
    runtime: str | None
    is_driver: bool
    fingerprint: str
    steps: dict[str, float] = field(default_factory=dict)

    @property
    def marker(self) -> Path:
        """The marker's file."""
        return self.home / OWN_FOLDER / "marker.json"

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of a step, whether or not it ends well."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.steps[name] = round(time.monotonic() - started, 2)
            log.info("%s %.2f s", name, self.steps[name])

    def write(self, marker: NodeMarker) -> None:
        """Write the marker, with the time and the steps so far."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = replace(marker, time=now, steps=dict(self.steps)).to_json()
        write_whole(self.marker, text)


def prepare(node: Node) -> int:
    """Add what is missing, prove it, write link and variables; return the exit code."""
    earlier = read_marker(node.marker) or NodeMarker(status="failed")
    # What an earlier run added stays ours, to be replaced or removed.
    kept = dict(earlier.installed)
    marker = NodeMarker(
        status="failed",
        installed=kept,
        version=Wheel.from_file(node.wheel).version,
        runtime=node.runtime,
        python=platform.python_version(),
        is_driver=node.is_driver,
        packages_from=f"wheelhouse {node.wheelhouse}" if node.wheelhouse else "index",
        messages=_runtime_messages(node.runtime),
        fingerprint=node.fingerprint,
    )
    try:
        link = Link.load(config=node.config)
        values = variables(link, node.home)
        if link.tracking_uri is None:
            marker = replace(marker, messages=(*marker.messages, _NO_REGION))
    except (LinkError, WorkspaceError) as err:
        return _failed(node, marker, err, WRONG_SETTINGS)
    path = search_path(node.wheel)
    changing: Plan | None = None
    try:
        if not earlier.is_ok:
            # It was killed while it added these.
            kept = _undone(node, kept, (), path)
        before = _without(versions(path), {*kept, PACKAGE})
        with node.step("plan"):
            plan = _plan(node, before, path)
        added = {**kept, **plan.pins}
        marker = replace(marker, kept_packages=plan.kept_packages)
        node.write(replace(marker, status="started", installed=added))
        changing = plan
        with Prover() as prover:
            with node.step("install"):
                install(plan, before, path)
            with node.step("check"):
                check(added, plan.kept_packages, before, path)
                prover.go()
                compile_files(added, path)
                prover.wait()
        with node.step("configure"):
            write_link(link, node.home, node.work)
            write_environment(values, node.home)
        node.write(replace(marker, status="ok", installed=added, variables=values))
    except Exception as err:
        if not isinstance(err, ClusterError | OSError):
            log.exception("an error of dbx-aml's own")
        if changing is not None:
            kept = _undone(node, {**kept, **changing.pins}, changing.files, path)
        # What a server did may be over in a while.
        is_passing = node.wheelhouse is None and isinstance(
            err.__cause__, subprocess.SubprocessError
        )
        return _failed(
            node, replace(marker, installed=kept), err, TRY_AGAIN if is_passing else FAILED
        )
    log.info("installed=%s", dict(plan.pins))
    for one in plan.kept_packages:
        log.info("%s", one)
    return 0


def _plan(node: Node, before: Mapping[str, str], path: list[str]) -> Plan:
    place = sysconfig.get_path("purelib")
    if not os.access(place, os.W_OK):
        raise ClusterError(f"{place} must be writable: it is not; run the script as root")
    if node.wheelhouse is not None:
        return plan_from_wheelhouse(node.wheelhouse, before, node.wheel, node.work)
    return plan_from_index(before, node.wheel, node.work, path)


def _undone(
    node: Node, names: Mapping[str, str], files: Iterable[Path], path: list[str]
) -> dict[str, str]:
    """Leave packages and variables as the runtime has them; return what could not be removed."""
    left = roll_back(names, files, path)
    try:
        write_environment({}, node.home)
    except OSError as err:
        log.warning("variables could not be removed: %s", err.strerror)
    return left


def _failed(node: Node, marker: NodeMarker, err: Exception, code: int) -> int:
    reason = " ".join(str(err).split())
    if isinstance(err, OSError):
        reason = (
            f"{err.filename or 'node'} must be usable: {err.strerror}; look at its disk or mount"
        )
    elif not isinstance(err, DbxAmlError):
        reason = f"dbx-aml ended with an error of its own: {type(err).__name__} {reason}"
    try:
        node.write(replace(marker, status="failed", reason=reason))
    except OSError as why:
        log.warning("marker could not be written: %s", why.strerror)
    # The script repeats it as its last line.
    (node.work / "reason").write_text(reason, encoding="utf-8")
    return code


def _without(packages: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: version for name, version in packages.items() if name not in names}


_NO_REGION = (
    "MLFLOW_TRACKING_URI is not set, as the link has no region: add it, or call dbx_aml.connect()"
)


def _runtime_messages(runtime: str | None) -> tuple[str, ...]:
    found = re.match(r"\d+", runtime or "")
    if found is None or int(found[0]) <= newest_release():
        return ()
    return (
        f"runtime {runtime} is newer than those this release knows, up to {newest_release()}: "
        "what was added was proved on this node only",
    )


def is_done(home: Path, fingerprint: str) -> bool:
    """Tell whether an earlier run did the same, and all of it is still there."""
    marker = read_marker(home / OWN_FOLDER / "marker.json")
    if marker is None or not marker.is_ok or marker.fingerprint != fingerprint:
        return False
    try:
        are_there = all(version(name) == pin for name, pin in marker.installed.items())
    except PackageNotFoundError:
        return False
    return are_there and is_written(marker.variables, home)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read what the script says, and do it."""
    logging.basicConfig(level=logging.INFO, format="dbx-aml: %(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="dbx_aml.cluster.node.prepare")
    for name in ("home", "work", "wheel", "wheelhouse", "config"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("runtime", "fingerprint"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--is-driver", action="store_true")
    parser.add_argument("--started", type=float)
    parser.add_argument("--is-done", action="store_true")
    given = vars(parser.parse_args(arguments))
    if given.pop("is_done"):
        return 0 if is_done(given["home"], given["fingerprint"]) else FAILED
    steps = {"fetch": round(time.time() - given.pop("started"), 2)}
    return prepare(Node(**given, steps=steps))


if __name__ == "__main__":
    sys.exit(main())
