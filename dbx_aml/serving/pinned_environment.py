"""A Python with the exact version of each package, and its version of an environment in Azure ML.

uv resolves requirements for Azure ML's Linux before anything is built or sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import (
    ProgramError,
    ServingError,
    UnsolvableRequirementsError,
)
from dbx_aml._common.paths import write_atomically
from dbx_aml._common.uv import compile_requirements, uv_error_line
from dbx_aml.local.jars import cache_folder
from dbx_aml.serving.aml_resources import AmlResources

# Image that Azure ML installs the conda file into. Source: Microsoft Learn, "Prebuilt Docker
# images for inference"; seen 2026-11.
_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
_RESOLVE_TIMEOUT_S = 300.0
# Options of a requirements file that say where packages are; uv's list of pins leaves them out.
_INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links")


@dataclass(frozen=True, kw_only=True)
class PinnedEnvironment:
    """Python and the exact version of each package.

    Args:
        python: Minor version of Python, for example "3.12".
        requirements: Lines of a requirements file: options of package indexes, then a pin for each
            package, for example "pandas==2.3.3".
    """

    python: str
    requirements: tuple[str, ...]

    @property
    def hash(self) -> str:
        """Hash of the content, in 16 hexadecimal digits."""
        return hashlib.sha256(self.conda_dependencies.encode()).hexdigest()[:16]

    @property
    def package_count(self) -> int:
        """Number of packages."""
        return sum(not line.startswith("-") for line in self.requirements)

    @property
    def requirements_file(self) -> str:
        """Content of the requirements file."""
        return "".join(f"{line}\n" for line in self.requirements)

    @property
    def conda_dependencies(self) -> str:
        """Content of the conda file that Azure ML builds an environment from."""
        lines = [
            *("name: dbx-aml", "channels:", "  - conda-forge", "dependencies:"),
            *(f"  - python={self.python}", "  - pip", "  - pip:"),
            # A marker has quotes of its own.
            *("      - '{}'".format(line.replace("'", "''")) for line in self.requirements),
        ]
        return "".join(f"{line}\n" for line in lines)


def pin_requirements(
    python: str,
    file: Path | None,
    further_requirements: Sequence[str],
    *,
    conflict: str,
    fix: str,
) -> PinnedEnvironment:
    """Return the exact packages that meet requirements on Linux; nothing is installed.

    uv needs no interpreter of this version. The first result for the same requirements is kept in
    the cache folder.

    Args:
        python: Minor version of Python, for example "3.12".
        file: Requirements file, with a constraints.txt beside it where it names one; or None.
        further_requirements: Requirements beside those of the file.
        conflict: Rule of the error where no set of packages fits, for example "requirements of the
            job must go together with dbx-aml's".
        fix: What to do about it.

    Raises:
        UnsolvableRequirementsError: No set of packages meets all requirements.
        ServingError: The file cannot be read, or the package index does not answer.
        ProgramError: uv is not installed.
    """
    text = file.read_text(encoding="utf-8") if file else ""
    digest = hashlib.sha256("\n".join([python, *further_requirements, text]).encode())
    if file and (constraints := file.with_name("constraints.txt")).is_file():
        digest.update(constraints.read_bytes())
    key = digest.hexdigest()[:16]
    resolved_file = environments_folder() / "resolved" / f"{key}.txt"
    if not resolved_file.is_file():
        options = [line for line in text.splitlines() if line.strip().startswith(_INDEX_OPTIONS)]
        pins = _resolve(python, file, further_requirements, conflict, fix)
        write_atomically(resolved_file, "".join(f"{line}\n" for line in [*options, *pins]))
    lines = resolved_file.read_text(encoding="utf-8").splitlines()
    return PinnedEnvironment(python=python, requirements=tuple(lines))


def register_environment(resources: AmlResources, name: str, environment: PinnedEnvironment) -> str:
    """Return the ARM id of an environment's version in Azure ML, which is made if it is missing.

    Args:
        resources: Workspace.
        name: Name of the environment; its version is the hash of the content.
        environment: Python and packages.
    """
    path = f"/environments/{name}/versions/{environment.hash}"
    if resources.find(path) is None:
        properties = {
            "image": _IMAGE,
            "condaFile": environment.conda_dependencies,
            "tags": creation_tags(),
        }
        resources.put(path, {"properties": properties})
    return resources.arm_id(path)


def environments_folder() -> Path:
    """Return the folder of this user's environments, which can be deleted at any time."""
    return cache_folder() / "environments"


def _resolve(
    python: str, file: Path | None, further_requirements: Sequence[str], conflict: str, fix: str
) -> list[str]:
    try:
        pins = compile_requirements(
            python,
            [str(file)] if file else [],
            _RESOLVE_TIMEOUT_S,
            input_text="\n".join(further_requirements),
        )
    except ProgramError as err:
        if not err.stderr:
            raise
        reason = uv_error_line(err)
        if err.exit_code != 1:
            raise ServingError(
                f"package index must answer: got {reason!r}; compare the index's settings"
            ) from err
        raise UnsolvableRequirementsError(f"{conflict} on Python {python}: {reason} {fix}") from err
    return pins.splitlines()
