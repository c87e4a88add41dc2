"""The environment of a job: the project's requirements with those of this package.

Source:
    Microsoft Learn, "Azure Machine Learning Curated Environments"; seen 2026-11. GitHub,
    Azure/azureml-assets, folders `environments` in `assets/training` and `assets/responsibleai`,
    state of 2026-07-23.
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
from dbx_aml.local.pinned_environment import PinnedEnvironment, pin_requirements
from dbx_aml.serving.aml_resources import AmlResources

log = get_logger(__name__)

JOB_PYTHON = "3.12"
_OLDEST_PYTHON = (3, 11)
_NAME = re.compile(r"(?:azureml:)?(?P<name>[A-Za-z0-9][\w.-]*):(?P<version>[\w.-]+)")
_CURATED_IMAGE = re.compile(r"mcr\.microsoft\.com/azureml/curated/(?P<name>[^:@]+)")
# Start of a curated image's name -> its Python. Those with Python 3.11 have azureml-mlflow too.
_CURATED_PYTHONS = {
    "acft-": (3, 10),
    "acpt-automl-": (3, 10),
    "acpt-pytorch-1.13-cuda11.7": (3, 8),
    "acpt-pytorch-2.2-cuda12.1": (3, 10),
    "acpt-pytorch-2.8-cuda12.6": (3, 10),
    "ai-ml-automl": (3, 10),
    "automl-": (3, 10),
    "lightgbm-3.3": (3, 10),
    "responsibleai-tabular": (3, 10),
    "sklearn-1.0": (3, 9),
    "sklearn-1.1": (3, 9),
    "sklearn-1.5": (3, 10),
    "tensorflow-2.16-cuda11": (3, 11),
    "tensorflow-2.16-cuda12": (3, 11),
}
_CURATED_WITH_MLFLOW_3 = ("acpt-pytorch-2.", "lightgbm-3.3", "sklearn-1.5")
_NEEDED_PACKAGES = ("azureml-mlflow", "mlflow")


def resolve_job_environment(folder: Path) -> PinnedEnvironment:
    """Return the exact packages of a job: of requirements.txt in its folder, and of dbx-aml.

    Args:
        folder: Folder of the job.

    Raises:
        UnsolvableRequirementsError: No set of packages meets all requirements.
        PackagesError: The package index does not answer.
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
    """Refuse an environment whose conda file or curated image lacks what this package needs."""
    conda_file = str(properties.get("condaFile") or "")
    if not conda_file:
        curated = _CURATED_IMAGE.match(str(properties.get("image")))
        image_name = curated["name"] if curated else ""
        python = next(
            (known for start, known in _CURATED_PYTHONS.items() if image_name.startswith(start)),
            None,
        )
        if python is not None:
            if python < _OLDEST_PYTHON:
                problem = f"Python {_version_text(python)}"
                if image_name.startswith(_CURATED_WITH_MLFLOW_3):
                    problem += ", and an MLflow whose log_model Azure ML answers with 404"
                raise _unfit(name, problem)
            return
        kind = "curated image" if curated else "image"
        log.warning(
            "environment %s is a %s whose packages Azure ML does not list: the job needs Python "
            "%s or newer with mlflow 3 and azureml-mlflow in it",
            *(name, kind, _version_text(_OLDEST_PYTHON)),
        )
        return
    python, packages = _read_conda_file(name, conda_file)
    if python is not None and python < _OLDEST_PYTHON:
        raise _unfit(name, f"Python {_version_text(python)}")
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
        packages += (item.get("pip") or []) if isinstance(item, Mapping) else []
    version = next(
        (match for item in packages if (match := re.match(r"python\s*=+\s*(\d+)\.(\d+)", item))),
        None,
    )
    python = (int(version[1]), int(version[2])) if version else None
    return python, [str(item).lower().replace("_", "-") for item in packages]


def _unfit(name: str, problem: str) -> ServingError:
    return ServingError(
        f"environment must have Python {_version_text(_OLDEST_PYTHON)} or newer, mlflow and "
        f"azureml-mlflow: got {name!r} with {problem}; leave the environment out, and dbx-aml "
        "makes one from requirements.txt"
    )


def _version_text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
