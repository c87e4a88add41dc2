"""The environment that a model is served in: its own requirements and Azure ML's scoring server.

The scoring server pins packages that a project may need in other versions, so it is never installed
into the environment of this process. The same pins serve the model on this machine and in Azure ML.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.creation_mark import creation_tags
from dbx_aml._common.errors import ArgumentError, ModelNotFoundError, ServingError
from dbx_aml._common.redact import has_secret
from dbx_aml.local.built_environment import minor_version
from dbx_aml.local.pinned_environment import PinnedEnvironment, pin_requirements
from dbx_aml.serving.aml_resources import AmlResources

if TYPE_CHECKING:
    from mlflow.models import Model

SCORE_SCRIPT = Path(__file__).with_name("score_script.py")
SERVER_REQUIREMENTS = ("azureml-inference-server-http==1.5.1", "azureml-ai-monitoring==1.0.0")
# Image that Azure ML installs the conda file into. Source: Microsoft Learn, "Prebuilt Docker
# images for inference"; seen 2026-11.
_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"


def read_python_version(model_folder: Path) -> str:
    """Return the version of Python that logged a model, for example "3.12.7".

    Args:
        model_folder: Folder of the MLmodel file.

    Raises:
        ModelNotFoundError: The folder has no MLmodel file that MLflow can read.
        ServingError: The model has no python_function flavor.
    """
    flavors = _load_metadata(model_folder).flavors
    if "python_function" not in flavors:
        raise ServingError(
            f"model must have the python_function flavor: got {sorted(flavors)}; "
            "log it with an MLflow flavor that has it"
        )
    return str(flavors["python_function"].get("python_version") or platform.python_version())


def resolve_environment(model_folder: Path, python: str | None = None) -> PinnedEnvironment:
    """Return the exact packages that a model is served with in Azure ML; nothing is installed.

    The first result for the same requirements is kept in the cache folder, so a model that was
    tried is deployed with the packages of the try.

    Args:
        model_folder: Folder of the MLmodel file.
        python: Minor version of Python, for example "3.12"; by default the model's.

    Raises:
        ModelNotFoundError: The folder has no MLmodel file that MLflow can read.
        UnsolvableRequirementsError: No set of packages meets the model's requirements and those of
            Azure ML's scoring server.
        ServingError: The model has no python_function flavor or no requirements.
        PackagesError: The package index does not answer.
        ProgramError: uv is not installed.
    """
    python = minor_version(python or read_python_version(model_folder))
    file = model_folder / "requirements.txt"
    try:
        file.read_bytes()
    except OSError as err:
        raise ServingError(
            f"model must have a readable requirements.txt: got '{file}': {err.strerror}; "
            "log the model again with mlflow>=2.19"
        ) from err
    return pin_requirements(
        python,
        file,
        SERVER_REQUIREMENTS,
        conflict="model requirements must go together with Azure ML's scoring server",
        fix="Log the model with pip_requirements that allow both",
    )


def register_environment(resources: AmlResources, name: str, environment: PinnedEnvironment) -> str:
    """Return the ARM id of an environment's version in Azure ML, which is made if it is missing.

    Args:
        resources: Workspace.
        name: Name of the environment; its version is the hash of the content.
        environment: Python and packages.

    Raises:
        ArgumentError: The URL of a package index has a login.
    """
    for line in environment.requirements:
        # Azure ML archives environments, and deletes none.
        if has_secret(line):
            raise ArgumentError(
                f"requirements must have no login, for all of the workspace can read them: got "
                f"{line!r}; connect the package index to the workspace, and keep the login of this "
                "machine in ~/.netrc"
            )
    path = f"/environments/{name}/versions/{environment.hash}"
    if resources.find(path) is None:
        properties = {
            "image": _IMAGE,
            "condaFile": environment.conda_dependencies,
            "tags": creation_tags(),
        }
        resources.put(path, {"properties": properties})
    return resources.arm_id(path)


def _load_metadata(model_folder: Path) -> Model:
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    try:
        return Model.load(str(model_folder))
    except (MlflowException, OSError) as err:
        raise ModelNotFoundError(
            f"model folder must have a readable MLmodel file: got '{model_folder}'; "
            "pass the folder that MLflow saved"
        ) from err
