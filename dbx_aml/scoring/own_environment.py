"""The environment of a model: when it is used, its packages, and its way to Spark's workers."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import ScoringError
from dbx_aml._common.uv import LINUX
from dbx_aml.local.built_environment import BuiltEnvironment, minor_version
from dbx_aml.local.pinned_environment import PinnedEnvironment, pin_requirements
from dbx_aml.local.spark import is_connect
from dbx_aml.scoring.environments import (
    differences_by_package,
    flavor_of,
    package_of_flavor,
    read_requirements,
)
from dbx_aml.scoring.plan import Environment

if TYPE_CHECKING:
    from mlflow.models import Model
    from pyspark.sql import SparkSession

# The guard, which runs in the environment, is written for it.
_OLDEST_PYTHON = (3, 10)
# What the process needs beside the model's requirements. Of pandas the releases that MLflow takes.
_PROCESS_REQUIREMENTS = {"pandas": "pandas<3", "pyarrow": "pyarrow"}
# Flavors whose files are pickles: Python's version decides what a pickle of code means.
_PICKLED_FLAVORS = ("python_function", "sklearn", "pytorch")
# Longest time for one batch, which the first one shares with loading the model.
_BATCH_TIMEOUT_S = 1800.0

# Sessions and the archives that they have sent to their nodes.
_sent: set[tuple[str, str]] = set()


def pin_environment(choice: Environment, model: Model, folder: Path) -> PinnedEnvironment | None:
    """Return the packages of the environment that a model runs in; None for this machine's.

    Args:
        choice: "model" for the model's own, "local" for this machine's, "auto" for the model's
            own if `deciding_differences` has any.
        model: MLflow's description of the model.
        folder: Folder of the model.

    Raises:
        ScoringError: The model has no requirements, or its Python is too old.
        UnsolvableRequirementsError: No set of packages, as wheels, meets the requirements.
        PackagesError: The package index does not answer.
        ProgramError: uv is not installed.
    """
    if choice == "local" or (choice == "auto" and not deciding_differences(model, folder)):
        return None
    python = _python_of_model(model, folder)
    if tuple(map(int, python.split("."))) < _OLDEST_PYTHON:
        raise ScoringError(
            f"Python of the model must be 3.10 or newer for its own environment: got {python}; "
            "log the model again, or score with environment 'local'"
        )
    lines = _requirements(model, folder)
    is_usual = sys.platform == "linux" and platform.machine() == "x86_64"
    with TemporaryDirectory(prefix="dbx_aml_") as temporary:
        file = Path(temporary) / "requirements.txt"
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        if (folder / "constraints.txt").is_file():
            shutil.copy(folder / "constraints.txt", temporary)
        return pin_requirements(
            python,
            file,
            (),
            conflict="model requirements must go together, and have wheels,",
            fix="Log the model with other pip_requirements, or score with environment 'local'",
            platform=LINUX if is_usual else "",
            options=("--only-binary", ":all:"),
        )


def deciding_differences(model: Model, folder: Path) -> list[str]:
    """Return a text for each thing that the model's flavor depends on and this machine lacks.

    A flavor depends on its library and the packages of that, and on Python where its files are
    pickles. A model of Python code depends on all its requirements.
    """
    flavor = flavor_of(model)
    differences = differences_by_package(folder)
    if flavor != "python_function":
        library = package_of_flavor(flavor)
        needed = {library, *_required_names(library), "cloudpickle"}
        differences = {name: text for name, text in differences.items() if name in needed}
    differences.pop("mlflow", None)
    texts = list(differences.values())
    python, here = _python_of_model(model, folder), minor_version(platform.python_version())
    if flavor in _PICKLED_FLAVORS and python != here:
        texts.insert(0, f"Python {python}: {here} here")
    return texts


def send_environment(spark: SparkSession, built: BuiltEnvironment) -> dict[str, Any]:
    """Return what Spark's workers need to know of an environment, after sending it to their nodes.

    A local session's workers find it on this machine.
    """
    has_connect, archive = is_connect(spark), None
    if has_connect or not re.match(r"local(\[|$)", str(spark.sparkContext.master)):
        archive = built.environment.hash
        session_id = getattr(spark, "session_id", "") or spark.sparkContext.applicationId
        if (session_id, archive) not in _sent:
            uri = f"{built.pack()}#{archive}"
            if has_connect:
                spark.addArtifact(uri, archive=True)
            else:
                spark.sparkContext.addArchive(uri)
            _sent.add((session_id, archive))
    return {
        "hash": built.environment.hash,
        "folder": str(built.folder),
        "packages": str(built.packages_folder.relative_to(built.folder)),
        "archive": archive,
        "timeout_s": _BATCH_TIMEOUT_S,
    }


def _python_of_model(model: Model, folder: Path) -> str:
    """Return the minor version of Python that logged a model, for example "3.12"."""
    import yaml

    file = folder / "python_env.yaml"
    content = yaml.safe_load(file.read_bytes()) if file.is_file() else {}
    logged_with = model.flavors["python_function"].get("python_version")
    return minor_version(str(content.get("python") or logged_with or platform.python_version()))


def _requirements(model: Model, folder: Path) -> list[str]:
    """Return the requirements of a model and of the process that runs it, one a line."""
    lines = [line.strip() for line in read_requirements(folder) if line.strip()]
    if not lines:
        raise ScoringError(
            "model must have requirements for an environment of its own: got no requirements.txt; "
            "log the model again, or score with environment 'local'"
        )
    pyfunc = model.flavors["python_function"]
    if flavor_of(model) != "python_function" and "code" not in pyfunc:
        # mlflow-skinny is mlflow without the server. Code of the model's author may need the rest.
        lines = [re.sub(r"^mlflow(?=\s*([=<>!~;]|$))", "mlflow-skinny", line) for line in lines]
    names = {_package_name(line) for line in lines}
    for name, requirement in _PROCESS_REQUIREMENTS.items():
        if name not in names:
            lines.append(requirement)
    if not names & {"mlflow", "mlflow-skinny"}:
        lines.append(f"mlflow-skinny=={model.mlflow_version}")
    return lines


def _package_name(line: str) -> str:
    from packaging.utils import canonicalize_name

    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return canonicalize_name(match[0]) if match else ""


def _required_names(package: str) -> set[str]:
    """Return the names of the packages that an installed package needs."""
    try:
        lines = requires(package) or []
    except PackageNotFoundError:
        return set()
    return {_package_name(line) for line in lines if "extra ==" not in line}
