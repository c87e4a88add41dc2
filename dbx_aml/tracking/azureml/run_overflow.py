"""The overflow of a run: the 201st parameter, long values, the 51st tag.

The overflow is a series of artifacts of the run, `dbx_aml/overflow.json`,
`dbx_aml/overflow.2.json` and so on. Each artifact is written before the tag that counts them, so a
killed program loses no value whose logging call has returned. An artifact never changes. A program
that meets an existing number takes the next number, so two programs can write at once. A long value
leaves its beginning and its hash in the service; the hash finds the full value in the overflow. A
value that is written later to the service replaces the long value, because it has no such hash.
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

from dbx_aml.tracking.azureml.artifact_container import INTERNAL_FOLDER, ArtifactContainer

_HASH_LENGTH = 12
_HASH_PREFIX = " …[dbx_aml "


@dataclass(kw_only=True)
class OverflowPart:
    """Parameters, tags and values that do not fit into a run.

    Args:
        params: Values of parameters that the service does not have, by name.
        tags: Values of tags that the service does not have, by name; None for a deleted tag.
        values: Full values by their hash, where the service has only the beginning.
    """

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str | None] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.params or self.tags or self.values)

    def shorten(self, value: str, max_length: int) -> str:
        """Return a value that the service accepts; keep the full text of a longer value."""
        if len(value) <= max_length:
            return value
        digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
        self.values[digest] = value
        beginning = value[: max_length - len(_HASH_PREFIX) - _HASH_LENGTH - 1]
        return f"{beginning}{_HASH_PREFIX}{digest}]"

    def full_value(self, value: str) -> str:
        """Return the full value for a shortened value of the service."""
        start = len(value) - _HASH_LENGTH - 1
        if not value.endswith("]") or value[max(0, start - len(_HASH_PREFIX)) : start] != (
            _HASH_PREFIX
        ):
            return value
        return self.values.get(value[start:-1], value)

    def update(self, newer: "OverflowPart") -> None:
        """Add the content of a newer part; its values replace older values."""
        self.params |= newer.params
        self.tags |= newer.tags
        self.values |= newer.values


class RunOverflow:
    """The overflow of all runs of a store.

    Args:
        get_container: Function that returns the artifacts of a run.
    """

    def __init__(self, get_container: Callable[[str], ArtifactContainer]) -> None:
        self._get_container = get_container
        self._cached_parts: dict[tuple[str, int], OverflowPart] = {}
        self._lock = Lock()
        self._last_numbers: dict[str, int] = {}

    def append(self, run_id: str, overflow: OverflowPart, count: int) -> int:
        """Write a part as a new artifact, and return the number of artifacts.

        Args:
            run_id: Identifier of the run.
            overflow: Content of the artifact.
            count: Number of artifacts that the run has at least.
        """
        container = self._get_container(run_id)
        with self._lock, tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "overflow.json"
            file.write_text(json.dumps(vars(overflow)), encoding="utf-8")
            number = max(count, self._last_numbers.get(run_id, 0))
            while True:
                number += 1
                if container.upload_new(_artifact_path(number), file):
                    self._last_numbers[run_id] = number
                    self._cached_parts[run_id, number] = overflow
                    return number

    def read(self, run_id: str, count: int) -> OverflowPart:
        """Return the content of all artifacts of a run.

        Args:
            run_id: Identifier of the run.
            count: Number of artifacts that the run has at least; a killed program may have left
                one more.
        """
        content = OverflowPart()
        for part in self._read_parts(run_id, max(count, self._last_numbers.get(run_id, 0))):
            content.update(part)
        return content

    def _read_parts(self, run_id: str, count: int) -> Iterator[OverflowPart]:
        with ThreadPoolExecutor(8) as pool:
            parts = pool.map(lambda number: self._read_part(run_id, number), range(1, count + 1))
            yield from (part for part in parts if part)
        while part := self._read_part(run_id, count + 1):
            count += 1
            yield part

    def _read_part(self, run_id: str, number: int) -> OverflowPart | None:
        """Return the content of one artifact; None if its upload failed."""
        part = self._cached_parts.get((run_id, number))
        if part is None:
            container, path = self._get_container(run_id), _artifact_path(number)
            if container.size(path) is None:
                return None
            with tempfile.TemporaryDirectory() as folder:
                try:
                    part = OverflowPart(**json.loads(container.read(path, Path(folder))))
                except (ValueError, TypeError) as error:
                    raise MlflowException(
                        f"artifact {path!r} of run {run_id} must be JSON of this package: "
                        f"{error}; read the run with a newer version"
                    ) from error
            self._cached_parts[run_id, number] = part
        return part


def _artifact_path(number: int) -> str:
    return f"{INTERNAL_FOLDER}overflow{'' if number == 1 else f'.{number}'}.json"
