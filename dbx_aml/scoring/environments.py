"""Compare the packages that a model needs with the packages on this machine."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.errors import ScoringError

if TYPE_CHECKING:
    from mlflow.models import Model

# Flavors whose package has another name.
_PACKAGES = {"pytorch": "torch", "spark": "pyspark"}


def check_flavor(model: Model, folder: Path) -> None:
    """Refuse a model whose package is missing on this machine.

    Otherwise Spark's workers would fail one by one, each with a long stack.

    Raises:
        ScoringError: The model has no python_function flavor, or its package is missing.
    """
    pyfunc = model.flavors.get("python_function")
    if pyfunc is None:
        raise ScoringError(
            f"model must have the python_function flavor: got {sorted(model.flavors)}; "
            "log it with an MLflow flavor that has it"
        )
    flavor = str(pyfunc["loader_module"]).removeprefix("mlflow.").partition(".")[0]
    if flavor not in model.flavors or flavor == "python_function":
        return
    is_mlflow_flavor = importlib.util.find_spec(f"mlflow.{flavor}") is not None
    if is_mlflow_flavor and importlib.util.find_spec(_PACKAGES.get(flavor, flavor)) is None:
        requirements = [
            requirement
            for requirement in read_requirements(folder)
            if flavor in requirement.replace("-", "_").lower()
        ]
        raise ScoringError(
            f"model flavor must be installed on this machine: got {flavor!r}; "
            f"pip install {' '.join(requirements) or flavor}, or use env_manager 'virtualenv'"
        )


def read_requirements(folder: Path) -> list[str]:
    """Return the lines of a model's requirements.txt; none where it has no such file."""
    file = folder / "requirements.txt"
    return file.read_text(encoding="utf-8").split() if file.exists() else []


def requirement_differences(folder: Path) -> list[str]:
    """Return one text for each requirement of a model that this machine does not meet."""
    from packaging.requirements import InvalidRequirement, Requirement

    differences = []
    for line in read_requirements(folder):
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            installed_version = version(requirement.name)
        except PackageNotFoundError:
            # mlflow-skinny is mlflow without the server, and scoring needs no server.
            if requirement.name != "mlflow":
                differences.append(f"{line}: not installed here")
            continue
        if not requirement.specifier.contains(installed_version, prereleases=True):
            differences.append(f"{line}: {installed_version} here")
    return differences
