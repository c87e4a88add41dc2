"""Prepare this node; `dbx_aml_init.sh` runs this module straight from the wheel of the package."""

import argparse
import logging
import os
import platform
import re
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
from dbx_aml._common.log import PrintableFormatter, get_logger
from dbx_aml._common.paths import write_atomically
from dbx_aml._common.text import one_line, printable
from dbx_aml.cluster.node.installed_packages import (
    compile_files,
    installed_versions,
    search_path,
)
from dbx_aml.cluster.node.marker import MARKER_NAME, NodeMarker, read_marker
from dbx_aml.cluster.node.package_changes import check_packages, install_packages, roll_back
from dbx_aml.cluster.node.package_plan import PackagePlan, plan_packages
from dbx_aml.cluster.node.requirements import PACKAGE, Wheel
from dbx_aml.cluster.node.spark_environment import (
    OWN_FOLDER,
    has_variables,
    link_variables,
    write_link,
    write_variables,
)
from dbx_aml.cluster.node.verify import PluginCheck
from dbx_aml.cluster.runtimes import newest_release
from dbx_aml.link.link import Link

log = get_logger(__name__)

# Exit codes, which the script has as well.
FAILED, WRONG_SETTINGS = 1, 78

_NO_REGION_MESSAGE = (
    "MLFLOW_TRACKING_URI is not set, because the link has no region: add it, or call "
    "dbx_aml.connect()"
)


@dataclass(frozen=True, kw_only=True)
class Node:
    """Folders and settings of one run on one node.

    Args:
        home: Databricks' folder, "/databricks".
        work_folder: Folder for temporary files, which the script removes. It has the list of hashes
            that the script has checked.
        wheel: Wheel that this code runs from.
        wheelhouse: Folder with the packages to add.
        config: File of the link; None if variables or the node's own file have the link.
        runtime: Version of the Databricks Runtime, if known.
        is_driver: Whether the node is the driver.
        fingerprint: Hash of the script and its settings.
        steps: Seconds of each finished step.
    """

    home: Path
    work_folder: Path
    wheel: Path
    wheelhouse: Path
    config: Path | None
    runtime: str | None
    is_driver: bool
    fingerprint: str
    steps: dict[str, float] = field(default_factory=dict)

    @property
    def marker_path(self) -> Path:
        """File of the marker."""
        return _marker_path(self.home)

    @contextmanager
    def timed_step(self, name: str) -> Iterator[None]:
        """Record the duration of a step, also of one that fails."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.steps[name] = round(time.monotonic() - started, 2)
            log.info("%s %.2f s", name, self.steps[name])

    def write_marker(self, marker: NodeMarker) -> None:
        """Write the marker with the current time and the finished steps."""
        time_utc = datetime.now(UTC).isoformat(timespec="seconds")
        text = replace(marker, time=time_utc, steps=dict(self.steps)).to_json()
        write_atomically(self.marker_path, text)


def prepare_node(node: Node) -> int:
    """Add missing packages, check them, write link and variables; return the exit code.

    A failure removes all added packages, so the node stays as the runtime has it.
    """
    previous = read_marker(node.marker_path) or NodeMarker(status="failed")
    # Packages that an earlier run added may be replaced or removed.
    added = dict(previous.installed)
    marker = NodeMarker(
        status="failed",
        installed=added,
        version=Wheel.from_file(node.wheel).version,
        runtime=node.runtime,
        python=platform.python_version(),
        is_driver=node.is_driver,
        packages_from=f"wheelhouse {node.wheelhouse}",
        messages=_runtime_messages(node.runtime),
        fingerprint=node.fingerprint,
    )
    try:
        link = Link.load(config=node.config)
        variables = link_variables(link, node.home)
        if link.tracking_uri is None:
            marker = replace(marker, messages=(*marker.messages, _NO_REGION_MESSAGE))
    except (LinkError, WorkspaceError) as err:
        return _record_failure(node, marker, err, WRONG_SETTINGS)
    path = search_path(node.wheel)
    started_plan: PackagePlan | None = None
    try:
        if not previous.is_ok:
            # The earlier run was killed while it installed these packages.
            added = _roll_back(node, added, (), path)
        runtime_packages = {
            name: installed_version
            for name, installed_version in installed_versions(path).items()
            if name not in added and name != PACKAGE
        }
        with node.timed_step("plan"):
            plan = _plan_packages(node, runtime_packages)
        installed = {**added, **plan.pins}
        marker = replace(marker, kept_packages=plan.kept_packages)
        node.write_marker(replace(marker, status="started", installed=installed))
        started_plan = plan
        with PluginCheck() as plugin_check:
            with node.timed_step("install"):
                install_packages(plan, runtime_packages, path)
            with node.timed_step("check"):
                check_packages(installed, plan.kept_packages, runtime_packages, path)
                plugin_check.start()
                compile_files(installed, path)
                plugin_check.wait()
        with node.timed_step("configure"):
            write_link(link, node.home)
            write_variables(variables, node.home)
        node.write_marker(replace(marker, status="ok", installed=installed, variables=variables))
    except Exception as err:
        if not isinstance(err, ClusterError | OSError):
            log.exception("unexpected error of dbx-aml")
        if started_plan is not None:
            added = _roll_back(node, {**added, **started_plan.pins}, started_plan.files, path)
        return _record_failure(node, replace(marker, installed=added), err, FAILED)
    log.info("installed=%s", dict(plan.pins))
    for package in plan.kept_packages:
        log.info("%s", package)
    return 0


def _plan_packages(node: Node, runtime_packages: Mapping[str, str]) -> PackagePlan:
    site_packages = sysconfig.get_path("purelib")
    if not os.access(site_packages, os.W_OK):
        raise ClusterError(f"{site_packages} must be writable: it is not; run the script as root")
    return plan_packages(node.wheelhouse, runtime_packages, node.wheel, node.work_folder)


def _roll_back(
    node: Node, packages: Mapping[str, str], files: Iterable[Path], path: list[str]
) -> dict[str, str]:
    """Remove packages and variables; return the packages that could not be removed."""
    remaining = roll_back(packages, files, path)
    try:
        write_variables({}, node.home)
    except OSError as err:
        log.warning("variables could not be removed: %s", err.strerror)
    return remaining


def _record_failure(node: Node, marker: NodeMarker, err: Exception, exit_code: int) -> int:
    """Write the marker of a failure; return the exit code."""
    reason = printable(one_line(err))
    if isinstance(err, OSError):
        reason = f"{err.filename or 'node'} must be usable: {err.strerror}; check its disk or mount"
    elif not isinstance(err, DbxAmlError):
        reason = f"dbx-aml must not fail by itself: got {type(err).__name__} {reason}; report it"
    try:
        node.write_marker(replace(marker, status="failed", reason=reason))
    except OSError as marker_err:
        log.warning("marker could not be written: %s", marker_err.strerror)
    # The script prints it as its last line.
    (node.work_folder / "reason").write_text(reason, encoding="utf-8")
    return exit_code


def _runtime_messages(runtime: str | None) -> tuple[str, ...]:
    match = re.match(r"\d+", runtime or "")
    if match is None or int(match[0]) <= newest_release():
        return ()
    return (
        f"runtime {runtime} is newer than the known ones, up to {newest_release()}: the added "
        "packages were checked on this node only",
    )


def _marker_path(home: Path) -> Path:
    return home / OWN_FOLDER / MARKER_NAME


def is_prepared(home: Path, fingerprint: str) -> bool:
    """Tell whether an earlier run had the same settings and its changes are still complete."""
    marker = read_marker(_marker_path(home))
    if marker is None or not marker.is_ok or marker.fingerprint != fingerprint:
        return False
    try:
        is_complete = all(version(name) == pin for name, pin in marker.installed.items())
    except PackageNotFoundError:
        return False
    return is_complete and has_variables(marker.variables, home)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the script's arguments and prepare the node; return the exit code."""
    # The platform keeps the script's log as a file that others may read.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("dbx-aml: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    parser = argparse.ArgumentParser(prog="dbx_aml.cluster.node.prepare")
    for name in ("home", "work-folder", "wheel", "wheelhouse", "config"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("runtime", "fingerprint"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--is-driver", action="store_true")
    parser.add_argument("--started", type=float)
    parser.add_argument("--is-prepared", action="store_true")
    options = vars(parser.parse_args(arguments))
    if options.pop("is_prepared"):
        return 0 if is_prepared(options["home"], options["fingerprint"]) else FAILED
    steps = {"fetch": round(time.time() - options.pop("started"), 2)}
    return prepare_node(Node(**options, steps=steps))


if __name__ == "__main__":
    sys.exit(main())
