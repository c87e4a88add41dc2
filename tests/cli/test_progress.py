"""Progress of the command, on a stream that is no terminal."""

import io
import logging
import sys

import pytest

from dbx_aml.cli import progress
from dbx_aml.cli.main import LogHandler
from dbx_aml.cli.progress import show_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the lines see, as one number in a list."""
    time = [0.0]
    lines = progress._ProgressLines
    monkeypatch.setattr(progress, "_ProgressLines", lambda unit: lines(unit, lambda: time[0]))
    return time


def test_what_ends_before_the_delay_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("Reading") as report:
        report("Writing", 1, 2)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_each_step_is_a_line_and_a_count_at_most_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    lines = progress._ProgressLines("runs")
    for time, step, done in (
        (0, "Reading", 0), (1, "Mirroring", 1), (5, "Mirroring", 2), (12, "Mirroring", 3),
    ):  # fmt: skip
        clock[0] = time
        lines.update(step, done, 1_000 if done else 0, "5 MB" if done else "")
    assert capsys.readouterr().err.splitlines() == [
        "Reading ...",
        "Mirroring: 1 of 1,000 runs, 5 MB",
        "Mirroring: 3 of 1,000 runs, 5 MB",
    ]


def test_a_step_that_takes_longer_than_the_delay_is_shown_and_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with show_progress("Reading", delay_s=0) as report:
        report("Writing")
        report("Writing")
    report("After the end")
    assert capsys.readouterr().err.splitlines()[-1] == "Writing ..."


def test_a_step_is_shown_without_secrets_and_control_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with show_progress("Reading a\x1b[2J", delay_s=0) as report:
        report("Reading https://ana:s3cret@h.example", 1, 2, "b\x07")
    lines = capsys.readouterr().err
    assert "s3cret" not in lines
    assert "\x1b" not in lines
    assert r"Reading https://***@h.example: 1 of 2, b\x07" in lines


def test_a_log_record_goes_to_the_stream_that_a_progress_line_has_put_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler = LogHandler()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    handler.emit(logging.makeLogRecord({"msg": "the operation goes on in Azure"}))
    assert stream.getvalue() == "the operation goes on in Azure\n"
