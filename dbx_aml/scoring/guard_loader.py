"""Load the guarded models of a job in a worker: each once, here or in the process of its packages.

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
# Processes of a worker, beyond which the one that was used longest ago ends.
_MOST_PROCESSES = 4

AnyGuard = Guard | ProcessGuard | ChallengerGuard | SegmentGuard


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> AnyGuard:
    return _cache.load(path, model_config or {})


class ModelCache:
    """The models of a job in this process, and the processes that run its other models.

    MLflow calls `_load_pyfunc` once a task, and most of a task would be loading. So models and
    processes stay as long as the next job has them, too: a worker outlives many jobs.

    Args:
        environment: Hash of the environment whose models this process loads; None for the models
            that run with the packages of this machine.
    """

    def __init__(self, environment: str | None = None) -> None:
        self._environment = environment
        self._path = ""
        self._spec: dict[str, Any] = {}
        # By hash; the model that was used last is the last one, as with the processes.
        self._models: dict[str, LoadedModel] = {}
        self._hashes_of_job: set[str] = set()
        self._processes: dict[str, GuardProcess] = {}

    @property
    def hashes(self) -> list[str]:
        """Hashes of the loaded models."""
        return list(self._models)

    @property
    def process_ids(self) -> list[int]:
        """Ids of the processes that run models in environments of their own."""
        return [process.process_id for process in self._processes.values()]

    def load(self, path: str, config: dict[str, Any]) -> AnyGuard:
        """Return the guarded models of a job as one.

        Args:
            path: Folder of the guarded models.
            config: Whether the guard is strict, and whether it is limited.
        """
        self._read(path)
        spec = self._spec
        limits = Limits(
            spec["job"] if config.get(STRICT) else None,
            is_limited=bool(config.get(LIMITED)),
        )
        models, segments = spec["models"], spec["segments"]

        def load(position: int) -> Guard | ProcessGuard:
            return self._guard(path, spec, position)

        if segments is not None:
            return SegmentGuard(load, models, segments, limits)
        champion = self._guard(path, spec, 0, limits)
        if len(models) == 1:
            return champion
        # Rows that only a challenger cannot score end no query.
        return ChallengerGuard(champion, load(1), [model["positions"] for model in models])

    def load_one(self, path: str, position: int) -> Guard | ProcessGuard:
        """Return one guarded model of a job.

        Args:
            path: Folder of the guarded models.
            position: Position of the model among them.
        """
        if path != self._path:
            self._read(path)
        return self._guard(path, self._spec, position)

    def forget(self) -> None:
        """Forget the loaded models and the modules that they brought; end the processes."""
        self._forget_models()
        self._end_processes(set(self._processes))

    def _read(self, path: str) -> None:
        """Read what the models of a job are, and forget those of another job."""
        with open(os.path.join(path, SPEC_FILE), encoding="utf-8") as file:
            self._spec = json.load(file)
        self._path = path
        hashes = {
            model["hash"]
            for model in self._spec["models"]
            if model["environment"] == self._environment
        }
        if hashes != self._hashes_of_job:
            self._forget_models()
            self._hashes_of_job.update(hashes)
        self._end_processes(set(self._processes) - set(self._spec["environments"]))

    def _guard(
        self, path: str, spec: dict[str, Any], position: int, limits: Limits | None = None
    ) -> Guard | ProcessGuard:
        model = spec["models"][position]
        if model["environment"] != self._environment:
            process = self._find_process(path, spec["environments"][model["environment"]])
            return ProcessGuard(process, path, position, limits)
        loaded = self._models.pop(model["hash"], None)
        if loaded is None:
            if spec["segments"] is not None:
                self._make_room(spec["segments"]["cache_bytes"] - model["bytes"])
            folder = os.path.join(path, model["folder"])
            is_alone = len(self._hashes_of_job) == 1
            loaded = LoadedModel(folder, model["bytes"], is_alone=is_alone)
            if spec["segments"] is None:
                _freeze()
        self._models[model["hash"]] = loaded
        return Guard(
            loaded.model,
            model["outputs"],
            model["unscorable_reasons"],
            columns=model["columns"],
            limits=limits,
            modules=loaded.modules,
        )

    def _find_process(self, path: str, environment: dict[str, Any]) -> GuardProcess:
        """Return the process of an environment; start it the first time, and when it has ended."""
        name = environment["hash"]
        process = self._processes.pop(name, None)
        if process is None or not process.is_running:
            oldest = list(self._processes)[: len(self._processes) - _MOST_PROCESSES + 1]
            self._end_processes(set(oldest))
            process = GuardProcess(path, environment)
            _freeze()
        self._processes[name] = process
        return process

    def _make_room(self, room_bytes: int) -> None:
        """Forget the models that were used longest ago, until the others take these bytes."""
        size = sum(loaded.size_bytes for loaded in self._models.values())
        for name in list(self._models):
            if size <= room_bytes:
                return
            forgotten = self._models.pop(name)
            forgotten.remove_modules()
            size -= forgotten.size_bytes

    def _forget_models(self) -> None:
        for loaded in self._models.values():
            loaded.remove_modules()
        self._models.clear()
        self._hashes_of_job.clear()
        importlib.invalidate_caches()

    def _end_processes(self, names: set[str]) -> None:
        for name in names:
            self._processes.pop(name).close()


# The models of this worker of Spark.
_cache = ModelCache()


def _freeze() -> None:
    """Keep the loaded objects out of the next collections of garbage.

    PySpark's daemon collects garbage in the worker after every task. With a library and a model on
    the heap that takes longer than a small task; frozen objects are skipped.
    """
    gc.collect()
    gc.freeze()


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
