"""What each Databricks Runtime brings: known combinations of packages, and which one this is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One Databricks Runtime, or one environment of serverless compute.

    Args:
        name: For example "17.3 LTS" or "serverless 4".
        python: Minor version, for example "3.12".
        spark: For example "4.0.0"; None on serverless, whose client is a Connect one.
        packages: Versions of the Python packages that tracking and scoring depend on, by name. The
            variant for machine learning has a newer MLflow.
    """

    name: str
    python: str
    spark: str | None
    packages: Mapping[str, str]


def _runtime(name: str, python: str, spark: str | None, versions: str) -> Runtime:
    names = ("mlflow-skinny", "pandas", "pyarrow", "numpy", "databricks-sdk", "azure-storage-blob")
    packages = dict(zip(names, versions.split(), strict=True))
    return Runtime(name=name, python=python, spark=spark, packages=packages)


# Source: release notes of Databricks Runtime and of serverless environments, read 2026-11-21. The
# SDK is given by its minor version where that is all the notes say.
RUNTIMES: Mapping[str, Runtime] = {
    # key: name, Python, Spark, then mlflow-skinny, pandas, pyarrow, numpy, SDK, blob client
    "15.4": _runtime("15.4 LTS", "3.11", "3.5.0", "2.11.4 1.5.3 14.0.1 1.23.5 0.20 12.19.1"),
    "16.4": _runtime("16.4 LTS", "3.12", "3.5.2", "2.19.0 1.5.3 15.0.2 1.26.4 0.30 12.23.0"),
    "17.3": _runtime("17.3 LTS", "3.12", "4.0.0", "3.0.1 2.2.3 19.0.1 2.1.3 0.49 12.23.0"),
    "18": _runtime("18 LTS", "3.12", "4.1.0", "3.8.1 2.2.3 21.0.0 2.1.3 0.67 12.28.0"),
    "19": _runtime("19", "3.12", "4.2.0", "3.12.0 2.3.3 21.0.0 2.3.4 0.108 12.29.0"),
    "client.4": _runtime("serverless 4", "3.12", None, "2.22.0 2.2.3 19.0.1 2.1.3 0.49 12.23.0"),
    "client.5": _runtime("serverless 5", "3.12", None, "3.8.1 2.2.3 21.0.0 2.1.3 0.67 12.28.0"),
    "client.6": _runtime("serverless 6", "3.12", None, "3.12.0 2.3.3 21.0.0 2.3.4 0.122 12.29.0"),
}
# From this release on a key names no minor version any more.
_ROLLING_FROM = 18
# Its MLflow is older than this package needs: a newer one has to be installed there.
UNTESTED_RUNTIMES = ("15.4",)


def runtime_key(version: str) -> str | None:
    """Return the key in `RUNTIMES` that a runtime's version would have, known or not.

    Args:
        version: As the variable or the clusters API writes it: "17.3", "17.3.x-scala2.13",
            "16.4.x-cpu-ml-scala2.12", "18.x-scala2.13", "18.2", "client.4.9".

    Returns:
        For example "17.3", "18", "client.4"; None for what is no version, such as "custom:x".
    """
    found = re.match(r"(client\.)?(\d+)(?:\.(\d+|x)(?![^.-]))?(?=[.-]|$)", version.strip())
    if not found:
        return None
    client, major, minor = found.groups()
    if client:
        return f"client.{major}"
    if int(major) >= _ROLLING_FROM:
        return major
    return f"{major}.{minor}" if minor and minor != "x" else None


def find_runtime(version: str) -> Runtime | None:
    """Return what a runtime brings, None where it is not one of the known ones."""
    return RUNTIMES.get(runtime_key(version) or "")


def same_version(installed: str, known: str) -> bool:
    """Tell whether an installed version is the known one, which may be given by its minor."""
    return installed == known or installed.startswith(f"{known}.")
