"""`dbx-aml replay`: the comparison for people and for programs, and its exit code."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from dbx_aml import ReplayResult
from dbx_aml.cli.main import main
from dbx_aml.scoring import replay

RESULT = ReplayResult(
    output_table="main.flights.scored",
    batch=1795699234051020,
    batch_id="0123456789abcdef",
    model_uri="models:/delay/3",
    input_table="main.flights.new",
    input_version=7,
    rows_equal=281_299,
    rows_different=0,
    rows_missing=0,
    rows_more=0,
    largest_difference=None,
    examples=[],
    rows_quarantined=1,
    rows_quarantined_before=1,
    environment_differences=["numpy was 1.26.4, is 2.2.0"],
    seconds=9.5,
)


@pytest.fixture
def run(monkeypatch):
    def call(*arguments, result=RESULT):
        calls = []

        def replay_batch(progress, **given):
            calls.append(given)
            return result

        monkeypatch.setattr(replay, "replay_batch", replay_batch)
        finished = CliRunner().invoke(main, ["replay", "main.flights.scored", "17", *arguments])
        assert calls == [
            {"output_table": "main.flights.scored", "batch": "17", "tracking_uri": None,
             "registry_uri": None}
        ]  # fmt: skip
        return finished

    return call


def test_an_equal_replay_has_its_numbers_and_the_packages_that_changed(run):
    finished = run()
    assert finished.exit_code == 0
    for text in ("Equal", "281,299", "numpy was 1.26.4, is 2.2.0", "1795699234051020",
                 "main.flights.new at version 7", "1, 1 before"):  # fmt: skip
        assert text in finished.stdout
    assert json.loads(run("--json").stdout) == RESULT.to_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"rows_different": 2, "largest_difference": 0.5, "examples": [{"id": 1, "stored": [1.5]}]},
        {"rows_missing": 1},
        {"rows_more": 1},
        {"rows_quarantined": 2},
    ],
)
def test_a_row_that_is_not_equal_is_exit_1(run, changes):
    finished = run(result=replace(RESULT, **changes))
    assert finished.exit_code == 1
    assert "Not equal" in finished.stdout
    assert "replayed rows must be equal to the rows of the batch" in finished.stderr
    if "examples" in changes:
        assert '{"id": 1, "stored": [1.5]}' in finished.stdout
