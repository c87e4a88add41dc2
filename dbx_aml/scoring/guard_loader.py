"""Load the guarded model of a job in a worker: each model of it once a process.

MLflow calls `_load_pyfunc`, the entry point of every pyfunc flavor. This file travels with the
model, see `guard`, and imports nothing of dbx-aml.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .guard import Guard, Limits, use_one_thread
from .guard_several import ChallengerGuard

SPEC_FILE = "spec.json"
STRICT = "strict"
LIMITED = "limited"
_MOST_REASONS = 1000

# The models of the job of this worker process by their hashes. MLflow calls `_load_pyfunc` once a
# task, and most of a task would be loading. The models of one job are kept: a worker outlives many.
_loaded_models: dict[str, LoadedModel] = {}
# Hashes of all models of that job.
_hashes_of_job: set[str] = set()


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Guard | ChallengerGuard:
    with open(os.path.join(path, SPEC_FILE), encoding="utf-8") as file:
        spec = json.load(file)
    config = model_config or {}
    limits = Limits(
        spec["job"] if config.get(STRICT) else None, _MOST_REASONS if config.get(LIMITED) else None
    )
    hashes = {model["hash"] for model in spec["models"]}
    if hashes != _hashes_of_job:
        forget_models()
        _hashes_of_job.update(hashes)
    guards = []
    for number, model in enumerate(spec["models"]):
        if model["hash"] not in _loaded_models:
            folder = os.path.join(path, model["folder"])
            _loaded_models[model["hash"]] = LoadedModel(folder, is_alone=len(hashes) == 1)
            # PySpark's daemon collects garbage in the worker after every task. With a library and
            # a model on the heap that takes longer than a small task; frozen objects are skipped.
            gc.collect()
            gc.freeze()
        loaded = _loaded_models[model["hash"]]
        guards.append(
            Guard(
                loaded.model,
                model["outputs"],
                model["unscorable_reasons"],
                columns=model["columns"],
                # Rows that only a challenger cannot score end no query.
                limits=limits if number == 0 else None,
                modules=loaded.modules,
            )
        )
    if len(guards) == 1:
        return guards[0]
    return ChallengerGuard(guards[0], guards[1], [model["positions"] for model in spec["models"]])


def forget_models() -> None:
    """Forget the loaded models and the modules that they brought."""
    for loaded in _loaded_models.values():
        loaded.remove_modules()
    _loaded_models.clear()
    _hashes_of_job.clear()
    importlib.invalidate_caches()


class LoadedModel:
    """A model in this process, and the modules that it brought.

    Another model may bring a module of the same name with other code. So the modules of a model
    that is not alone in the process are there only while it runs.

    Args:
        folder: Folder of the model.
        is_alone: Whether the process has no other model.
    """

    def __init__(self, folder: str, *, is_alone: bool) -> None:
        import mlflow.pyfunc

        self._folder = os.path.join(os.path.abspath(folder), "")
        self._modules: dict[str, Any] = {}
        self._paths: list[str] = []
        self._hides_modules = not is_alone and os.path.isdir(os.path.join(folder, "code"))
        with self.modules():
            self.model = mlflow.pyfunc.load_model(folder, suppress_warnings=True)
        use_one_thread(self.model)

    @contextmanager
    def modules(self) -> Iterator[None]:
        """Let `import` find the modules that the model brought."""
        if not self._hides_modules:
            yield
            return
        earlier_names = set(sys.modules)
        sys.modules.update(self._modules)
        sys.path[:0] = self._paths
        try:
            yield
        finally:
            self._modules = self._take_modules(set(sys.modules) - earlier_names)
            self._paths = [entry for entry in sys.path if self._is_below(entry)]
            sys.path[:] = [entry for entry in sys.path if not self._is_below(entry)]

    def remove_modules(self) -> None:
        """Remove the modules of the model from this process."""
        self._take_modules(set(sys.modules))
        sys.path[:] = [entry for entry in sys.path if not self._is_below(entry)]

    def _take_modules(self, names: set[str]) -> dict[str, Any]:
        taken = {}
        for name in names:
            module = sys.modules[name]
            files = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
            if any(file and self._is_below(file) for file in files):
                taken[name] = sys.modules.pop(name)
        return taken

    def _is_below(self, path: str) -> bool:
        return os.path.abspath(path).startswith(self._folder)
