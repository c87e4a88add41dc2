"""Install the packages of a plan, check that nothing else changed, and roll back."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dbx_aml._common.errors import ClusterError
from dbx_aml._common.log import get_logger
from dbx_aml.cluster.node.installed_packages import (
    installed_packages,
    installed_versions,
    refuse_overwriting,
    remove_broken_metadata,
    remove_files,
    wheel_of,
)
from dbx_aml.cluster.node.marker import KeptPackage
from dbx_aml.cluster.node.package_plan import PackagePlan
from dbx_aml.cluster.node.pip import run_pip
from dbx_aml.cluster.node.requirements import unmet_requirements

log = get_logger(__name__)

# The init script runs as root, against which pip would print a warning.
_AS_ROOT = ("--root-user-action", "ignore")


def install_packages(
    plan: PackagePlan, runtime_packages: Mapping[str, str], path: list[str]
) -> None:
    """Install the wheels of a plan, and no other package.

    Args:
        plan: Packages to install.
        runtime_packages: Version by name of each package of the runtime.
        path: Folders in which Python finds packages.

    Raises:
        ClusterError: pip failed, or a wheel would overwrite a file of the runtime.
    """
    if not plan.pins:
        return
    refuse_overwriting(plan.files, runtime_packages.keys(), path)
    requirements_file = plan.requirements_file
    run_pip(
        *("install", "--no-index", "--no-deps", "--no-compile", "--no-warn-script-location"),
        *_AS_ROOT,
        *("--find-links", str(requirements_file.parent), "--require-hashes"),
        *("--requirement", str(requirements_file)),
    )


def check_packages(
    added: Mapping[str, str],
    kept_packages: Sequence[KeptPackage],
    runtime_packages: Mapping[str, str],
    path: list[str],
) -> None:
    """Refuse added packages that do not fit, and changes to the runtime's packages.

    Args:
        added: Version by name of each package that this or an earlier run added.
        kept_packages: Packages of the runtime whose limits are ignored.
        runtime_packages: Version by name of each package of the runtime.
        path: Folders in which Python finds packages.

    Raises:
        ClusterError: A package has changed, or a requirement is not met.
    """
    packages = installed_packages(path)
    versions = {name: package.version for name, package in packages.items()}
    expected = {**runtime_packages, **added}
    changed = sorted(
        name
        for name in expected.keys() | versions.keys()
        if versions.get(name) != expected.get(name)
    )
    if changed:
        raise ClusterError(
            f"the runtime's packages must stay unchanged: {changed} changed; see the script's log"
        )
    wheels = (wheel_of(packages[name]) for name in added)
    unmet = unmet_requirements(wheels, versions, kept_packages)
    if unmet:
        raise ClusterError(
            f"added packages must fit the runtime: {'; '.join(unmet)}; "
            "make the wheelhouse for this runtime"
        )


def roll_back(
    packages: Mapping[str, str], files: Iterable[Path], path: list[str]
) -> dict[str, str]:
    """Remove packages, installed in whole or in part; return those that could not be removed.

    Args:
        packages: Version by name of each package.
        files: Wheels of the packages, if known.
        path: Folders in which Python finds packages.
    """
    remove_broken_metadata(packages, path)
    installed = sorted(packages.keys() & installed_packages(path).keys())
    if installed:
        log.warning("removing %s", installed)
        try:
            run_pip("uninstall", "--yes", *_AS_ROOT, *installed)
        except ClusterError as err:
            log.warning("%s", err)
    remove_files(files, path)
    versions = installed_versions(path)
    return {name: versions[name] for name in packages if name in versions}
