"""The Databricks Runtimes that this release knows, with the Python packages of each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

# Runtimes whose MLflow is older than this package needs; no test runs on them.
UNTESTED_RUNTIMES = ("15.4",)
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

    A runtime for machine learning gets the name of the standard runtime.

    Args:
        version: Version as in the node's variable or the clusters API: "17.3", "17.3.x-scala2.13",
            "16.4.x-cpu-ml-scala2.12", "18.x-scala2.13", "18.2", "client.4.9".

    Returns:
        For example "17.3", "18" or "serverless-4"; None for a text that is no version, such as
        "custom:x".
    """
    match = re.match(r"(client\.)?(\d+)(?:\.(\d+|x)(?![^.-]))?(?=[.-]|$)", version.strip())
    if not match:
        return None
    client, major, minor = match.groups()
    if client:
        return f"serverless-{major}"
    if int(major) >= _FIRST_ROLLING_RELEASE:
        return major
    return f"{major}.{minor}" if minor and minor != "x" else None


def find_runtime(version: str) -> Runtime | None:
    """Return the runtime of a version, or None if this release does not know it."""
    return known_runtimes().get(runtime_name(version) or "")


def newest_release() -> int:
    """Return the major version of the newest known runtime."""
    return max(int(name.split(".")[0]) for name in known_runtimes() if name.split(".")[0].isdigit())


def is_same_version(installed: str, listed: str) -> bool:
    """Tell whether an installed version is the listed one; "X.Y.0" in the list is any X.Y."""
    if installed == listed:
        return True
    return listed.endswith(".0") and installed.startswith(listed.removesuffix("0"))
