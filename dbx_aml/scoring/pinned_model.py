"""The model of a job: resolved to one version, downloaded, its signature read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbx_aml._common.errors import (
    ModelNotFoundError,
    SchemaMismatchError,
    ScoringError,
    ServiceUnavailableError,
)
from dbx_aml._common.http import send
from dbx_aml._common.paths import sha256_of_folder
from dbx_aml._common.redact import redact_uri
from dbx_aml._common.retry import RetryPolicy
from dbx_aml._common.text import first_line
from dbx_aml.local.pinned_environment import PinnedEnvironment
from dbx_aml.models.model_files import ModelLocation, locate_model, registry_uri_of
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring.column_binding import ModelColumn, ModelOutput
from dbx_aml.scoring.environments import check_flavor, check_spark_udf, installed_versions
from dbx_aml.scoring.own_environment import pin_environment
from dbx_aml.scoring.plan import Environment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import Model

# MLflow's own client retries for minutes when a server does not answer.
_SERVER_TIMEOUT_S = 5.0
# What runs a model beside its own environment.
_AROUND_A_MODEL = ("databricks_runtime", "pyspark")
_ADD_SIGNATURE = (
    "log it again with signature=mlflow.models.infer_signature(X, model.predict(X)), "
    "or add one with mlflow.models.set_signature"
)


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """A model that no longer changes, with its files on this machine.

    Args:
        uri: URI that no moving alias changes any more, for example "models:/delay/3".
        name: Registered model; None for a model that is not registered.
        version: Version of the registered model.
        run_id: Run that logged the model.
        folder: Folder with the model's files.
        inputs: Input columns of the signature.
        outputs: Outputs of the signature.
        content: Digest of what the model is: of a registered version its creation and its MLmodel
            file, of any other model all its files.
        files: Digest of all its files.
        environment: Names and versions of what runs the model: Python, Spark, the runtime of
            Databricks, and each package that the model requires.
        own_environment: Packages of the model's own environment; None for this machine's.
    """

    uri: str
    name: str | None
    version: str | None
    run_id: str | None
    folder: Path
    inputs: tuple[ModelColumn, ...]
    outputs: tuple[ModelOutput, ...]
    content: str
    files: str
    environment: tuple[tuple[str, str], ...]
    own_environment: PinnedEnvironment | None = None

    @property
    def version_number(self) -> int | None:
        """Version as a number, for `_scoring.model_version`; None for a model without versions."""
        return int(self.version) if self.version is not None and self.version.isdigit() else None


def pin_model(
    uri: ModelUri, client: MlflowClient, folder: Path, environment: Environment = "local"
) -> PinnedModel:
    """Resolve a model URI to one version, download its files, and pin its packages.

    Raises:
        PackagesError: The packages of the model's own environment cannot be pinned.
        ProgramError: uv is not installed, which resolves the packages.
        ModelNotFoundError: The server has no such model, version or alias.
        SchemaMismatchError: The model has no signature that names its columns.
        ScoringError: A server does not answer, or a package of the model is missing here.
    """
    location, path, metadata = fetch_model(uri, client, folder)
    check_spark_udf()
    own_environment = pin_environment(environment, metadata, path)
    versions = installed_versions(path)
    if own_environment is None:
        check_flavor(metadata, path)
    else:
        around = {name: versions[name] for name in _AROUND_A_MODEL if name in versions}
        versions = {**around, **own_environment.versions}
    files = digest_files(path)
    return PinnedModel(
        uri=str(location.uri),
        name=location.uri.name,
        version=location.uri.version,
        run_id=location.run_id or metadata.run_id,
        folder=path,
        inputs=_inputs(metadata, uri),
        outputs=_outputs(metadata, uri),
        content=_digest_version(location, path) if location.created_at else files,
        files=files,
        environment=tuple(versions.items()),
        own_environment=own_environment,
    )


def fetch_model(
    uri: ModelUri, client: MlflowClient, folder: Path
) -> tuple[ModelLocation, Path, Model]:
    """Return the location of a model, the local folder of its files, and MLflow's description.

    Args:
        uri: URI of the model; an alias is resolved to its version.
        client: Client of the servers.
        folder: Folder that the files are downloaded to.

    Raises:
        ModelNotFoundError: The server has no such model, version or alias.
        ScoringError: A server does not answer.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    if uri.kind != "path":
        for server_uri in (client.tracking_uri, registry_uri_of(client)):
            check_server(server_uri)
    try:
        location = locate_model(uri, client)
        path = location.download(folder)
        metadata = Model.load(str(path))
    except MlflowException as err:
        raise ModelNotFoundError(f"{_must_exist(uri)}; {first_line(err)}") from err
    except OSError as err:
        raise ModelNotFoundError(
            f"model must be readable: got {str(uri)!r}; {first_line(err)}"
        ) from err
    return location, path, metadata


def _digest_version(location: ModelLocation, folder: Path) -> str:
    """Return the digest of a registered version: its files do not change after its creation.

    A version that was deleted and made again has the number of the old one, but another time. The
    MLmodel file tells a local registry's version whose source folder was saved again.
    """
    digest = hashlib.sha256(f"{location.uri} {location.created_at}\n".encode())
    digest.update((folder / "MLmodel").read_bytes())
    return digest.hexdigest()[:16]


def digest_files(folder: Path) -> str:
    """Return a digest of the names and the content of all files of a model.

    Files that Python itself writes beside a model's code are left out.
    """
    return sha256_of_folder(folder, skipped_folder="__pycache__")[:16]


def _must_exist(uri: ModelUri) -> str:
    kind = {
        "alias": "registered model and alias",
        "version": "registered model and version",
        "run": "run and artifact path",
    }.get(uri.kind, "model")
    return f"{kind} must exist: got {str(uri)!r}"


def check_server(uri: str) -> None:
    """Refuse an MLflow server that does not answer within seconds.

    Args:
        uri: MLflow URI; one that is no HTTP address is not checked.

    Raises:
        ScoringError: The server does not answer.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    try:
        send("GET", uri, RetryPolicy(timeout_s=_SERVER_TIMEOUT_S, max_attempts=1))
    except ServiceUnavailableError as err:
        raise ScoringError(
            f"MLflow server must answer: got {redact_uri(uri)!r}; "
            "check tracking_uri and registry_uri, and that the server is up"
        ) from err


def _inputs(model: Model, uri: ModelUri) -> tuple[ModelColumn, ...]:
    from mlflow.types.schema import ColSpec, DataType

    schema = model.get_input_schema()
    if schema is None or not schema.inputs:
        raise SchemaMismatchError(
            f"model must have a signature: got none in {str(uri)!r}; {_ADD_SIGNATURE}"
        )
    columns = []
    for spec in schema.inputs:
        if not isinstance(spec, ColSpec) or spec.name is None:
            raise SchemaMismatchError(
                f"model signature must name its input columns: got {spec!r} in {str(uri)!r}; "
                "log it again with a DataFrame as X in infer_signature(X, model.predict(X))"
            )
        column_type = spec.type.name if isinstance(spec.type, DataType) else _spark_type(spec.type)
        columns.append(ModelColumn(name=spec.name, type=column_type, required=spec.required))
    return tuple(columns)


def _spark_type(spec_type: Any) -> str:
    from mlflow.pyfunc import _convert_spec_type_to_spark_type

    return str(_convert_spec_type_to_spark_type(spec_type).simpleString())


def _outputs(model: Model, uri: ModelUri) -> tuple[ModelOutput, ...]:
    from mlflow.types.schema import Array, ColSpec, DataType

    schema = model.get_output_schema()
    if schema is None or not schema.inputs:
        raise SchemaMismatchError(
            f"model signature must have outputs: got inputs only in {str(uri)!r}; {_ADD_SIGNATURE}"
        )
    outputs = []
    for number, spec in enumerate(schema.inputs):
        is_list, length = False, None
        if isinstance(spec, ColSpec):
            value_type = spec.type
            if isinstance(value_type, Array):
                is_list, value_type = True, value_type.dtype
            type_name = value_type.name if isinstance(value_type, DataType) else str(value_type)
        else:
            value_type = DataType.from_numpy_type(spec.type)
            type_name = value_type.name if value_type is not None else str(spec.type)
            if len(spec.shape) > 2:
                raise SchemaMismatchError(
                    f"model predictions must have one or two dimensions: got shape {spec.shape}; "
                    "flatten them in the model"
                )
            if len(spec.shape) == 2:
                is_list, length = True, spec.shape[1] if spec.shape[1] > 0 else None
        outputs.append(
            ModelOutput(
                name=spec.name or str(number),
                field=f"p{number}",
                type=type_name,
                is_list=is_list,
                length=length,
                required=getattr(spec, "required", True),
            )
        )
    return tuple(outputs)
