"""A Python with the exact version of each package: uv resolves it before anything is built."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from platform import machine

from dbx_aml._common.errors import (
    PackagesError,
    ProgramError,
    UnsolvableRequirementsError,
)
from dbx_aml._common.paths import write_atomically
from dbx_aml._common.text import one_line
from dbx_aml._common.uv import LINUX, compile_requirements, uv_error_line
from dbx_aml.local.jars import cache_folder

_RESOLVE_TIMEOUT_S = 300.0
# Options of a requirements file that say where packages are; uv's list of pins leaves them out.
_INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links")
# A line that includes another file, whose path is relative to the folder of the including one.
_INCLUDED_FILE = re.compile(
    r"\s*(?:-[rc]|--requirement|--constraint)[\s=]*[\"']?(.+?)[\"']?\s*(?:\s#.*)?"
)


@dataclass(frozen=True, kw_only=True)
class PinnedEnvironment:
    """Python and the exact version of each package.

    Args:
        python: Minor version of Python, for example "3.12".
        requirements: Lines of a requirements file: options of package indexes, then a pin for each
            package, for example "pandas==2.3.3".
        platform: Platform of the packages, as uv names it; "" for the one of this machine.
    """

    python: str
    requirements: tuple[str, ...]
    platform: str = LINUX

    @property
    def hash(self) -> str:
        """Hash of the content, in 16 hexadecimal digits."""
        platform = self.platform or f"{sys.platform} {machine()}"
        content = "\n".join([self.python, platform, *self.requirements])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def package_count(self) -> int:
        """Number of packages."""
        return sum(not line.startswith("-") for line in self.requirements)

    @property
    def versions(self) -> dict[str, str]:
        """Versions by name, for example {"python": "3.12", "pandas": "2.3.3"}."""
        pins = [line.partition(";")[0].strip().partition("==") for line in self.requirements]
        return {"python": self.python, **{name: text for name, equals, text in pins if equals}}

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
            # A marker may have quotes.
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
    platform: str = LINUX,
    options: Sequence[str] = (),
) -> PinnedEnvironment:
    """Return the exact packages that meet requirements; nothing is installed.

    uv needs no interpreter of this version. The first result for the same requirements is kept in
    the cache folder. A change of an included file counts as other requirements.

    Args:
        python: Minor version of Python, for example "3.12".
        file: Requirements file, which may include further files; or None.
        further_requirements: Requirements that the file does not have.
        conflict: Rule of the error where no set of packages fits, for example "requirements of the
            job must go together with dbx-aml's".
        fix: Next step of the error.
        platform: Platform of the packages, as uv names it; "" for the one of this machine.
        options: Further options of uv, for example ("--only-binary", ":all:").

    Raises:
        UnsolvableRequirementsError: No set of packages meets all requirements.
        PackagesError: The file cannot be read, or the package index does not answer.
        ProgramError: uv is not installed.
    """
    texts = _read_requirements(file) if file else {}
    inputs = [python, platform, *options, *further_requirements, *texts.values()]
    key = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:16]
    resolved_file = environments_folder() / "resolved" / f"{key}.txt"
    if not resolved_file.is_file():
        lines = [line for text in texts.values() for line in text.splitlines()]
        indexes = [line for line in lines if line.strip().startswith(_INDEX_OPTIONS)]
        files = [str(file)] if file else []
        try:
            pins = compile_requirements(
                python,
                [*options, *files],
                _RESOLVE_TIMEOUT_S,
                input_text="\n".join(further_requirements),
                platform=platform,
            )
        except ProgramError as err:
            raise _resolve_error(err, f"{conflict} on Python {python}", fix) from err
        lines = [*indexes, *pins.splitlines()]
        write_atomically(resolved_file, "".join(f"{line}\n" for line in lines))
    lines = resolved_file.read_text(encoding="utf-8").splitlines()
    return PinnedEnvironment(python=python, requirements=tuple(lines), platform=platform)


def _read_requirements(file: Path) -> dict[Path, str]:
    """Return the texts of a requirements file and of the files that it includes, by path.

    A file that is missing is left to uv, which names it in its error.

    Raises:
        PackagesError: A file cannot be read.
    """
    texts: dict[Path, str] = {}
    files = [file]
    while files:
        path = files.pop(0)
        if path in texts or not (path.is_file() or path == file):
            continue
        try:
            texts[path] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            raise PackagesError(
                f"requirements file must be a readable text in UTF-8: got '{path}': "
                f"{one_line(err, 160)}; save it as UTF-8"
            ) from err
        includes = map(_INCLUDED_FILE.fullmatch, texts[path].splitlines())
        files += [Path(os.path.normpath(path.parent / match[1])) for match in includes if match]
    return texts


def environments_folder() -> Path:
    """Return the folder of this user's environments, which can be deleted at any time."""
    return cache_folder() / "environments"


def _resolve_error(err: ProgramError, conflict: str, fix: str) -> ProgramError | PackagesError:
    if not err.stderr:
        return err
    reason = uv_error_line(err)
    if err.exit_code != 1:
        return PackagesError(
            f"package index must answer: got {reason!r}; compare the index's settings"
        )
    return UnsolvableRequirementsError(f"{conflict}: {reason} {fix}")
