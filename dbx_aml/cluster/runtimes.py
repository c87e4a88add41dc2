"""The Databricks Runtimes that this release knows: their packages, and what a node of each gets.

`runtimes.txt` has the packages. `runtimes/<name>.txt` is the list that `resolve` made for this
release: exact versions and hashes of what the runtime lacks, or the reason why it is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

# Begin of the line with the reason in the list of a runtime that is refused.
REFUSED = "# refused: "
# From this release on, every minor release has the packages of the first one.
_FIRST_ROLLING_RELEASE = 18


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A Databricks Runtime, or an environment of serverless compute.

    Args:
        name: For example "17.3", "17.3-ml" or "serverless-4".
        python: Minor version, for example "3.12".
        packages: Versions of its Python packages by their normalized names.
        spark: Version of Spark, for example "4.0.0"; None on serverless compute, which has only
            Spark Connect.
        is_lts: Whether it has long-term support.
        is_complete: Whether `packages` has every package.
    """

    name: str
    python: str
    packages: Mapping[str, str]
    spark: str | None = None
    is_lts: bool = False
    is_complete: bool = True

    @property
    def label(self) -> str:
        """The name in Databricks' documentation, for example "17.3 LTS" or "serverless 4"."""
        return (
            f"{self.name} LTS" if self.is_lts else self.name.replace("serverless-", "serverless ")
        )

    @property
    def list_lines(self) -> list[str]:
        """Lines of the runtime's list; none of a runtime whose packages are not all known."""
        file = files("dbx_aml.cluster").joinpath("runtimes").joinpath(f"{self.name}.txt")
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []

    @property
    def requirements(self) -> str:
        """Lines `name==version --hash=...` of what a node gets besides this package."""
        return "".join(f"{line}\n" for line in self.list_lines if not line.startswith("#"))

    @property
    def refusal(self) -> str | None:
        """Why this package cannot run on the runtime; None for a supported runtime."""
        if not self.is_complete:
            return "its release notes do not list its packages"
        reasons = [line for line in self.list_lines if line.startswith(REFUSED)]
        return reasons[0].removeprefix(REFUSED) if reasons else None


@lru_cache(maxsize=1)
def known_runtimes() -> Mapping[str, Runtime]:
    """Return the runtimes of `runtimes.txt` by their names, the oldest first.

    Source:
        Release notes of Databricks Runtime and of serverless environments, read 2026-11-21.
    """
    text = files("dbx_aml.cluster").joinpath("runtimes.txt").read_text(encoding="utf-8")
    names, pythons, sparks, supports, *rows = (
        line.split() for line in text.splitlines() if not line.startswith("#")
    )
    return {
        name: Runtime(
            name=name,
            python=pythons[column],
            packages={row[0]: row[column] for row in rows if row[column] not in ("-", "?")},
            spark=None if sparks[column] == "-" else sparks[column],
            is_lts=supports[column] == "LTS",
            is_complete=all(row[column] != "?" for row in rows),
        )
        for column, name in enumerate(names)
        if column
    }


def runtime_name(version: str) -> str | None:
    """Return the name that a runtime's version would have in `known_runtimes`, known or not.

    Args:
        version: Version as in the node's variable or the clusters API: "17.3", "17.3.x-scala2.13",
            "16.4.x-cpu-ml-scala2.12", "18.x-scala2.13", "18.2", "client.4.9".

    Returns:
        For example "17.3", "16.4-ml", "18" or "serverless-4"; None for a text that is no version,
        such as "custom:x".
    """
    match = re.match(r"(client\.)?(\d+)(?:\.(\d+|x)(?![^.-]))?(?=[.-]|$)", version.strip())
    if not match:
        return None
    client, major, minor = match.groups()
    if client:
        return f"serverless-{major}"
    learning = "-ml" if re.search(r"-ml(-|$)", version.strip()) else ""
    if int(major) >= _FIRST_ROLLING_RELEASE:
        return f"{major}{learning}"
    return f"{major}.{minor}{learning}" if minor and minor != "x" else None


def supported_runtimes() -> list[str]:
    """Return the names of the runtimes that this package runs on, the oldest first."""
    return [name for name, runtime in known_runtimes().items() if runtime.refusal is None]


def refusal_of(version: str, wheelhouse_runtime: str) -> str | None:
    """Return the reason why a node cannot be prepared from a wheelhouse, or None.

    Args:
        version: Version of the node's runtime as in the clusters API, "17.3.x-scala2.13".
        wheelhouse_runtime: Runtime of the wheelhouse; any other text for one that was made for a
            cluster's own packages.
    """
    name = runtime_name(version)
    runtime = known_runtimes().get(name or "")
    supported = supported_runtimes()
    is_too_old = (
        name is not None
        and not name.startswith("serverless")
        and (_release(name) < _release(supported[0]))
    )
    if is_too_old or (runtime and runtime.is_complete and runtime.refusal):
        reason = runtime.refusal if runtime else f"the oldest supported one is {supported[0]}"
        return f"runtime must be one of {supported}: got {version!r}: {reason}"
    if wheelhouse_runtime in known_runtimes() and wheelhouse_runtime != name:
        return (
            f"wheelhouse must be for the runtime of the cluster, plain and ML apart: got one for "
            f"{wheelhouse_runtime}, and the cluster has {version}; make one with 'dbx-aml cluster "
            "wheelhouse --runtime', or with --constraints from 'pip freeze' on the cluster"
        )
    return None


def _release(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.removesuffix("-ml").split(".")))


def find_runtime(version: str) -> Runtime | None:
    """Return the runtime of a version, or None if this release does not know it."""
    return known_runtimes().get(runtime_name(version) or "")


def is_same_version(installed: str, listed: str) -> bool:
    """Tell whether an installed version is the listed one; "X.Y.0" in the list is any X.Y."""
    if installed == listed:
        return True
    return listed.endswith(".0") and installed.startswith(listed.removesuffix("0"))
