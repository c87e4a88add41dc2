"""The registered version that a deployment serves, and the few of its files that decide how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

from dbx_aml._common.errors import ArgumentError, ServingError
from dbx_aml._common.text import first_line
from dbx_aml.link.link import Link
from dbx_aml.models.copy import copy_model_version
from dbx_aml.models.lineage import read_lineage
from dbx_aml.models.model_download import file_repository
from dbx_aml.models.model_files import locate_model
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.models.registries import AML, Registry, find_registry, get_registered_version
from dbx_aml.serving.environment import SERVER_REQUIREMENTS
from dbx_aml.serving.scoring_request import first_row

if TYPE_CHECKING:
    from mlflow.models import Model

    from dbx_aml.serving.scoring_request import Rows

_FILES = (
    "MLmodel",
    "conda.yaml",
    "constraints.txt",
    "input_example.json",
    "python_env.yaml",
    "requirements.txt",
    "serving_input_example.json",
)
_PYFUNC = "python_function"
# Packages that Azure ML's image for models without code needs in the model's own requirements.
_NO_CODE_PACKAGES = tuple(pin.partition("==")[0] for pin in SERVER_REQUIREMENTS)

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A registered version.

    Args:
        name: Registered model, for example "delay".
        version: Number of the version.
        registry: Registry that has the version.
        run_id: Run that logged the model; "" if the version names none.
        copied_from: Version in Databricks that it was copied from; "" for no copy.
        folder: Local folder with `MLmodel`, the requirements and the input example.
        metadata: MLflow's description of the model.
    """

    name: str
    version: str
    registry: Registry
    run_id: str
    copied_from: str
    folder: Path
    metadata: Model

    @property
    def has_signature(self) -> bool:
        """Whether the model has a signature."""
        return self.metadata.signature is not None

    @property
    def path(self) -> str:
        """Path of the version below its workspace in Azure Resource Manager."""
        return f"/models/{self.name}/versions/{self.version}"

    def example_row(self) -> Rows | None:
        """Return the first row of the model's input example, None without a frame or arrays."""
        info = self.metadata.saved_input_example_info
        if not info or info["type"] not in ("dataframe", "ndarray"):
            return None
        return first_row(cast("Rows", self.metadata.load_input_example(str(self.folder))))

    def missing_no_code_packages(self) -> list[str]:
        """Return the packages of a model without code that the model's requirements lack."""
        file = self.folder / "requirements.txt"
        text = file.read_text(encoding="utf-8").lower() if file.is_file() else ""
        return [name for name in _NO_CODE_PACKAGES if name not in text.replace("_", "-")]


def read_served_model(
    model_uri: str, *, registry: str | None, link: Link, folder: Path, report: Report
) -> ServedModel:
    """Return the version that a URI names, with its small files in a folder.

    An alias is resolved once.

    Args:
        model_uri: Registered version, for example "models:/delay@champion".
        registry: Registry of the version: "databricks-uc", "databricks", "aml" or an MLflow URI.
            By default the registry of the link that has it.
        link: Link that has the registries.
        folder: Empty folder for the files.
        report: Function that is called with the name of each step.

    Raises:
        ArgumentError: The URI names no registered version.
        ModelNotFoundError: No registry of the link has the version.
        ServingError: The model has no pyfunc flavor.
    """
    from mlflow.models import Model

    uri = ModelUri.parse(model_uri)
    if uri.kind not in ("alias", "version"):
        raise ArgumentError(
            f"model_uri must name a registered version: got {model_uri!r}; register the model "
            "with dbx_aml.register_model, and pass for example 'models:/delay@champion'"
        )
    report("Finding the model")
    source, version = get_registered_version(uri, registry, link)
    name, number = str(version.name), str(version.version)
    report("Reading the model")
    _download_small_files(name, number, source, folder)
    metadata = Model.load(str(folder))
    if _PYFUNC not in metadata.flavors:
        raise ServingError(
            f"model must have the flavor {_PYFUNC!r}: got {sorted(metadata.flavors)} of "
            f"models:/{name}/{number}; log it with mlflow.pyfunc, or with a flavor that adds it"
        )
    lineage = read_lineage(dict(version.tags or {}))
    return ServedModel(
        name=name,
        version=number,
        registry=source,
        run_id=str(version.run_id or lineage.get("dbx_aml.source_run_id") or ""),
        copied_from="",
        folder=folder,
        metadata=metadata,
    )


def copy_to_azure_ml(model: ServedModel, link: Link, report: Report) -> ServedModel:
    """Return the version in Azure ML's registry; one that is in Databricks is copied there."""
    aml_registry = find_registry(AML, link)
    if model.registry.is_same(aml_registry):
        return model
    report("Copying the model to Azure ML")
    uri = f"models:/{model.name}/{model.version}"
    copied = copy_model_version(uri, source_registry=model.registry.uri, destination_registry=AML)
    return replace(
        model,
        name=copied.name,
        version=copied.version,
        registry=aml_registry,
        copied_from=f"{uri} in {model.registry.title}",
    )


def _download_small_files(name: str, version: str, registry: Registry, folder: Path) -> None:
    from mlflow.exceptions import MlflowException

    try:
        location = locate_model(ModelUri.parse(f"models:/{name}/{version}"), registry.client)
        repository = file_repository(location)
        infos = repository.list_artifacts(location.path or None)
        paths = {PurePosixPath(info.path).name: info.path for info in infos}
        # One by one: most of a model's bytes are in other files.
        for file in (file for file in _FILES if file in paths):
            repository._download_file(paths[file], str(folder / file))
    except (MlflowException, OSError) as err:
        raise ServingError(
            f"files of models:/{name}/{version} must be readable: got {first_line(err)}"
        ) from err
    if not (folder / "MLmodel").is_file():
        raise ServingError(
            f"version must be an MLflow model: got models:/{name}/{version} without an MLmodel "
            "file; register a folder that mlflow.<flavor>.log_model wrote"
        )
