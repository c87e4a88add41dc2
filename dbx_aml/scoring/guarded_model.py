"""Wrap a pinned model in the guard: the result is an MLflow model that Spark's workers load."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dbx_aml.scoring import guard, guard_casts
from dbx_aml.scoring.pinned_model import PinnedModel

# The package that the guard travels as; its two modules import each other relatively.
_GUARD_PACKAGE = "dbx_aml_guard"
# Files that an environment other than this machine's is built from.
_ENVIRONMENT_FILES = ("conda.yaml", "python_env.yaml", "requirements.txt")


def wrap_in_guard(
    model: PinnedModel,
    unscorable_reasons: Sequence[str],
    folder: Path,
    env_manager: str,
    columns: Sequence[str] | None,
) -> Path:
    """Write an MLflow model that is `model` inside the guard, and return its folder.

    Args:
        model: Pinned model; its files are moved into the new folder.
        unscorable_reasons: Reasons by code, see `column_binding.unscorable`.
        folder: Folder that does not exist yet.
        env_manager: Environment of the model. Other than in "local", rows travel as JSON, and only
            a signature restores their types.
        columns: Names of the columns where they come by position; None where they have names.
    """
    import mlflow
    import yaml

    data = folder / "guarded"
    data.mkdir(parents=True)
    inner_folder = data / guard.MODEL_FOLDER
    shutil.move(str(model.folder), inner_folder)
    inner_mlmodel = (inner_folder / "MLmodel").read_bytes()
    spec = {
        # The file differs for each saved model: MLflow writes a new id into it.
        "model": hashlib.sha256(inner_mlmodel).hexdigest(),
        "job": uuid.uuid4().hex,
        "outputs": [asdict(output) for output in model.outputs],
        "unscorable_reasons": list(unscorable_reasons),
        "columns": columns,
    }
    (data / guard.SPEC_FILE).write_text(json.dumps(spec), encoding="utf-8")
    package = folder / "code" / _GUARD_PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for module in (guard, guard_casts):
        shutil.copy(str(module.__file__), package)
    inner = yaml.safe_load(inner_mlmodel)
    inner_pyfunc = inner["flavors"]["python_function"]
    pyfunc = {
        "loader_module": f"{_GUARD_PACKAGE}.guard",
        "data": "guarded",
        "code": "code",
        "python_version": inner_pyfunc.get("python_version"),
        "config": {guard.STRICT: False, guard.LIMITED: False},
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
