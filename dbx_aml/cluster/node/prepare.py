"""Prepare this node; `dbx_aml_init.sh` runs this module straight from the wheel of the package."""

import argparse
import logging
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from dbx_aml._common.errors import ClusterError, DbxAmlError, LinkError, WorkspaceError
from dbx_aml._common.log import PrintableFormatter, get_logger
from dbx_aml._common.paths import write_atomically
from dbx_aml._common.text import one_line, printable
from dbx_aml.cluster.node.marker import MARKER_NAME, NodeMarker, read_marker
from dbx_aml.cluster.node.packages import check_plugin, install_packages, remove_packages
from dbx_aml.cluster.node.requirements import PACKAGE, REQUIREMENTS_FILE, read_hashes
from dbx_aml.cluster.node.spark_environment import (
    OWN_FOLDER,
    link_variables,
    write_link,
    write_variables,
)
from dbx_aml.link.config_file import CONFIG_NAME
from dbx_aml.link.link import Link

log = get_logger(__name__)

# Exit codes, which the script has as well.
FAILED, WRONG_SETTINGS = 1, 78

_INTERRUPTED = "the init script must end: it was killed, or is still running; restart the cluster"
_NO_REGION_MESSAGE = (
    "MLFLOW_TRACKING_URI is not set, because the link has no region: add it, or call "
    "dbx_aml.connect()"
)


@dataclass(frozen=True, kw_only=True)
class Node:
    """Folders and settings of one run on one node.

    Args:
        home: Databricks' folder, "/databricks".
        work_folder: Folder for temporary files, which the script removes. It has the checked list
            of hashes and, in "wheels", the wheels.
        packages_from: Origin of the wheels, for people.
        config: File of the link; None if variables or the node's own file have the link.
        runtime: Version of the Databricks Runtime, if known.
        is_driver: Whether the node is the driver.
        fingerprint: Hash of the script and its settings.
        steps: Seconds of each finished step.
    """

    home: Path
    work_folder: Path
    packages_from: str = ""
    config: Path | None = None
    runtime: str | None = None
    is_driver: bool = False
    fingerprint: str = ""
    steps: dict[str, float] = field(default_factory=dict)

    @property
    def wheel_folder(self) -> Path:
        """Folder of the wheels."""
        return self.work_folder / "wheels"

    @property
    def marker_path(self) -> Path:
        """File of the marker."""
        return self.home / OWN_FOLDER / MARKER_NAME

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

    def write_reason(self, err: Exception) -> None:
        """Write the cause of a failure to the file that the script reads."""
        reason = printable(one_line(err))
        if isinstance(err, OSError):
            place = err.filename or "node"
            reason = f"{place} must be usable: {err.strerror}; check its disk or mount"
        elif not isinstance(err, DbxAmlError):
            log.exception("unexpected error of dbx-aml")
            reason = (
                f"dbx-aml must not fail by itself: got {type(err).__name__} {reason}; report it"
            )
        (self.work_folder / "reason").write_text(reason, encoding="utf-8")


def prepare_node(node: Node) -> int:
    """Add the packages of the list, write link and variables; return the exit code.

    After a failure the script calls `roll_back`.
    """
    try:
        link = Link.load(config=node.config)
        variables = link_variables(link, node.home)
    except (LinkError, WorkspaceError) as err:
        node.write_reason(err)
        return WRONG_SETTINGS
    try:
        text = (node.work_folder / REQUIREMENTS_FILE).read_text(encoding="utf-8")
        entries = read_hashes(text)
        added = _recorded_packages(node)
        if added:
            # Other settings, or a run that was killed: the node begins as the runtime has it.
            remove_packages(added, node.wheel_folder.glob("*.whl"))
        pins = {entry.name: entry.version for entry in entries}
        marker = NodeMarker(
            status="failed",
            reason=_INTERRUPTED,
            version=pins[PACKAGE],
            runtime=node.runtime,
            python=platform.python_version(),
            is_driver=node.is_driver,
            packages_from=node.packages_from,
            messages=() if link.tracking_uri else (_NO_REGION_MESSAGE,),
            fingerprint=node.fingerprint,
        )
        with node.timed_step("install"):
            install_packages(
                entries,
                node.wheel_folder,
                before_change=lambda: node.write_marker(replace(marker, installed=pins)),
            )
        with node.timed_step("check"):
            check_plugin()
        with node.timed_step("configure"):
            write_link(link, node.home)
            write_variables(variables, node.home)
        node.write_marker(
            replace(marker, status="ok", reason=None, installed=pins, variables=variables)
        )
    except Exception as err:  # noqa: BLE001 - the cause of any failure belongs into the marker
        node.write_reason(err)
        return FAILED
    log.info("installed=%s", pins)
    return 0


def roll_back(node: Node, reason: str) -> int:
    """Remove the packages that this or an earlier run added, and write the marker of a failure.

    A package that cannot be removed stays in the marker: the next run tries again.
    """
    marker = read_marker(node.marker_path) or NodeMarker(status="failed")
    installed = _recorded_packages(node)
    try:
        write_variables({}, node.home)
        (node.home / OWN_FOLDER / CONFIG_NAME).unlink(missing_ok=True)
        if installed:
            remove_packages(installed, node.wheel_folder.glob("*.whl"))
        installed = {}
    except (ClusterError, OSError) as err:
        reason = f"{reason} (and some of it stays on the node: {printable(one_line(err))})"
    node.write_marker(
        replace(marker, status="failed", reason=reason, installed=installed, variables={})
    )
    return 0


def _recorded_packages(node: Node) -> dict[str, str]:
    marker = read_marker(node.marker_path)
    return dict(marker.installed) if marker else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the script's arguments and prepare the node; return the exit code."""
    # The platform keeps the script's log as a file that others may read.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("dbx-aml: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    parser = argparse.ArgumentParser(prog="dbx_aml.cluster.node.prepare")
    for name in ("home", "work-folder", "config"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("packages-from", "runtime", "fingerprint"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--is-driver", action="store_true")
    parser.add_argument("--started", type=float)
    parser.add_argument("--roll-back", metavar="REASON")
    options = vars(parser.parse_args(arguments))
    reason, started = options.pop("roll_back"), options.pop("started")
    if reason is not None:
        return roll_back(Node(**options), reason)
    return prepare_node(Node(**options, steps={"fetch": round(time.time() - started, 2)}))


if __name__ == "__main__":
    sys.exit(main())
