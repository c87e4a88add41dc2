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
from .guard_process import GuardProcess, ProcessGuard
from .guard_several import ChallengerGuard, SegmentGuard

SPEC_FILE = "spec.json"
STRICT = "strict"
LIMITED = "limited"
_MOST_REASONS = 1000

# The models of the job of this worker process by their hashes. MLflow calls `_load_pyfunc` once a
# task, and most of a task would be loading. The models of one job are kept: a worker outlives many.
_loaded_models: dict[str, LoadedModel] = {}
# Hashes of all models of that job.
_hashes_of_job: set[str] = set()
# The process that runs the model in its own environment, by what decides its answers.
_processes: dict[str, GuardProcess] = {}


def _load_pyfunc(
    path: str, model_config: dict[str, Any] | None = None
) -> Guard | ChallengerGuard | SegmentGuard | ProcessGuard:
    spec = _read_spec(path)
    config = model_config or {}
    limits = Limits(
        spec["job"] if config.get(STRICT) else None, _MOST_REASONS if config.get(LIMITED) else None
    )
    models, segments = spec["models"], spec["segments"]
    if spec["environment"] is not None:
        return ProcessGuard(_find_process(path, spec), limits)
    hashes = {model["hash"] for model in models}
    if hashes != _hashes_of_job:
        forget_models()
        _hashes_of_job.update(hashes)

    def load(position: int, limits: Limits | None = None) -> Guard:
        model = models[position]
        loaded = _loaded_models.pop(model["hash"], None)
        if loaded is None:
            if segments is not None:
                _make_room(segments["cache_bytes"] - model["bytes"])
            folder = os.path.join(path, model["folder"])
            loaded = LoadedModel(folder, model["bytes"], is_alone=len(hashes) == 1)
            if segments is None:
                _freeze()
        # The model that was used last is the last one.
        _loaded_models[model["hash"]] = loaded
        return _guard(loaded, model, limits)

    if segments is not None:
        return SegmentGuard(load, models, segments, limits)
    if len(models) == 1:
        return load(0, limits)
    # Rows that only a challenger cannot score end no query.
    return ChallengerGuard(load(0, limits), load(1), [model["positions"] for model in models])


def load_guard(path: str) -> Guard:
    """Load the guarded model of a job in a process that has no other model."""
    model = _read_spec(path)["models"][0]
    folder = os.path.join(path, model["folder"])
    return _guard(LoadedModel(folder, model["bytes"], is_alone=True), model, None)


def _read_spec(path: str) -> dict[str, Any]:
    with open(os.path.join(path, SPEC_FILE), encoding="utf-8") as file:
        spec: dict[str, Any] = json.load(file)
    return spec


def _guard(loaded: LoadedModel, model: dict[str, Any], limits: Limits | None) -> Guard:
    return Guard(
        loaded.model,
        model["outputs"],
        model["unscorable_reasons"],
        columns=model["columns"],
        limits=limits,
        modules=loaded.modules,
    )


def _freeze() -> None:
    """Keep the loaded objects out of the next collections of garbage.

    PySpark's daemon collects garbage in the worker after every task. With a library and a model on
    the heap that takes longer than a small task; frozen objects are skipped.
    """
    gc.collect()
    gc.freeze()


def _find_process(path: str, spec: dict[str, Any]) -> GuardProcess:
    """Return the process that runs this model for these columns; start it the first time."""
    key = json.dumps([spec["models"], spec["environment"]])
    process = _processes.get(key)
    if process is None or not process.is_running:
        forget_models()
        process = _processes[key] = GuardProcess(path, spec["environment"])
        _freeze()
    return process


def _make_room(room_bytes: int) -> None:
    """Forget the models that were used longest ago, until the others take at most these bytes."""
    size = sum(loaded.size_bytes for loaded in _loaded_models.values())
    for name in list(_loaded_models):
        if size <= room_bytes:
            return
        forgotten = _loaded_models.pop(name)
        forgotten.remove_modules()
        size -= forgotten.size_bytes


def forget_models() -> None:
    """Forget the loaded models and the modules that they brought; end a model's process."""
    for loaded in _loaded_models.values():
        loaded.remove_modules()
    for process in _processes.values():
        process.close()
    _processes.clear()
    _loaded_models.clear()
    _hashes_of_job.clear()
    importlib.invalidate_caches()


class LoadedModel:
    """A model in this process, and the modules that it brought.

    Another model may bring a module of the same name with other code. So the modules of a model
    that is not alone in the process are there only while it runs.

    Args:
        folder: Folder of the model.
        size_bytes: Size of its files.
        is_alone: Whether the process has no other model.
    """

    def __init__(self, folder: str, size_bytes: int, *, is_alone: bool) -> None:
        import mlflow.pyfunc

        self.size_bytes = size_bytes
        self._folder = os.path.join(os.path.abspath(folder), "")
        self._modules: dict[str, Any] = {}
        self._paths: list[str] = []
        self._is_alone = is_alone
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
        if not self._is_alone:
            return
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
