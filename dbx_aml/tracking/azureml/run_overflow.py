"""What a run in Azure ML has no room for: the 201st parameter, long values, the 51st tag.

It goes into artifacts of the run, `dbx_aml/overflow.json`, `dbx_aml/overflow.2.json` and so on,
each written before the tag that counts them, so a killed program loses nothing that it was told is
kept. An artifact is never changed: whoever meets a taken number goes on to the next one, so two
programs can write at once. A long value leaves its beginning and its hash in the service, by which
it is found again: what is written there later wins by itself.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from mlflow.exceptions import MlflowException

from dbx_aml.tracking.azureml.artifact_container import OWN_FOLDER, ArtifactContainer

_HASH_LENGTH = 12
_MARK = " …[dbx_aml "


@dataclass(kw_only=True)
class Spill:
    """What does not fit.

    Args:
        params: By name, those that the service does not have at all.
        tags: As well; None for one that was deleted.
        values: Whole values by their hash, for those of which the service has the beginning.
    """

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str | None] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.params or self.tags or self.values)

    def fitted(self, value: str, longest: int) -> str:
        """Return what the service takes of a value; keep the whole of a longer one here."""
        if len(value) <= longest:
            return value
        digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
        self.values[digest] = value
        return f"{value[: longest - len(_MARK) - _HASH_LENGTH - 1]}{_MARK}{digest}]"

    def whole(self, value: str) -> str:
        """Return the whole value for what the service has of it."""
        start = len(value) - _HASH_LENGTH - 1
        if not value.endswith("]") or value[max(0, start - len(_MARK)) : start] != _MARK:
            return value
        return self.values.get(value[start:-1], value)

    def add(self, later: "Spill") -> None:
        """Take over what was written later."""
        self.params |= later.params
        self.tags |= later.tags
        self.values |= later.values


class Overflow:
    """The overflow of the runs that one store works with.

    Args:
        container_of: Gives a run's artifacts.
    """

    def __init__(self, container_of: Callable[[str], ArtifactContainer]) -> None:
        self._container_of = container_of
        self._seen: dict[tuple[str, int], Spill] = {}
        self._lock = Lock()
        self._last: dict[str, int] = {}

    def append(self, run_id: str, spill: Spill, count: int) -> int:
        """Write what does not fit, and return how many artifacts there are now.

        Args:
            run_id: Whose it is.
            spill: What to write.
            count: How many there are at least.
        """
        container = self._container_of(run_id)
        with self._lock, tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "overflow.json"
            file.write_text(json.dumps(vars(spill)), encoding="utf-8")
            number = max(count, self._last.get(run_id, 0))
            while True:
                number += 1
                if container.upload_new(_path(number), file):
                    self._last[run_id] = number
                    self._seen[run_id, number] = spill
                    return number

    def read(self, run_id: str, count: int) -> Spill:
        """Return everything that a run's artifacts hold.

        Args:
            run_id: Whose it is.
            count: How many there are at least; a program that was killed may have left one more.
        """
        whole = Spill()
        for part in self._parts(run_id, max(count, self._last.get(run_id, 0))):
            whole.add(part)
        return whole

    def _parts(self, run_id: str, count: int) -> Iterator[Spill]:
        with ThreadPoolExecutor(8) as pool:
            numbers = range(1, count + 1)
            yield from (part for part in pool.map(lambda n: self._part(run_id, n), numbers) if part)
        while part := self._part(run_id, count + 1):
            count += 1
            yield part

    def _part(self, run_id: str, number: int) -> Spill | None:
        """Return one artifact's; None for one that never was uploaded, which nobody was told of."""
        found = self._seen.get((run_id, number))
        if found is None:
            container = self._container_of(run_id)
            if container.size(_path(number)) is None:
                return None
            with tempfile.TemporaryDirectory() as folder:
                try:
                    found = Spill(**json.loads(container.read(_path(number), Path(folder))))
                except (ValueError, TypeError) as error:
                    raise MlflowException(
                        f"artifact {_path(number)!r} of run {run_id} must be JSON of this package: "
                        f"{error}; read the run with a newer version"
                    ) from error
            self._seen[run_id, number] = found
        return found


def _path(number: int) -> str:
    return f"{OWN_FOLDER}overflow{'' if number == 1 else f'.{number}'}.json"
