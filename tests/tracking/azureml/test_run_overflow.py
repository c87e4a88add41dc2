"""Values that do not fit into a run, and artifacts that others wrote."""

import concurrent.futures.thread
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.azureml.run_overflow import (
    MAX_ARTIFACTS,
    OverflowPart,
    RunOverflow,
    UnreadableRunError,
)

LONG_PART = OverflowPart()
SHORT_VALUE = LONG_PART.shorten("x" * 600, 500)


class StubContainer:
    """The artifacts of a run in memory; a value of None is a failed upload."""

    def __init__(self, files: dict[str, bytes | None]) -> None:
        self.files = files
        self.requests = 0

    def size(self, path: str) -> int | None:
        self.requests += 1
        content = self.files.get(path)
        return None if content is None else len(content)

    def is_registered(self, path: str) -> bool:
        return path in self.files

    def read(self, path: str, folder: Path) -> bytes:
        content = self.files[path]
        assert content is not None
        return content

    def upload_new(self, path: str, file: Path) -> bool:
        if path in self.files:
            return False
        self.files[path] = file.read_bytes()
        return True


def artifact(**content: Any) -> bytes:
    return json.dumps({"params": {}, "tags": {}, "values": {}} | content).encode()


def overflow_of(*artifacts: bytes | None) -> tuple[RunOverflow, StubContainer]:
    names = ["overflow.json", *(f"overflow.{number}.json" for number in range(2, 20))]
    files = {f"dbx_aml/{name}": content for name, content in zip(names, artifacts, strict=False)}
    container = StubContainer(files)
    overflow = RunOverflow(lambda _: container)  # type: ignore[arg-type,return-value]
    return overflow, container


@given(st.text(max_size=2000), st.sampled_from([500, 1000]))
def test_a_long_value_is_shortened_and_found_again(value: str, max_length: int) -> None:
    part = OverflowPart()

    short_value = part.shorten(value, max_length)

    assert len(short_value) <= max_length
    assert part.full_value(short_value) == value
    assert bool(part) is (len(value) > max_length)


def test_a_value_of_another_client_stays_unchanged() -> None:
    part = OverflowPart()
    part.shorten("x" * 1001, 1000)

    assert part.full_value("later") == "later"
    assert part.full_value("… [dbx_aml 000000000000]") == "… [dbx_aml 000000000000]"


def test_half_a_character_is_a_question_mark() -> None:
    part = OverflowPart()

    short_value = part.shorten("\udc80" * 600, 500)

    assert part.full_value(short_value) == "?" * 600
    assert part.shorten("a\udc80", 500) == "a?"


def test_all_artifacts_count_with_one_that_a_killed_program_left_and_without_a_failed_one() -> None:
    overflow, _ = overflow_of(
        artifact(params={"a": "1"}),
        None,
        artifact(tags={"b": "2", "c": None}),
        artifact(values=LONG_PART.values),
    )

    content = overflow.read("r", 3)

    assert (content.params, content.tags) == ({"a": "1"}, {"b": "2", "c": None})
    assert content.full_value(SHORT_VALUE) == "x" * 600


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is no JSON"),
        (b"secret", "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
        (b"[]", "it is a list"),
        (b"[" * 200_000, "it is nested too deeply"),
        (artifact(params="secret"), "params must be an object"),
        (artifact(params={"a": 1}), "params must be an object"),
        (artifact(tags=[]), "tags must be an object"),
        (artifact(values={"a": None}), "values must be an object"),
        (artifact(params={"a": "\ud800"}), "params must be an object"),
        (artifact(values={"0" * 12: "secret"}), "a value has another hash than its key"),
        (artifact(secret=1), "it has keys that this version does not know"),
        (b" " * (2**24 + 1), "it has more than 16,777,216 bytes"),
    ],
)
def test_an_artifact_of_another_form_is_one_error_that_names_run_and_artifact(
    content: bytes, problem: str
) -> None:
    overflow, _ = overflow_of(artifact(params={"a": "1"}), content)

    with pytest.raises(UnreadableRunError) as error:
        overflow.read("run-7", 2)

    message = error.value.message
    assert "artifact 'dbx_aml/overflow.2.json' of run run-7 must be as dbx-aml writes it" in message
    assert problem in message
    assert "secret" not in message
    assert "\n" not in message


def test_a_count_without_artifacts_ends_the_reading_after_some_requests() -> None:
    overflow, container = overflow_of(artifact(params={"a": "1"}))

    with pytest.raises(UnreadableRunError, match=r"counts 10,000 artifacts, .* is missing"):
        overflow.read("r", MAX_ARTIFACTS)

    assert container.requests <= 16


def test_an_overflow_of_too_many_bytes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    overflow, _ = overflow_of(*[artifact(params={"a": "x" * 1000})] * 5)

    assert overflow.read("r", 5).params
    monkeypatch.setattr("dbx_aml.tracking.azureml.run_overflow._MAX_SIZE", 5000)
    with pytest.raises(UnreadableRunError, match="it has more than 5,000 bytes"):
        overflow.read("r", 5)


def test_a_part_is_written_where_readers_find_it_although_the_tag_counts_too_far() -> None:
    overflow, container = overflow_of(artifact(params={"a": "1"}), None)

    number = overflow.append("r", OverflowPart(params={"b": "2"}), 500)

    assert number == 3
    assert overflow.read("r", number).params == {"a": "1", "b": "2"}
    assert sorted(container.files) == [
        "dbx_aml/overflow.2.json",
        "dbx_aml/overflow.3.json",
        "dbx_aml/overflow.json",
    ]


def test_the_limit_of_artifacts_is_one_clear_error_for_who_writes() -> None:
    overflow, container = overflow_of()
    container.files |= dict.fromkeys(
        [f"dbx_aml/overflow.{number}.json" for number in range(2, MAX_ARTIFACTS + 1)]
    )

    with pytest.raises(MlflowException, match=r"run r must have at most 10,000 calls: got 10,001"):
        overflow.append("r", OverflowPart(params={"b": "2"}), MAX_ARTIFACTS)
    with pytest.raises(MlflowException, match="16,777,216 bytes in one call"):
        overflow.append("r", OverflowPart(params={"b": "x" * 2**24}), 0)


def test_after_the_last_line_of_the_main_thread_the_overflow_is_still_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(concurrent.futures.thread, "_shutdown", True)
    overflow, _ = overflow_of(artifact(params={"a": "1"}), artifact(params={"b": "2"}))
    assert overflow.read("run", 2).params == {"a": "1", "b": "2"}
