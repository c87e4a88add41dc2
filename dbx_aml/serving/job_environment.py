"""The environment of a job: the project's requirements with those of this package.

Source:
    Microsoft Learn, "Azure Machine Learning Curated Environments"; seen 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import ArgumentError, ServingError
from dbx_aml._common.log import get_logger
from dbx_aml._common.own_wheel import own_requirements
from dbx_aml._common.text import first_line
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.serving.pinned_environment import PinnedEnvironment, pin_requirements

log = get_logger(__name__)

JOB_PYTHON = "3.12"
_OLDEST_PYTHON = (3, 11)
_NAME = re.compile(r"(?:azureml:)?(?P<name>[A-Za-z0-9][\w.-]*):(?P<version>[\w.-]+)")
_CURATED_IMAGE = "mcr.microsoft.com/azureml/curated/"
# Curated environment -> what of it cannot work.
_UNFIT_ENVIRONMENTS = {
    "sklearn-1.5": "Python 3.10, and an MLflow whose log_model Azure ML answers with 404",
}
_NEEDED_PACKAGES = ("azureml-mlflow", "mlflow")


def resolve_job_environment(folder: Path) -> PinnedEnvironment:
    """Return the exact packages of a job: of requirements.txt in its folder, and of dbx-aml.

    Args:
        folder: Folder of the job.

    Raises:
        UnsolvableRequirementsError: No set of packages meets all requirements.
        ServingError: The package index does not answer.
        ProgramError: uv is not installed.
    """
    file = folder / "requirements.txt"
    return pin_requirements(
        JOB_PYTHON,
        file if file.is_file() else None,
        own_requirements(),
        conflict="requirements of the job must go together with those of dbx-aml",
        fix=f"Change '{file}'",
    )


def find_environment(resources: AmlResources, name: str) -> str:
    """Return the ARM id of an environment's version in which this package works.

    Args:
        resources: Workspace.
        name: For example "azureml:training:3".

    Raises:
        ArgumentError: The name is not "azureml:<name>:<version>".
        ServingError: There is no such version, or its Python or MLflow does not fit.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ArgumentError(
            f"environment must be azureml:<name>:<version>: got {name!r}; list the environments "
            "with 'dbx-aml environment list', or leave it out"
        )
    short_name = match["name"].removeprefix("AzureML-")
    unfit = next(
        (text for known, text in _UNFIT_ENVIRONMENTS.items() if short_name.startswith(known)), None
    )
    if unfit is not None:
        raise _unfit(name, unfit)
    path = f"/environments/{match['name']}/versions/{match['version']}"
    content = resources.find(path)
    if content is None:
        raise ServingError(
            f"environment must exist in workspace {resources.workspace.workspace_name!r}: got "
            f"{name!r}; list the environments with 'dbx-aml environment list'"
        )
    _check_packages(name, content["properties"])
    return resources.arm_id(path)


def _check_packages(name: str, properties: Mapping[str, Any]) -> None:
    """Refuse an environment whose conda file lacks what this package needs."""
    conda_file = str(properties.get("condaFile") or "")
    if not conda_file:
        kind = "curated image" if _CURATED_IMAGE in str(properties.get("image")) else "image"
        log.warning(
            "environment %s is a %s whose packages Azure ML does not list: the job needs Python "
            "%s or newer with mlflow 3 and azureml-mlflow in it",
            *(name, kind, ".".join(map(str, _OLDEST_PYTHON))),
        )
        return
    python, packages = _read_conda_file(name, conda_file)
    if python is not None and python < _OLDEST_PYTHON:
        raise _unfit(name, f"Python {'.'.join(map(str, python))}")
    for package in _NEEDED_PACKAGES:
        if not any(item.startswith(package) for item in packages):
            raise _unfit(name, f"no {package}")


def _read_conda_file(name: str, text: str) -> tuple[tuple[int, int] | None, list[str]]:
    """Return Python's minor version, None if it has none, and the packages of a conda file."""
    import yaml

    try:
        dependencies = list(yaml.safe_load(text)["dependencies"])
    except (yaml.YAMLError, KeyError, TypeError) as err:
        raise ServingError(
            f"environment {name!r} must have a readable conda file: got {first_line(err)}"
        ) from err
    packages = [item for item in dependencies if isinstance(item, str)]
    for item in dependencies:
        packages += item.get("pip", []) if isinstance(item, Mapping) else []
    version = next(
        (match for item in packages if (match := re.match(r"python\s*=+\s*(\d+)\.(\d+)", item))),
        None,
    )
    python = (int(version[1]), int(version[2])) if version else None
    return python, [str(item).lower().replace("_", "-") for item in packages]


def _unfit(name: str, problem: str) -> ServingError:
    return ServingError(
        f"environment must have Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer, mlflow and "
        f"azureml-mlflow: got {name!r} with {problem}; leave the environment out, and dbx-aml "
        "makes one from requirements.txt"
    )
