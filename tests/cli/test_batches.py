"""`dbx-aml batches`: the ledger of an output table, for people and for programs."""

import json
from datetime import datetime
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from pyspark.sql import Row

from dbx_aml.cli.main import main
from dbx_aml.scoring import ledger

FACTS = {
    "batch": 1795699234051020,
    "batch_id": "0123456789abcdef",
    "state": "scored",
    "started_at": datetime(2026, 11, 26, 13, 20, 34),
    "rows_read": 281_300,
    "rows_scored": 281_299,
    "rows_quarantined": 1,
    "model_uri": "models:/main.flights.delay/3",
    "input_table": "main.flights.new",
    "input_version_to": 7,
}
INTERRUPTED = {
    **FACTS,
    "batch": 1795699234051021,
    "state": "interrupted",
    **dict.fromkeys(["rows_read", "rows_scored", "rows_quarantined", "input_version_to"]),
}


@pytest.fixture
def run(monkeypatch):
    def call(*arguments, rows=(INTERRUPTED, FACTS)):
        frame = SimpleNamespace(
            limit=lambda count: SimpleNamespace(
                collect=lambda: [Row(**row) for row in rows[:count]]
            )
        )
        monkeypatch.setattr(ledger, "batches", lambda output_table: frame)
        return CliRunner().invoke(
            main, ["batches", "main.flights.scored", *arguments], env={"COLUMNS": "80"}
        )

    return call


def test_a_batch_has_its_whole_number_its_rows_and_its_model_at_80_columns(run):
    finished = run()
    assert finished.exit_code == 0
    for text in ("1795699234051020", "281,300", "281,299", "models:/main.flights.delay/3"):
        assert text in finished.stdout
    assert "interrupted" in finished.stdout


def test_the_batches_are_one_json_list_with_the_names_of_the_ledger(run):
    (batch,) = json.loads(run("--json", "--max-results", "1", rows=(FACTS,)).stdout)
    assert batch == {**FACTS, "started_at": "2026-11-26T13:20:34.051020+00:00"}


def test_the_start_is_in_utc_whatever_the_zone_of_this_machine(run):
    in_tokyo = {**FACTS, "started_at": datetime(2026, 11, 26, 22, 20, 34)}
    assert "2026-11-26 13:20:34" in run(rows=(in_tokyo,)).stdout


def test_a_table_without_batches_says_so(run):
    assert run(rows=()).stdout == "no batches in main.flights.scored\n"
