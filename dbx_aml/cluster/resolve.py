"""Resolve, once per runtime and release, the packages that a runtime lacks, with hashes.

The packages of the runtime are constraints: a node installs the result without dependencies and
changes none of them. `python -m dbx_aml.cluster.resolve <folder>` writes the list of each runtime.
"""

import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from dbx_aml._common.errors import ClusterError, ProgramError
from dbx_aml._common.own_wheel import own_requirements
from dbx_aml._common.paths import sha256_of_file
from dbx_aml._common.programs import run_program
from dbx_aml._common.text import install_command, one_line, plural
from dbx_aml._common.uv import compile_requirements, index_variables
from dbx_aml.cluster.node.requirements import PACKAGE, WheelHash
from dbx_aml.cluster.runtimes import REFUSED, Runtime, known_runtimes
from dbx_aml.models.mlflow_releases import spark_udf_requirements

# For one call of pip or uv.
_TIMEOUT_S = 900.0
# pip takes only the tags that it is given.
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)),
    *(f"manylinux{name}_x86_64" for name in ("2014", "2010", "1")),
)
# Every runtime brings them, some as the vendor's own builds, which no index has.
_BUILT_BY_VENDOR = ("mlflow-skinny", "pandas")
# The plugin works with newer ones than it allows; a resolver that kept to its limit would silently
# choose a release of the plugin from years ago.
_NEWER_IS_FINE = "azure-storage-blob"


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """Name, version and requirements of a wheel.

    Args:
        name: Normalized name, for example "azureml-mlflow".
        version: Version, for example "1.62.0.post6".
        requires: Requirements as in its metadata, also for extras.
    """

    name: str
    version: str
    requires: Sequence[str] = field(default=())

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
                metadata = message_from_bytes(archive.read(name))
        except (OSError, zipfile.BadZipFile, StopIteration) as err:
            raise ClusterError(f"{file} must be a wheel: it is not; download it again") from err
        return cls(
            name=canonicalize_name(metadata["Name"]),
            version=metadata["Version"],
            requires=metadata.get_all("Requires-Dist") or (),
        )


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """The requirements of some packages that a runtime and a list do not meet.

    Args:
        missing: Requirements on packages that the runtime lacks.
        newer: A message for each package of the runtime that is newer than allowed.
    """

    missing: tuple[str, ...]
    newer: tuple[str, ...]


def check_requirements(
    wheels: Iterable[Wheel], versions: Mapping[str, str], python: str
) -> Requirements:
    """Compare the requirements of packages with what a runtime has.

    Args:
        wheels: Packages to add.
        versions: Version by name of each installed package.
        python: Minor version of the runtime's Python.

    Raises:
        ClusterError: A package of the runtime is older than required.
    """
    missing, newer = [], []
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "extra": "",
    }
    for wheel in wheels:
        label = f"{wheel.name} {wheel.version}".strip()
        for requirement in map(Requirement, wheel.requires):
            if requirement.marker and not requirement.marker.evaluate(environment):
                continue
            version = versions.get(canonicalize_name(requirement.name))
            if version is None:
                extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
                missing.append(f"{requirement.name}{extras}{requirement.specifier}")
            elif not requirement.specifier.contains(version, prereleases=True):
                if not _is_newer(version, requirement):
                    raise ClusterError(
                        f"{requirement.name} must be {requirement.specifier} for {label}: the "
                        f"runtime has {version}; use a newer runtime"
                    )
                newer.append(
                    f"{requirement.name} {version} stays, although {label} requires "
                    f"{requirement.specifier}"
                )
    return Requirements(missing=tuple(missing), newer=tuple(newer))


def _is_newer(version: str, requirement: Requirement) -> bool:
    """Tell whether a version that a requirement does not allow is above its limits."""
    for limit in requirement.specifier:
        # "~=" and "==" are upper limits too, for a newer version.
        is_lower_limit = limit.operator in (">=", ">", "~=", "==")
        if is_lower_limit and Version(version) < Version(limit.version.removesuffix(".*")):
            return False
        if limit.operator == "!=" and not limit.contains(version, prereleases=True):
            return False
    return True


def resolve(runtime: Runtime, requirements: Sequence[str], work_folder: Path) -> list[WheelHash]:
    """Return the packages that a runtime lacks for some requirements; download their wheels.

    Args:
        runtime: Runtime with all its packages.
        requirements: Requirements of this package, for example "azure-identity>=1.15".
        work_folder: Folder for the wheels.

    Raises:
        ClusterError: The index lacks a package, or none fits the packages of the runtime.
    """
    packages = runtime.packages
    missing = check_requirements(
        [Wheel(name=PACKAGE, version="", requires=requirements)], packages, runtime.python
    ).missing
    if not missing:
        return []
    settings = {
        "constraint": [
            f"{name}=={version}" for name, version in packages.items() if _is_version(version)
        ],
        "override": [f"{_NEWER_IS_FINE}=={packages[_NEWER_IS_FINE]}"]
        if _NEWER_IS_FINE in packages
        else [],
        "excludes": [name for name in _BUILT_BY_VENDOR if name in packages],
    }
    arguments = ["--generate-hashes", "--only-binary", ":all:"]
    for option, lines in settings.items():
        file = work_folder / f"{option}.txt"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        arguments += [f"--{option}", str(file)]
    try:
        text = compile_requirements(
            runtime.python, arguments, _TIMEOUT_S, input_text="\n".join(missing)
        )
    except ProgramError as err:
        raise _index_error("uv", err) from err
    blocks = text.replace(" \\\n", " ").splitlines()
    added = []
    for block in blocks:
        name, _, version = block.split()[0].partition("==")
        if name not in packages:
            added.append(block)
        elif Version(version) != Version(packages[name]):
            raise ClusterError(
                f"packages of runtime {runtime.name} must stay as they are: {name} "
                f"{packages[name]} would become {version}; use a newer runtime"
            )
    download_wheels(added, runtime.python, work_folder)
    wheels = {file: Wheel.from_file(file) for file in sorted(work_folder.glob("*.whl"))}
    return [
        WheelHash(name=wheel.name, version=wheel.version, sha256=sha256_of_file(file))
        for file, wheel in wheels.items()
    ]


def download_wheels(lines: Iterable[object], python: str, folder: Path) -> None:
    """Download the wheels of a list of hashes that run on the nodes.

    Raises:
        ClusterError: The index lacks a wheel with the hash of its line.
    """
    file = folder / "download.txt"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if find_spec("pip") is None:
        raise ClusterError(
            f"wheelhouse needs pip: it is not installed; run: {install_command('wheelhouse')}"
        )
    arguments = ["pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    arguments += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(folder)]
    arguments += ["--python-version", python, "--requirement", str(file)]
    for platform in _PLATFORMS:
        arguments += ["--platform", platform]
    command = [sys.executable, "-P", "-m", *arguments]
    try:
        run_program(command, _TIMEOUT_S, environment=index_variables())
    except ProgramError as err:
        raise _index_error("pip", err) from err


def _is_version(version: str) -> bool:
    try:
        return bool(Version(version))
    except InvalidVersion:
        # A vendor's own build: no resolver can compare its version.
        return False


def _index_error(program: str, error: ProgramError) -> ClusterError:
    if not error.stderr:
        return ClusterError(str(error))
    message = one_line(error.stderr)[-600:].rpartition("ERROR: ")[2]
    return ClusterError(
        f"package index must have what is added: got {message!r} from {program}; "
        "compare the index's settings"
    )


def node_requirements(runtime: Runtime) -> list[str]:
    """Return the requirements of this package on a node of a runtime."""
    mlflow_version = runtime.packages.get("mlflow-skinny")
    return [
        *own_requirements(),
        *(spark_udf_requirements(mlflow_version) if mlflow_version else []),
    ]


def inputs_digest(runtime: Runtime) -> str:
    """Return a hash of everything that a runtime's list was resolved for."""
    lines = [runtime.python, *sorted(node_requirements(runtime))]
    lines += [f"{name}=={version}" for name, version in sorted(runtime.packages.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def write_lists(folder: Path) -> None:
    """Write the list of each runtime, or the reason why it is refused."""
    for runtime in known_runtimes().values():
        if not runtime.is_complete:
            continue
        own = Wheel(name=PACKAGE, version="", requires=node_requirements(runtime))
        lines = [f"# inputs: {inputs_digest(runtime)}"]
        try:
            with tempfile.TemporaryDirectory() as temporary:
                entries = resolve(runtime, own.requires, Path(temporary))
                wheels = [Wheel.from_file(file) for file in sorted(Path(temporary).glob("*.whl"))]
                versions = {**runtime.packages, **{wheel.name: wheel.version for wheel in wheels}}
                found = check_requirements([own, *wheels], versions, runtime.python)
                if found.missing:
                    raise ClusterError(
                        f"list must be complete: it lacks {found.missing}; report it"
                    )
                lines += [f"# {message}" for message in found.newer]
                lines += map(str, entries)
                result = plural(len(entries), "package")
        except ClusterError as err:
            result = f"{REFUSED}{err}"
            lines.append(result)
        (folder / f"{runtime.name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        sys.stderr.write(f"{runtime.name}: {result.removeprefix('# ')}\n")


if __name__ == "__main__":
    write_lists(Path(sys.argv[1]))
