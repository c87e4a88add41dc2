"""The Python packages that each Databricks Runtime brings, as its release notes list them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True, kw_only=True)
class RuntimePackages:
    """What one runtime brings.

    Args:
        runtime: For example "17.3", "17.3-ml" or "serverless-4".
        python: Minor version, for example "3.12".
        versions: Version by name.
    """

    runtime: str
    python: str
    versions: Mapping[str, str]


@lru_cache(maxsize=1)
def runtime_packages() -> Mapping[str, RuntimePackages]:
    """Return the known runtimes by their names, the oldest first."""
    text = files("dbx_aml.cluster").joinpath("runtime_packages.txt").read_text(encoding="utf-8")
    names, pythons, *rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {
        name: RuntimePackages(
            runtime=name,
            python=pythons[column],
            versions={row[0]: row[column] for row in rows if row[column] != "-"},
        )
        for column, name in enumerate(names)
        if column
    }


def newest_release() -> int:
    """Return the major version of the newest runtime that is known here."""
    return max(
        int(name.split(".")[0]) for name in runtime_packages() if name.split(".")[0].isdigit()
    )
