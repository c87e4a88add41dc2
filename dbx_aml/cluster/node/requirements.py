"""The requirements of the added packages, on a runtime whose own packages must not change.

A requirement on a package that the runtime has never reaches pip's resolver. If the runtime's
package is newer than allowed, it is kept and recorded; if it is older than required, that is an
error. A resolver that knew such a requirement would silently select a release of azureml-mlflow
from years ago.
"""

import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Self

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.node.marker import KeptPackage

PACKAGE = "dbx-aml"
PLUGIN = "azureml-mlflow"
REQUIREMENTS_FILE = "requirements.txt"
_HASH_LINE = re.compile(
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[\w.!+-]+)"
    r" --hash=sha256:(?P<sha256>[0-9a-f]{64})",
    re.ASCII,
)
# MLflow's entry points through which it finds a store for "azureml://".
ENTRY_POINT_GROUPS = (
    "mlflow.tracking_store",
    "mlflow.model_registry_store",
    "mlflow.artifact_repository",
)


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """The requirements of some packages on a runtime.

    Args:
        to_add: Requirements on packages that the runtime lacks.
        kept_packages: Packages of the runtime that are newer than allowed.
    """

    to_add: tuple[str, ...] = ()
    kept_packages: tuple[KeptPackage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """Name, version and requirements of a package, installed or in a file.

    Args:
        name: Normalized name, for example "azureml-mlflow".
        version: Version, for example "1.62.0.post6".
        requires: Requirements as in its metadata, also for extras.
    """

    name: str
    version: str
    requires: Sequence[str] = field(default=())

    @classmethod
    def from_metadata(cls, metadata: Message) -> Self:
        """Return the package of a METADATA file's content."""
        return cls(
            name=canonicalize_name(metadata["Name"]),
            version=metadata["Version"],
            requires=metadata.get_all("Requires-Dist") or (),
        )

    @classmethod
    def from_file(cls, file: Path) -> Self:
        """Return the package of a `.whl` file.

        Raises:
            ClusterError: The file is no wheel.
        """
        try:
            with zipfile.ZipFile(file) as archive:
                name = next(
                    name for name in archive.namelist() if name.endswith(".dist-info/METADATA")
                )
                return cls.from_metadata(message_from_bytes(archive.read(name)))
        except (OSError, zipfile.BadZipFile, StopIteration) as err:
            raise ClusterError(f"{file} must be a wheel: it is not; download it again") from err

    def requirement(self, name: str) -> Requirement | None:
        """Return the requirement on one package, or None if the package does not require it."""
        requirements = (Requirement(text) for text in self.requires)
        return next(
            (entry for entry in requirements if canonicalize_name(entry.name) == name), None
        )


def missing_requirements(
    wheels: Iterable[Wheel],
    versions: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
) -> Requirements:
    """Return the requirements of packages that a runtime does not meet.

    Args:
        wheels: Packages to add, for example azureml-mlflow and dbx-aml.
        versions: Version by name of each package that is installed and stays.
        environment: Values of markers such as "python_version"; by default of this machine.

    Raises:
        ClusterError: A package of the runtime is older than required.
    """
    to_add: list[str] = []
    kept_packages: list[KeptPackage] = []
    for wheel in wheels:
        for requirement in map(Requirement, wheel.requires):
            if not _applies(requirement, environment):
                continue
            name = canonicalize_name(requirement.name)
            version = versions.get(name)
            if version is None:
                to_add.append(_without_marker(requirement))
            elif not _allows(requirement.specifier, version):
                kept_packages.append(_kept_package(name, version, wheel, requirement.specifier))
    return Requirements(to_add=tuple(to_add), kept_packages=tuple(kept_packages))


def unmet_requirements(
    wheels: Iterable[Wheel],
    versions: Mapping[str, str],
    kept_packages: Iterable[KeptPackage] = (),
) -> list[str]:
    """Return a message for each requirement of the added packages that is not met.

    Args:
        wheels: Added packages.
        versions: Version by name of each installed package.
        kept_packages: Packages of the runtime whose limits are ignored.
    """
    ignored = {(package.required_by, package.package) for package in kept_packages}
    unmet = []
    for wheel in wheels:
        label = f"{wheel.name} {wheel.version}"
        for requirement in map(Requirement, wheel.requires):
            name = canonicalize_name(requirement.name)
            version = versions.get(name)
            if not _applies(requirement, None) or (label, name) in ignored:
                continue
            if version is None or not _allows(requirement.specifier, version):
                required = f"{requirement.name}{requirement.specifier}"
                unmet.append(f"{label} requires {required}, {version or 'none'} is installed")
    return unmet


def read_pins(text: str) -> dict[str, str]:
    """Return version by name of the lines `name==version` of a requirements file or a freeze.

    Hashes, comments and packages from a path are ignored.
    """
    pins = {}
    for line in text.splitlines():
        name, equals, version = line.split("#")[0].split(";")[0].partition("==")
        version = (version.split() or [""])[0]
        if equals and name.strip().replace("-", "").replace("_", "").replace(".", "").isalnum():
            pins[str(canonicalize_name(name.strip()))] = version
    return pins


@dataclass(frozen=True, kw_only=True)
class WheelHash:
    """A line of a wheelhouse's list of hashes.

    Args:
        name: Normalized name of the package, for example "azureml-mlflow".
        version: Version, for example "1.62.0.post6".
        sha256: Hash of the wheel in 64 hexadecimal digits.
    """

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def read_hashes(text: str) -> list[WheelHash]:
    """Return the lines `name==version --hash=sha256:...` of a wheelhouse's list.

    Raises:
        ClusterError: A line is anything else, for example an option of pip, or a package has two.
    """
    hashes: list[WheelHash] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _HASH_LINE.fullmatch(line)
        if not match or match["name"] in {entry.name for entry in hashes}:
            raise ClusterError(
                f"{REQUIREMENTS_FILE} of a wheelhouse must have one line 'name==version "
                f"--hash=sha256:...' for each package: line {number} is none; fill the wheelhouse "
                "again with 'dbx-aml cluster wheelhouse'"
            )
        hashes.append(WheelHash(**match.groupdict()))
    return hashes


def constraints(versions: Mapping[str, str]) -> str:
    """Return the lines of a constraints file that pin each package at its installed version."""
    return "".join(
        f"{name}=={version}\n" for name, version in versions.items() if _parse_version(version)
    )


def _parse_version(version: str) -> Version | None:
    try:
        return Version(version)
    except InvalidVersion:
        # A vendor's own build: no resolver can compare its version.
        return None


def _applies(requirement: Requirement, environment: Mapping[str, str] | None) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(
        {"extra": "", **(environment or {})}
    )


def _without_marker(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _allows(specifier: SpecifierSet, version: str) -> bool:
    if _parse_version(version) is None:
        return not specifier
    return specifier.contains(version, prereleases=True)


def _kept_package(
    name: str, version: str, required_by: Wheel, specifier: SpecifierSet
) -> KeptPackage:
    """Return the record of a package that is newer than allowed.

    Raises:
        ClusterError: The package is older than required, or a version that is known not to work.
    """
    label = f"{required_by.name} {required_by.version}"
    parsed = _parse_version(version)
    is_newer = parsed is not None
    for limit in specifier:
        # "~=" and "==" are upper limits too, for a newer version.
        is_lower_limit = limit.operator in (">=", ">", "~=", "==")
        if is_lower_limit and parsed and parsed < Version(limit.version.removesuffix(".*")):
            is_newer = False
        if limit.operator == "!=" and not limit.contains(version, prereleases=True):
            is_newer = False
    if not is_newer:
        raise ClusterError(
            f"{name} must be {specifier} for {label}: got {version}; use a newer runtime, or "
            "remove it from the image or the wheelhouse that has it"
        )
    return KeptPackage(package=name, version=version, required_by=label, requirement=str(specifier))
