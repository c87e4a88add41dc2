"""What has to be added to a machine whose own packages must not change.

Nothing here asks a resolver to keep a runtime's packages and hopes: a requirement of ours on a
package that the machine has never reaches the resolver. Where the machine's is newer than ours
allows, that one limit is passed over and said; where it is older than ours needs, that is an error.
A resolver that was told of such a limit would answer with a release of years ago, in silence.
"""

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
# MLflow's entry points through which it finds a store for "azureml://".
ENTRY_POINT_GROUPS = (
    "mlflow.tracking_store",
    "mlflow.model_registry_store",
    "mlflow.artifact_repository",
)


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What packages of ours ask for, sorted by what the machine has.

    Args:
        to_add: Requirements on packages that the machine lacks.
        kept_packages: Packages of the machine that are newer than allowed.
    """

    to_add: tuple[str, ...] = ()
    kept_packages: tuple[KeptPackage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """What matters of a package here, be it installed or a file.

    Args:
        name: For example "azureml-mlflow".
        version: For example "1.62.0.post6".
        requires: As its metadata has them, those of extras included.
    """

    name: str
    version: str
    requires: Sequence[str] = field(default=())

    @classmethod
    def of(cls, metadata: Message) -> Self:
        """Return the package that the text of a METADATA file describes."""
        return cls(
            name=canonicalize_name(metadata["Name"]),
            version=metadata["Version"],
            requires=metadata.get_all("Requires-Dist") or (),
        )

    @classmethod
    def from_file(cls, file: Path) -> Self:
        """Return the package of a `.whl` file.

        Raises:
            ClusterError: It is none.
        """
        try:
            with zipfile.ZipFile(file) as archive:
                name = next(
                    name for name in archive.namelist() if name.endswith(".dist-info/METADATA")
                )
                return cls.of(message_from_bytes(archive.read(name)))
        except (OSError, zipfile.BadZipFile, StopIteration) as err:
            raise ClusterError(f"{file} must be a wheel: it is not; fetch it anew") from err

    def requirement(self, name: str) -> Requirement | None:
        """Return what it asks of one package; None where it does not."""
        found = (Requirement(text) for text in self.requires)
        return next((one for one in found if canonicalize_name(one.name) == name), None)


def missing_requirements(
    wheels: Iterable[Wheel],
    machine: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
) -> Requirements:
    """Return what these packages still need on a machine.

    Args:
        wheels: The packages, for example the plugin and this one.
        machine: Version by name of what is there and stays.
        environment: Values of markers such as "python_version", for another machine than this.

    Raises:
        ClusterError: The machine has a package that is older than one of these needs.
    """
    to_add: list[str] = []
    kept_packages: list[KeptPackage] = []
    for wheel in wheels:
        for requirement in map(Requirement, wheel.requires):
            if not _applies(requirement, environment):
                continue
            name = canonicalize_name(requirement.name)
            version = machine.get(name)
            if version is None:
                to_add.append(_without_marker(requirement))
            elif not _allows(requirement.specifier, version):
                owner = f"{wheel.name} {wheel.version}"
                kept_packages.append(_kept_package(name, version, owner, requirement.specifier))
    return Requirements(to_add=tuple(to_add), kept_packages=tuple(kept_packages))


def unmet_requirements(
    wheels: Iterable[Wheel], machine: Mapping[str, str], kept_packages: Iterable[KeptPackage] = ()
) -> list[str]:
    """Return each requirement of these packages that the machine does not meet, as a text.

    Args:
        wheels: The packages that were added.
        machine: Version by name of everything that is there now.
        kept_packages: What was passed over knowingly.
    """
    known = {(one.required_by, one.package) for one in kept_packages}
    wrong = []
    for wheel in wheels:
        owner = f"{wheel.name} {wheel.version}"
        for requirement in map(Requirement, wheel.requires):
            name = canonicalize_name(requirement.name)
            version = machine.get(name)
            if not _applies(requirement, None) or (owner, name) in known:
                continue
            if version is None or not _allows(requirement.specifier, version):
                asked = f"{requirement.name}{requirement.specifier}"
                wrong.append(f"{owner} needs {asked}, there is {version or 'none'}")
    return wrong


def read_pins(text: str) -> dict[str, str]:
    """Return version by name of the lines `name==version` of a requirements file or a freeze.

    Anything else in it, such as hashes, comments or packages from a path, is left out.
    """
    pins = {}
    for line in text.splitlines():
        name, equals, version = line.split("#")[0].split(";")[0].partition("==")
        version = (version.split() or [""])[0]
        if equals and name.strip().replace("-", "").replace("_", "").replace(".", "").isalnum():
            pins[str(canonicalize_name(name.strip()))] = version
    return pins


def constraints(machine: Mapping[str, str]) -> str:
    """Return the lines of a constraints file that keep a machine's packages as they are."""
    return "".join(f"{name}=={version}\n" for name, version in machine.items() if _parsed(version))


def _parsed(version: str) -> Version | None:
    try:
        return Version(version)
    except InvalidVersion:
        # A build of the vendor's own: no resolver knows how it compares.
        return None


def _applies(requirement: Requirement, environment: Mapping[str, str] | None) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(
        {"extra": "", **(environment or {})}
    )


def _without_marker(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _allows(specifier: SpecifierSet, version: str) -> bool:
    if _parsed(version) is None:
        return not specifier
    return specifier.contains(version, prereleases=True)


def _kept_package(name: str, version: str, owner: str, specifier: SpecifierSet) -> KeptPackage:
    """Return the limit that is passed over; only an upper one may be.

    Raises:
        ClusterError: The machine's package is older than what is asked for.
    """
    is_newer = (parsed := _parsed(version)) is not None
    for one in specifier:
        # "~=" and "==" are an upper limit too, for a version above theirs.
        lower = one.version.removesuffix(".*") if one.operator in (">=", ">", "~=", "==") else ""
        if lower and parsed and parsed < Version(lower):
            is_newer = False
        if one.operator == "!=" and not one.contains(version, prereleases=True):
            is_newer = False
    if not is_newer:
        raise ClusterError(
            f"{name} must be {specifier} for {owner}: got {version}; use a newer runtime, or take "
            "it out of the image or the wheelhouse that brings it"
        )
    return KeptPackage(package=name, version=version, required_by=owner, requirement=str(specifier))
