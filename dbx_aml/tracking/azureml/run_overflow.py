"""The overflow of a run: the 201st parameter, long values, the 51st tag.

The overflow is a series of artifacts of the run, `dbx_aml/overflow.json`,
`dbx_aml/overflow.2.json` and so on. Each artifact is written before the tag that counts them, so a
killed program loses no value whose logging call has returned. An artifact never changes. A program
that meets an existing number takes the next number, so two programs can write at once. A long value
leaves its beginning and its hash in the service; the hash finds the full value in the overflow. A
value that is written later to the service replaces the long value, because it has no such hash.

A user who may write to a run may also write its tags and artifacts. The overflow of a run counts
as a whole or not at all: every artifact up to the count exists and has the form that this package
writes, and each long value has the hash under which it is kept.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from dbx_aml._common.daemon_threads import DaemonThreadPool
from dbx_aml._common.json_content import check_types, parse_json
from dbx_aml.tracking.azureml.artifact_container import INTERNAL_FOLDER, ArtifactContainer
from dbx_aml.tracking.azureml.tag_documents import OVERFLOW_COUNT

_HASH_LENGTH = 12
_HASH_PREFIX = " …[dbx_aml "
# A program that logs one parameter a call reaches this number in about an hour.
MAX_ARTIFACTS = 10_000
_ARTIFACTS_PER_GROUP = 16
_MAX_ARTIFACT_SIZE = 16 * 2**20
_MAX_SIZE = 64 * 2**20
_TYPES_BY_KEY = {
    "params": Mapping[str, str],
    "tags": Mapping[str, str | None],
    "values": Mapping[str, str],
}


class UnreadableRunError(MlflowException):
    """A tag or an artifact of a run is not as this package writes it.

    Args:
        run_id: Identifier of the run.
        location: Tag or artifact, for example "tag 'dbx_aml.overflow'".
        problem: Cause in a few words, without text of the tag or artifact.
    """

    def __init__(self, run_id: str, location: str, problem: str) -> None:
        super().__init__(
            f"{location} of run {run_id} must be as dbx-aml writes it: {problem}; find out who "
            "wrote it, or read the run with the version of dbx-aml that wrote it",
            INVALID_PARAMETER_VALUE,
        )


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
        # Halves of characters, which a file name of Linux may have, are no text in a JSON file.
        value = value.encode("utf-8", "replace").decode()
        if len(value) <= max_length:
            return value
        digest = _digest(value)
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

    @classmethod
    def from_json(cls, text: bytes) -> "OverflowPart":
        """Return the part in an artifact.

        Raises:
            ValueError: The artifact has another form, or a value another hash than its key. The
                message has no text of the artifact.
        """
        content = parse_json(text)
        check_types(content, _TYPES_BY_KEY)
        if content.keys() - _TYPES_BY_KEY.keys():
            raise ValueError("it has keys that this version does not know")
        if any(_digest(value) != digest for digest, value in content.get("values", {}).items()):
            raise ValueError("a value has another hash than its key")
        return cls(**content)

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
        # Content and size of each artifact, by run id and number.
        self._cached_parts: dict[tuple[str, int], tuple[OverflowPart, int]] = {}
        self._lock = Lock()
        self._last_numbers: dict[str, int] = {}

    def append(self, run_id: str, overflow: OverflowPart, count: int) -> int:
        """Write a part as a new artifact, and return the number of artifacts.

        Args:
            run_id: Identifier of the run.
            overflow: Content of the artifact.
            count: Number of artifacts by the run's tag.

        Raises:
            MlflowException: The part is too long, or the run has too many artifacts.
        """
        content = json.dumps(vars(overflow)).encode()
        if len(content) > _MAX_ARTIFACT_SIZE:
            raise _limit_error(
                run_id, f"at most {_MAX_ARTIFACT_SIZE:,} bytes in one call", f"{len(content):,}"
            )
        container = self._get_container(run_id)
        with self._lock, tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "overflow.json"
            file.write_bytes(content)
            number = self._last_numbers.get(run_id, 0)
            # A reader stops at a gap, so a tag with too high a count must not make one.
            if count > number and container.is_registered(_artifact_path(count)):
                number = count
            while number < MAX_ARTIFACTS:
                number += 1
                if container.upload_new(_artifact_path(number), file):
                    self._last_numbers[run_id] = number
                    self._cached_parts[run_id, number] = overflow, len(content)
                    return number
        raise _limit_error(run_id, f"at most {MAX_ARTIFACTS:,} calls", f"{number + 1:,}")

    def read(self, run_id: str, count: int) -> OverflowPart:
        """Return the content of all artifacts of a run.

        Args:
            run_id: Identifier of the run.
            count: Number of artifacts that the run has at least; a killed program may have left
                one more.

        Raises:
            UnreadableRunError: An artifact is missing, too long, or not as `append` writes it.
        """
        content, size = OverflowPart(), 0
        for part, part_size in self._read_parts(
            run_id, max(count, self._last_numbers.get(run_id, 0))
        ):
            size += part_size
            if size > _MAX_SIZE:
                raise UnreadableRunError(
                    run_id, "overflow", f"it has more than {_MAX_SIZE:,} bytes"
                )
            content.update(part)
        return content

    def _read_parts(self, run_id: str, count: int) -> Iterator[tuple[OverflowPart, int]]:
        with DaemonThreadPool(8) as pool:
            # In groups, so that little is read after an error.
            for first in range(1, count + 1, _ARTIFACTS_PER_GROUP):
                numbers = range(first, min(first + _ARTIFACTS_PER_GROUP, count + 1))
                yield from pool.map(lambda number: self._read_part(run_id, number, count), numbers)
        while count < MAX_ARTIFACTS:
            part, size = self._read_part(run_id, count + 1, count)
            if not part:
                return
            count += 1
            yield part, size

    def _read_part(self, run_id: str, number: int, count: int) -> tuple[OverflowPart, int]:
        """Return content and size of one artifact; an empty part if its upload failed.

        Args:
            run_id: Identifier of the run.
            number: Number of the artifact.
            count: Number of artifacts that the run has at least.
        """
        if (run_id, number) in self._cached_parts:
            return self._cached_parts[run_id, number]
        container, path = self._get_container(run_id), _artifact_path(number)
        size = container.size(path)
        if size is None:
            if number <= count and not container.is_registered(path):
                raise UnreadableRunError(
                    run_id,
                    f"tag {OVERFLOW_COUNT!r}",
                    f"it counts {count:,} artifacts, and {path!r} is missing",
                )
            return OverflowPart(), 0
        if size > _MAX_ARTIFACT_SIZE:
            problem = f"it has more than {_MAX_ARTIFACT_SIZE:,} bytes"
        else:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    part = OverflowPart.from_json(container.read(path, Path(folder)))
            except ValueError as error:
                problem = str(error)
            else:
                self._cached_parts[run_id, number] = part, size
                return part, size
        raise UnreadableRunError(run_id, f"artifact {path!r}", problem)


def _digest(value: str) -> str:
    """Return the beginning of the hash of a long value."""
    return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:_HASH_LENGTH]


def _limit_error(run_id: str, rule: str, actual: str) -> MlflowException:
    return MlflowException(
        f"values that do not fit into run {run_id} must have {rule}: got {actual}; "
        "log many values with one call of log_params or set_tags, long texts as artifacts",
        INVALID_PARAMETER_VALUE,
    )


def _artifact_path(number: int) -> str:
    return f"{INTERNAL_FOLDER}overflow{'' if number == 1 else f'.{number}'}.json"
