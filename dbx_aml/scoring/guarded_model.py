"""Wrap pinned models in the guard: the result is an MLflow model that Spark's workers load."""

from __future__ import annotations

import json
import platform
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dbx_aml._common.paths import size_of_folder
from dbx_aml.scoring import guard, guard_casts, guard_loader, guard_process, guard_several
from dbx_aml.scoring.column_binding import ModelOutput
from dbx_aml.scoring.guard_process import GUARD_PACKAGE
from dbx_aml.scoring.pinned_model import PinnedModel

# Folder of the models inside the guarded model.
GUARDED_FOLDER = "guarded"


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
    environments: Mapping[str, Any],
    segments: Mapping[str, Any] | None = None,
) -> Path:
    """Write an MLflow model that is these models inside the guard, and return its folder.

    Args:
        models: Model, and its challenger if it has one; or the models of segments. Their files are
            moved into the new folder.
        folder: Folder that does not exist yet.
        environments: Environments of the models by their hashes, see `GuardProcess`.
        segments: Routing of the rows to the models of segments, see `SegmentModels.routing`.
    """
    import mlflow
    import yaml

    data = folder / GUARDED_FOLDER
    data.mkdir(parents=True)
    specs = []
    for number, guarded in enumerate(models):
        name, own = f"model_{number}", guarded.model.own_environment
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
                "environment": None if own is None else own.hash,
            }
        )
    spec = {
        "job": uuid.uuid4().hex,
        "models": specs,
        "segments": segments,
        "environments": environments,
    }
    (data / guard_loader.SPEC_FILE).write_text(json.dumps(spec), encoding="utf-8")
    package = folder / "code" / GUARD_PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for module in (guard, guard_casts, guard_loader, guard_process, guard_several):
        shutil.copy(str(module.__file__), package)
    pyfunc = {
        "loader_module": f"{GUARD_PACKAGE}.guard_loader",
        "data": GUARDED_FOLDER,
        "code": "code",
        "python_version": platform.python_version(),
        "config": {guard_loader.STRICT: False, guard_loader.LIMITED: False},
    }
    # MLflow reads it. What the models require, `environments` compares.
    (folder / "requirements.txt").touch()
    mlmodel: dict[str, Any] = {
        "flavors": {"python_function": pyfunc},
        "mlflow_version": mlflow.__version__,
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(mlmodel), encoding="utf-8")
    return folder
