"""The environment that a model is served in: its own requirements and Azure ML's scoring server.

uv resolves the requirements for Azure ML's Linux before anything is built or sent. The scoring
server pins packages that a project may need in other versions, so it is never installed into the
environment of this process. The same pins serve the model on this machine and in Azure ML.
"""

from __future__ import annotations

import fcntl
import hashlib
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
    UnsolvableRequirementsError,
)
from dbx_aml._common.paths import write_atomically
from dbx_aml._common.uv import run_uv, uv_error_line
from dbx_aml.local.jars import cache_folder

if TYPE_CHECKING:
    from mlflow.models import Model

SCORE_SCRIPT = Path(__file__).with_name("score_script.py")
SERVER_REQUIREMENTS = ("azureml-inference-server-http==1.5.1", "azureml-ai-monitoring==1.0.0")
# Operating system of Azure ML's images; wheels for it run on newer ones, too.
_UV_PLATFORM = "x86_64-manylinux_2_28"
_RESOLVE_TIMEOUT_S = 300.0
_BUILD_TIMEOUT_S = 1800.0
# Options of a requirements file that say where packages are; uv's list of pins leaves them out.
_INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links")
# The file that is written last into an environment.
_PINS_FILE = "requirements.txt"

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ServedEnvironment:
    """Python and the exact packages that a model is served with.

    Args:
        python: Minor version of Python, for example "3.12".
        requirements: Lines of a requirements file: options of package indexes, then a pin for each
            package, for example "pandas==2.3.3".
    """

    python: str
    requirements: tuple[str, ...]

    @property
    def hash(self) -> str:
        """Hash of the content, in 16 hexadecimal digits."""
        return hashlib.sha256(self.conda_dependencies.encode()).hexdigest()[:16]

    @property
    def package_count(self) -> int:
        """Number of packages."""
        return sum(not line.startswith("-") for line in self.requirements)

    @property
    def requirements_file(self) -> str:
        """Content of the requirements file."""
        return "".join(f"{line}\n" for line in self.requirements)

    @property
    def conda_dependencies(self) -> str:
        """Content of the conda file that Azure ML builds an environment from."""
        lines = [
            *("name: dbx-aml", "channels:", "  - conda-forge", "dependencies:"),
            *(f"  - python={self.python}", "  - pip", "  - pip:"),
            # A marker has quotes of its own.
            *("      - '{}'".format(line.replace("'", "''")) for line in self.requirements),
        ]
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, kw_only=True)
class BuiltEnvironment:
    """An environment that is installed on this machine.

    Args:
        environment: Its Python and packages.
        interpreter: Path of its Python program.
        python_version: Full version of its Python, for example "3.12.7".
    """

    environment: ServedEnvironment
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


def resolve_environment(model_folder: Path, python: str | None = None) -> ServedEnvironment:
    """Return the exact packages that a model is served with in Azure ML; nothing is installed.

    uv needs no interpreter of this version. The first result for the same requirements is kept in
    the cache folder, so a model that was tried is deployed with the packages of the try.

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
        text = file.read_text(encoding="utf-8")
    except OSError as err:
        raise ServingError(
            f"model must have a readable requirements.txt: got '{file}': {err.strerror}; "
            "log the model again with mlflow>=2.19"
        ) from err
    constraints_file = model_folder / "constraints.txt"
    constraints = constraints_file.read_bytes() if constraints_file.is_file() else b""
    request = "\n".join([python, _UV_PLATFORM, *SERVER_REQUIREMENTS, text]).encode()
    key = hashlib.sha256(request + constraints).hexdigest()[:16]
    resolved_file = environments_folder() / "resolved" / f"{key}.txt"
    if not resolved_file.is_file():
        options = [line for line in text.splitlines() if line.strip().startswith(_INDEX_OPTIONS)]
        pins = _resolve(file, python)
        write_atomically(resolved_file, "".join(f"{line}\n" for line in [*options, *pins]))
    lines = resolved_file.read_text(encoding="utf-8").splitlines()
    return ServedEnvironment(python=python, requirements=tuple(lines))


def build_environment(
    environment: ServedEnvironment, report: Report = lambda step: None
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


def environments_folder() -> Path:
    """Return the folder of this user's environments, which can be deleted at any time."""
    return cache_folder() / "environments"


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


def _resolve(requirements_file: Path, python: str) -> list[str]:
    arguments = [
        *("pip", "compile", str(requirements_file), "-", "--quiet", "--no-header", "--no-annotate"),
        *("--python-version", python, "--python-platform", _UV_PLATFORM),
        # With the version and the platform given, uv needs no matching interpreter. Without one it
        # would try each interpreter of the machine.
        *("--python", sys.executable),
    ]
    try:
        pins = run_uv(arguments, _RESOLVE_TIMEOUT_S, input_text="\n".join(SERVER_REQUIREMENTS))
    except ProgramError as err:
        if not err.stderr:
            raise
        reason = uv_error_line(err)
        if err.exit_code != 1:
            raise ServingError(
                f"package index must answer: got {reason!r}; compare the index's settings"
            ) from err
        raise UnsolvableRequirementsError(
            f"model requirements must go together with Azure ML's scoring server on Python "
            f"{python}: {reason} Log the model with pip_requirements that allow both"
        ) from err
    return pins.splitlines()


def _install(environment: ServedEnvironment, folder: Path) -> None:
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
