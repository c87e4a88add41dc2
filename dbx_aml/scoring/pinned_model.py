"""The model of a job: resolved once, pinned, downloaded, and wrapped in the guard."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbx_aml._common.errors import ModelNotFoundError, ScoringError
from dbx_aml._common.text import first_line
from dbx_aml.models.model_files import locate_model, registry_uri_of
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring import guard
from dbx_aml.scoring.column_binding import ModelColumn, Output

if TYPE_CHECKING:
    from mlflow.models import Model

log = logging.getLogger(__name__)

# Seconds to wait for a server's first sign of life. MLflow's own client asks for minutes.
_ANSWER_S = 5.0
_GUARD_MODULE = "dbx_aml_guard"
# Flavors whose library has another name.
_LIBRARIES = {"pytorch": "torch", "spark": "pyspark"}
_ADD_SIGNATURE = (
    "log it again with signature=mlflow.models.infer_signature(X, model.predict(X)), "
    "or add one with mlflow.models.set_signature"
)


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """One version of a model, which no moving alias changes any more.

    `uri` names the version; `folder` holds its files; `inputs` and `outputs` are its signature.
    """

    uri: str
    name: str | None
    version: str | None
    run_id: str | None
    folder: Path
    inputs: tuple[ModelColumn, ...]
    outputs: tuple[Output, ...]


def pin(
    model_uri: str, tracking_uri: str | None, registry_uri: str | None, folder: Path
) -> PinnedModel:
    """Resolve a model URI to one version and download it.

    Args:
        model_uri: See `ModelUri`; for example "models:/delay@champion".
        tracking_uri: MLflow's; None as MLflow resolves it.
        registry_uri: MLflow's; None as MLflow resolves it.
        folder: An empty folder for the model's files.

    Raises:
        ModelUriError: The URI names no model.
        ScoringError: The server does not answer, or has no such model, version or alias, or
            the model has no signature that names columns.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    uri = ModelUri.parse(model_uri)
    client = MlflowClient(tracking_uri, registry_uri)
    if uri.kind != "path":
        for server in (client.tracking_uri, registry_uri_of(client)):
            check_server(server)
    try:
        location = locate_model(uri, client)
        path = location.download(folder)
        metadata = Model.load(str(path))
    except MlflowException as err:
        raise ModelNotFoundError(f"{_missing(uri)}; {first_line(err)}") from err
    except OSError as err:
        raise ModelNotFoundError(
            f"model must be readable: got {model_uri!r}; {first_line(err)}"
        ) from err
    _check_flavor(metadata, path)
    return PinnedModel(
        uri=str(location.uri),
        name=location.uri.name,
        version=location.uri.version,
        run_id=location.run_id or metadata.run_id,
        folder=path,
        inputs=_inputs(metadata, model_uri),
        outputs=_outputs(metadata, model_uri),
    )


def _missing(uri: ModelUri) -> str:
    thing = {
        "alias": "registered model and alias",
        "version": "registered model and version",
        "run": "run and artifact path",
    }.get(uri.kind, "model")
    return f"{thing} must exist: got {str(uri)!r}"


def check_server(uri: str) -> None:
    """Prove in seconds that an MLflow server answers; MLflow itself would retry for minutes.

    Raises:
        ScoringError: It does not.
    """
    import requests

    if urlsplit(uri).scheme not in ("http", "https"):
        return
    try:
        requests.get(uri, timeout=_ANSWER_S, allow_redirects=False)
    except requests.RequestException as err:
        shown = urlsplit(uri)._replace(query="", fragment="")
        shown = shown._replace(netloc=shown.netloc.rpartition("@")[2])
        raise ScoringError(
            f"MLflow server must answer: got {shown.geturl()!r}, {type(err).__name__}; "
            "check tracking_uri and registry_uri, and that the server is up"
        ) from err


def _check_flavor(metadata: Model, path: Path) -> None:
    """Refuse a model whose library is missing here, before Spark's workers fail one by one."""
    conf = metadata.flavors.get("python_function")
    if conf is None:
        raise ScoringError(
            f"model must have the python_function flavor: got {sorted(metadata.flavors)}; "
            "log it with an MLflow flavor that has it"
        )
    flavor = str(conf["loader_module"]).removeprefix("mlflow.").partition(".")[0]
    if flavor in metadata.flavors and flavor != "python_function":
        library = _LIBRARIES.get(flavor, flavor)
        known = importlib.util.find_spec(f"mlflow.{flavor}") is not None
        if known and importlib.util.find_spec(library) is None:
            needed = [r for r in _requirements(path) if flavor in r.replace("-", "_").lower()]
            raise ScoringError(
                f"model flavor must be installed on this machine: got {flavor!r}; "
                f"pip install {' '.join(needed) or flavor}, or use env_manager 'virtualenv'"
            )


def _requirements(path: Path) -> list[str]:
    file = path / "requirements.txt"
    return file.read_text(encoding="utf-8").split() if file.exists() else []


def differences(path: Path) -> list[str]:
    """Return where this machine differs from the model's requirements, a line a package."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for line in _requirements(path):
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
        if wanted.marker and not wanted.marker.evaluate():
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            # mlflow-skinny is mlflow without the server, which scoring does not need.
            if wanted.name != "mlflow":
                found.append(f"{line}: not installed here")
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            found.append(f"{line}: {installed} here")
    return found


def _inputs(metadata: Model, model_uri: str) -> tuple[ModelColumn, ...]:
    from mlflow.types.schema import ColSpec, DataType

    schema = metadata.get_input_schema()
    if schema is None or not schema.inputs:
        raise ScoringError(
            f"model must have a signature: got none in {model_uri!r}; {_ADD_SIGNATURE}"
        )
    columns = []
    for spec in schema.inputs:
        if not isinstance(spec, ColSpec) or spec.name is None:
            raise ScoringError(
                f"model signature must name its input columns: got {spec!r} in {model_uri!r}; "
                "log it again with a DataFrame as X in infer_signature(X, model.predict(X))"
            )
        kind = spec.type.name if isinstance(spec.type, DataType) else _spark_type(spec.type)
        columns.append(ModelColumn(name=spec.name, type=kind, required=spec.required))
    return tuple(columns)


def _spark_type(spec_type: Any) -> str:
    from mlflow.pyfunc import _convert_spec_type_to_spark_type

    return str(_convert_spec_type_to_spark_type(spec_type).simpleString())


def _outputs(metadata: Model, model_uri: str) -> tuple[Output, ...]:
    from mlflow.types.schema import Array, ColSpec, DataType

    schema = metadata.get_output_schema()
    if schema is None or not schema.inputs:
        raise ScoringError(
            f"model signature must have outputs: got inputs only in {model_uri!r}; {_ADD_SIGNATURE}"
        )
    outputs = []
    for i, spec in enumerate(schema.inputs):
        name, is_list, length = spec.name, False, None
        if isinstance(spec, ColSpec):
            kind = spec.type
            if isinstance(kind, Array):
                is_list, kind = True, kind.dtype
            kind_name = kind.name if isinstance(kind, DataType) else str(kind)
        else:
            kind = DataType.from_numpy_type(spec.type)
            kind_name = kind.name if kind is not None else str(spec.type)
            if len(spec.shape) > 2:
                raise ScoringError(
                    f"model predictions must have one or two dimensions: got shape {spec.shape}; "
                    "flatten them in the model"
                )
            if len(spec.shape) == 2:
                is_list, length = True, spec.shape[1] if spec.shape[1] > 0 else None
        outputs.append(
            Output(name=name or str(i), field=f"p{i}", type=kind_name, list=is_list, length=length)
        )
    return tuple(outputs)


def guarded(model: PinnedModel, unfit: Sequence[str], folder: Path, env_manager: str) -> Path:
    """Write an MLflow model that is `model` inside the guard, and return its folder.

    Args:
        model: Its files are moved into the new folder.
        unfit: Reasons by code, see `binding.unfit`.
        folder: A folder that does not exist yet.
        env_manager: With another than "local", rows travel as JSON, and only a signature tells
            what they were.
    """
    import mlflow
    import yaml

    data = folder / "guarded"
    data.mkdir(parents=True)
    shutil.move(str(model.folder), data / guard.MODEL_FOLDER)
    inner = data / guard.MODEL_FOLDER
    about = (inner / "MLmodel").read_bytes()
    spec = {
        # MLflow writes an id of its own into each model that it saves.
        "model": hashlib.sha256(about).hexdigest(),
        "job": uuid.uuid4().hex,
        "outputs": [asdict(output) for output in model.outputs],
        "unfit": list(unfit),
    }
    (data / guard.SPEC_FILE).write_text(json.dumps(spec), encoding="utf-8")
    code = folder / "code"
    code.mkdir()
    shutil.copy(str(guard.__file__), code / f"{_GUARD_MODULE}.py")
    written = yaml.safe_load(about)
    conf = written["flavors"]
    flavor = {
        "loader_module": _GUARD_MODULE,
        "data": "guarded",
        "code": "code",
        "python_version": conf["python_function"].get("python_version"),
        "config": {guard.STRICT: False},
    }
    # Only another environment than this one is built from these files.
    for name in ("conda.yaml", "python_env.yaml", "requirements.txt"):
        if (inner / name).exists():
            shutil.copy(inner / name, folder / name)
    if "env" in conf["python_function"]:
        flavor["env"] = conf["python_function"]["env"]
    content: dict[str, Any] = {
        "flavors": {"python_function": flavor},
        "mlflow_version": mlflow.__version__,
    }
    if env_manager != "local":
        code_column = {"type": "integer", "name": guard.UNFIT, "required": False}
        columns = [*json.loads(written["signature"]["inputs"]), code_column]
        content["signature"] = {"inputs": json.dumps(columns), "outputs": None, "params": None}
    (folder / "MLmodel").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder
