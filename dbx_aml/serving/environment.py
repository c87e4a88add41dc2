"""The environment that a model is served in: its own requirements and Azure ML's scoring server.

The scoring server pins packages that a project may need in other versions, so it is never installed
into the environment of this process. The same pins serve the model on this machine and in Azure ML.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.errors import (
    ModelNotFoundError,
    ProgramError,
    ServingError,
)
from dbx_aml._common.paths import write_atomically
from dbx_aml._common.uv import run_uv, uv_error_line
from dbx_aml.serving.pinned_environment import (
    PinnedEnvironment,
    environments_folder,
    pin_requirements,
)

if TYPE_CHECKING:
    from mlflow.models import Model

SCORE_SCRIPT = Path(__file__).with_name("score_script.py")
SERVER_REQUIREMENTS = ("azureml-inference-server-http==1.5.1", "azureml-ai-monitoring==1.0.0")
_BUILD_TIMEOUT_S = 1800.0
# The file that is written last into an environment.
_PINS_FILE = "requirements.txt"

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BuiltEnvironment:
    """An environment that is installed on this machine.

    Args:
        environment: Its Python and packages.
        interpreter: Path of its Python program.
        python_version: Full version of its Python, for example "3.12.7".
    """

    environment: PinnedEnvironment
    interpreter: Path
    python_version: str


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
        ServingError: The model has no python_function flavor or no requirements, or the package
            index does not answer.
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


def build_environment(
    environment: PinnedEnvironment, report: Report = lambda step: None
) -> BuiltEnvironment:
    """Install an environment into the cache folder, unless it is there already.

    The folder has the hash of the environment as its name. A second process waits for the first.

    Args:
        environment: Python and packages.
        report: Function that is called with the name of each step.

    Raises:
        ServingError: There is no interpreter of this version of Python and none can be downloaded,
            or a package cannot be installed, or the cache folder cannot be written.
        ProgramError: uv is not installed.
    """
    folder = environments_folder() / environment.hash
    pins_file = folder / _PINS_FILE
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not pins_file.is_file():
                shutil.rmtree(folder, ignore_errors=True)
                report("Building the environment")
                _install(environment, folder)
                write_atomically(pins_file, environment.requirements_file)
        settings = (folder / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError as err:
        raise ServingError(
            f"cache folder must be writable: got '{folder.parent}': {err.strerror}; "
            "set XDG_CACHE_HOME to another folder"
        ) from err
    values = dict(line.split(" = ", 1) for line in settings.splitlines() if " = " in line)
    return BuiltEnvironment(
        environment=environment,
        interpreter=folder / "bin" / "python",
        python_version=values.get("version_info", environment.python),
    )


def minor_version(python: str) -> str:
    """Return the first two numbers of a version of Python, for example "3.12" of "3.12.7"."""
    return ".".join(python.split(".")[:2])


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


def _install(environment: PinnedEnvironment, folder: Path) -> None:
    own_python = minor_version(platform.python_version())
    # uv looks for an interpreter of another version and else downloads one, unless
    # UV_PYTHON_DOWNLOADS forbids it.
    python = sys.executable if environment.python == own_python else environment.python
    try:
        run_uv(("venv", "--quiet", "--python", python, str(folder)), _BUILD_TIMEOUT_S)
    except ProgramError as err:
        if not err.stderr:
            raise
        raise ServingError(
            f"Python of the model must be on this machine: got {environment.python}, and uv finds "
            f"and downloads none: {uv_error_line(err)!r}; install Python {environment.python}"
        ) from err
    arguments = ("pip", "install", "--quiet", "--python", str(folder), "--requirements", "-")
    try:
        run_uv(arguments, _BUILD_TIMEOUT_S, input_text=environment.requirements_file)
    except ProgramError as err:
        raise ServingError(
            f"packages of the model must install on this machine: {uv_error_line(err)!r}; "
            "compare the index's settings"
        ) from err
