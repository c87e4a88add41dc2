"""Wrap pinned models in the guard: the result is an MLflow model that Spark's workers load."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dbx_aml._common.paths import size_of_folder
from dbx_aml.scoring import guard, guard_casts, guard_loader, guard_several
from dbx_aml.scoring.column_binding import ModelOutput
from dbx_aml.scoring.pinned_model import PinnedModel

# The package that the guard travels as; its modules import each other relatively.
_GUARD_PACKAGE = "dbx_aml_guard"
# Files that an environment other than this machine's is built from.
_ENVIRONMENT_FILES = ("conda.yaml", "python_env.yaml", "requirements.txt")


@dataclass(frozen=True, kw_only=True)
class GuardedModel:
    """A model that goes into the guard.

    Args:
        model: Pinned model.
        outputs: Outputs with the names of their fields in the guard's result.
        unscorable_reasons: Reasons by code, see `column_binding.unscorable`.
        columns: Names of the columns where they come by position; None where they have names.
        positions: Positions of the columns, for one model of several.
    """

    model: PinnedModel
    outputs: Sequence[ModelOutput]
    unscorable_reasons: Sequence[str]
    columns: Sequence[str] | None
    positions: Sequence[int] = ()


def wrap_in_guard(
    models: Sequence[GuardedModel],
    folder: Path,
    env_manager: str,
    segments: Mapping[str, Any] | None = None,
) -> Path:
    """Write an MLflow model that is these models inside the guard, and return its folder.

    Args:
        models: Model, and its challenger if it has one; or the models of segments. Their files are
            moved into the new folder.
        folder: Folder that does not exist yet.
        env_manager: Environment of the model. Other than in "local", rows travel as JSON, and only
            a signature restores their types.
        segments: Routing of the rows to the models of segments, see `SegmentModels.routing`.
    """
    import mlflow
    import yaml

    data = folder / "guarded"
    data.mkdir(parents=True)
    specs = []
    for number, guarded in enumerate(models):
        name = f"model_{number}"
        shutil.move(str(guarded.model.folder), data / name)
        specs.append(
            {
                "folder": name,
                "hash": guarded.model.files,
                "outputs": [asdict(output) for output in guarded.outputs],
                "unscorable_reasons": list(guarded.unscorable_reasons),
                "columns": guarded.columns,
                "positions": guarded.positions,
                "version": guarded.model.version_number,
                "bytes": size_of_folder(data / name),
            }
        )
    spec = {"job": uuid.uuid4().hex, "models": specs, "segments": segments}
    (data / guard_loader.SPEC_FILE).write_text(json.dumps(spec), encoding="utf-8")
    # The first model decides packages and Python.
    model, inner_folder = models[0].model, data / "model_0"
    package = folder / "code" / _GUARD_PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for module in (guard, guard_casts, guard_loader, guard_several):
        shutil.copy(str(module.__file__), package)
    inner = yaml.safe_load((inner_folder / "MLmodel").read_bytes())
    inner_pyfunc = inner["flavors"]["python_function"]
    pyfunc = {
        "loader_module": f"{_GUARD_PACKAGE}.guard_loader",
        "data": "guarded",
        "code": "code",
        "python_version": inner_pyfunc.get("python_version"),
        "config": {guard_loader.STRICT: False, guard_loader.LIMITED: False},
    }
    for name in _ENVIRONMENT_FILES:
        if (inner_folder / name).exists():
            shutil.copy(inner_folder / name, folder / name)
    if "env" in inner_pyfunc:
        pyfunc["env"] = inner_pyfunc["env"]
    mlmodel: dict[str, Any] = {
        "flavors": {"python_function": pyfunc},
        "mlflow_version": mlflow.__version__,
    }
    if env_manager != "local":
        code_column = {"type": "integer", "name": guard.UNSCORABLE, "required": False}
        flag_columns = [
            {"type": "boolean", "name": guard.MISSING + column.name, "required": False}
            for column in model.inputs
            if column.type in ("integer", "long") and not column.required
        ]
        inputs = [*json.loads(inner["signature"]["inputs"]), *flag_columns, code_column]
        mlmodel["signature"] = {"inputs": json.dumps(inputs), "outputs": None, "params": None}
    (folder / "MLmodel").write_text(yaml.safe_dump(mlmodel), encoding="utf-8")
    return folder
