"""Compare the packages that a model needs with the packages on this machine."""

from __future__ import annotations

import importlib.util
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml._common.errors import ScoringError
from dbx_aml._common.installed_packages import installed_version
from dbx_aml.models.mlflow_releases import missing_for_spark_udf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow.models import Model
    from packaging.requirements import Requirement

# Flavors whose module, and whose package, has another name.
_MODULES = {"pytorch": "torch", "spark": "pyspark"}
_PACKAGES = {**_MODULES, "sklearn": "scikit-learn"}


def check_spark_udf() -> None:
    """Refuse to score with an MLflow whose `spark_udf` lacks a package.

    Otherwise it raises an import error of MLflow's server, here and on each worker.

    Raises:
        ScoringError: A package is missing on this machine.
    """
    mlflow_version = version("mlflow-skinny")
    missing = missing_for_spark_udf(mlflow_version)
    if missing:
        raise ScoringError(
            f"scoring with MLflow {mlflow_version} must have {', '.join(missing)}: got none; run "
            f"'%pip install {' '.join(missing)}' or attach the init script, which installs it"
        )


def check_flavor(model: Model, folder: Path) -> None:
    """Refuse a model whose package is missing on this machine.

    Otherwise Spark's workers would fail one by one, each with a long stack.

    Raises:
        ScoringError: The model has no python_function flavor, or its package is missing.
    """
    flavor = flavor_of(model)
    if flavor == "python_function":
        return
    is_mlflow_flavor = importlib.util.find_spec(f"mlflow.{flavor}") is not None
    if is_mlflow_flavor and importlib.util.find_spec(_MODULES.get(flavor, flavor)) is None:
        requirements = [
            requirement
            for requirement in read_requirements(folder)
            if flavor in requirement.replace("-", "_").lower()
        ]
        raise ScoringError(
            f"model flavor must be installed on this machine: got {flavor!r}; "
            f"pip install {' '.join(requirements) or flavor}, or use environment 'model'"
        )


def flavor_of(model: Model) -> str:
    """Return the flavor that loads a model, for example "sklearn".

    Returns:
        "python_function" for a model of Python code, which no library's flavor loads.

    Raises:
        ScoringError: The model has no python_function flavor.
    """
    pyfunc = model.flavors.get("python_function")
    if pyfunc is None:
        raise ScoringError(
            f"model must have the python_function flavor: got {sorted(model.flavors)}; "
            "log it with an MLflow flavor that has it"
        )
    flavor = str(pyfunc["loader_module"]).removeprefix("mlflow.").partition(".")[0]
    return flavor if flavor in model.flavors else "python_function"


def package_of_flavor(flavor: str) -> str:
    """Return the package of a flavor's library, for example "scikit-learn" of "sklearn"."""
    return _PACKAGES.get(flavor, flavor)


def read_requirements(folder: Path) -> list[str]:
    """Return the lines of a model's requirements.txt; none where it has no such file."""
    file = folder / "requirements.txt"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def requirement_differences(folder: Path) -> list[str]:
    """Return one text for each requirement of a model that this machine does not meet."""
    return list(differences_by_package(folder).values())


def differences_by_package(folder: Path) -> dict[str, str]:
    """Return the name of each package that this machine lacks for a model, and a text."""
    from packaging.utils import canonicalize_name

    differences: dict[str, str] = {}
    for line, requirement in _requirements(folder).items():
        name, installed = requirement.name, installed_version(requirement.name)
        if installed is None:
            # mlflow-skinny is mlflow without the server, and scoring needs no server.
            if name != "mlflow":
                differences[canonicalize_name(name)] = f"{line}: not installed here"
        elif not requirement.specifier.contains(installed, prereleases=True):
            differences[canonicalize_name(name)] = f"{line}: {installed} here"
    return differences


def installed_versions(folder: Path) -> dict[str, str]:
    """Return what runs a model on this machine, and the versions.

    Args:
        folder: Folder of the model.

    Returns:
        Versions by name, for example {"python": "3.12.3", "pyspark": "4.1.4", "numpy": "2.2.0"};
        on Databricks also "databricks_runtime". A package that is not installed is left out.
    """
    packages = {"mlflow", "mlflow-skinny", "numpy", "pandas", "pyarrow", "pyspark"}
    packages |= {requirement.name for requirement in _requirements(folder).values()}
    versions = {name: installed_version(name) for name in sorted(packages)}
    versions = {
        "python": platform.python_version(), "databricks_runtime": running_version(), **versions
    }  # fmt: skip
    return {name: text for name, text in versions.items() if text is not None}


def environment_differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return one text for each name whose version differs between two environments."""
    return [
        f"{name} was {old.get(name, 'absent')}, is {new.get(name, 'absent')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _requirements(folder: Path) -> dict[str, Requirement]:
    """Return the requirements of a model that hold for this machine, by their lines."""
    from packaging.requirements import InvalidRequirement, Requirement

    requirements = {}
    for line in read_requirements(folder):
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            requirements[line] = requirement
    return requirements
