"""Add what a plan says, see that nothing else has changed, or take it back."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.node.installed_packages import (
    forget_halves,
    installed,
    refuse_overwriting,
    remove_files,
    versions,
    wheel_of,
)
from dbx_aml.cluster.node.marker import KeptPackage
from dbx_aml.cluster.node.package_plan import Plan
from dbx_aml.cluster.node.pip import run_pip
from dbx_aml.cluster.node.requirements import unmet_requirements

log = logging.getLogger(__name__)

# Root's pip is meant here.
_AS_ROOT = ("--root-user-action", "ignore")


def install(plan: Plan, before: Mapping[str, str], path: list[str]) -> None:
    """Add the packages of a plan; no index is asked, and nothing but them is touched.

    Args:
        plan: What to add.
        before: Version by name of what the runtime brought.
        path: Where this Python finds its packages.

    Raises:
        ClusterError: pip fails, or a file of the runtime would be written over.
    """
    if not plan.pins:
        return
    refuse_overwriting(plan.files, before.keys(), path)
    run_pip(
        *("install", "--no-index", "--no-deps", "--no-compile", "--no-warn-script-location"),
        *_AS_ROOT,
        *plan.arguments,
        isolated=True,
    )


def check(
    added: Mapping[str, str],
    kept_packages: Sequence[KeptPackage],
    before: Mapping[str, str],
    path: list[str],
) -> None:
    """Refuse a change to anything but what was added, and additions that do not fit.

    Args:
        added: Version by name of everything that was added, by this run or an earlier one.
        kept_packages: Limits that were passed over knowingly.
        before: Version by name of what the runtime brought.
        path: Where this Python finds its packages.

    Raises:
        ClusterError: Something has changed, or a requirement is not met.
    """
    there = installed(path)
    after = {name: one.version for name, one in there.items()}
    expected = {**before, **added}
    changed = sorted(
        name for name in expected.keys() | after.keys() if after.get(name) != expected.get(name)
    )
    if changed:
        raise ClusterError(
            f"the runtime's packages must stay as they are: {changed} changed; see the script's log"
        )
    wrong = unmet_requirements((wheel_of(there[name]) for name in added), after, kept_packages)
    if wrong:
        raise ClusterError(
            f"what is added must fit the runtime: {'; '.join(wrong)}; "
            "make the wheelhouse with this runtime's packages"
        )


def roll_back(names: Mapping[str, str], files: Iterable[Path], path: list[str]) -> dict[str, str]:
    """Remove packages and what is left of halves of them; return those that are still there.

    Args:
        names: Version by name of the packages.
        files: Their wheels, where known.
        path: Where this Python finds its packages.
    """
    forget_halves(names, path)
    there = sorted(names.keys() & installed(path).keys())
    if there:
        log.warning("removing %s", there)
        try:
            run_pip("uninstall", "--yes", *_AS_ROOT, *there, isolated=True)
        except ClusterError as err:
            log.warning("%s", err)
    remove_files(files, path)
    left = versions(path)
    return {name: left[name] for name in names if name in left}
