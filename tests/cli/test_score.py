"""`dbx-aml score`: its options, its output on stdout and stderr, its exit codes."""

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from dbx_aml import ScoringResult, score_table
from dbx_aml._common.errors import ArgumentError, ScoringError, TooManyQuarantinedRowsError
from dbx_aml.cli.main import main
from dbx_aml.cli.score import score
from tests.support.models import XY, choosy_sum, save_model

ROOT = Path(__file__).parents[2]
# Arguments of `score_table` for Python callers only.
PYTHON_ONLY = {"spark", "progress"}
# Options of the command only: the link is connected in Python, and the plan is for people.
COMMAND_ONLY = {"config", "as_json"}

RESULT = ScoringResult(
    status="scored",
    model_uri="models:/delay/3",
    model_name="delay",
    model_version="3",
    model_run_id="4be1",
    input_table="flights",
    input_version=7,
    output_table="flights_scored",
    output_version=0,
    quarantine_table="flights_scored_quarantine",
    write_mode="append",
    batch=1795699234051020,
    batch_id="0123456789abcdef",
    rows_read=281_300,
    rows_scored=281_299,
    rows_quarantined=1,
    seconds=12.5,
)
OPTIONS = ["--model-uri", "models:/delay@a", "--input-table", "i", "--output-table", "o"]


@pytest.fixture
def scoring(monkeypatch):
    """Replace `score_table` by a function that records its calls and has a set result_or_error."""

    class Scoring:
        def __init__(self):
            self.result_or_error = RESULT
            self.calls = []

        def score_table(self, progress, **arguments):
            self.calls.append(arguments)
            progress("scoring", 3, 8)
            if isinstance(self.result_or_error, Exception):
                raise self.result_or_error
            return self.result_or_error

    scoring = Scoring()
    monkeypatch.setattr(sys.modules[score_table.__module__], "score_table", scoring.score_table)
    return scoring


def run(*options):
    return CliRunner().invoke(main, ["score", *OPTIONS, *options])


def arguments_of_score_table():
    return set(inspect.signature(score_table).parameters)


def test_the_options_are_the_arguments_of_score_table():
    options = {option.name for option in score.params}
    assert options - COMMAND_ONLY == arguments_of_score_table() - PYTHON_ONLY


def test_the_parameters_of_the_jobs_are_the_options():
    jobs = yaml.safe_load((ROOT / "resources" / "jobs.yml").read_text())["resources"]["jobs"]
    options = {option.name for option in score.params} - {"as_json", "dry_run", "rescore"}
    for name in ("score", "score_on_update", "score_stream"):
        assert {parameter["name"] for parameter in jobs[name]["parameters"]} == options


def test_options_reach_score_table_as_its_arguments(scoring):
    assert run("--write-mode", "merge", "--key-columns", "id", "--dry-run").exit_code == 0
    (arguments,) = scoring.calls
    assert arguments["model_uri"] == "models:/delay@a"
    assert (arguments["write_mode"], arguments["key_columns"]) == ("merge", "id")
    assert arguments["dry_run"] is True
    assert arguments["max_quarantined_rows"] == "1%"


def test_the_result_is_one_json_object_on_stdout(scoring):
    finished = run("--json")
    assert finished.exit_code == 0
    assert json.loads(finished.stdout) == RESULT.to_dict()


def test_the_table_has_every_number_whole(scoring):
    finished = run()
    assert finished.exit_code == 0
    for text in (
        "rows read", "281,300", "rows scored", "281,299", "rows quarantined", "seconds", "12.5",
        "rows a second", "22,504", "models:/delay/3 (version 3)", "1795699234051020",
        "0123456789abcdef",
        "flights at version 7", "flights_scored at version 0", "flights_scored_quarantine",
    ):  # fmt: skip
        assert text in finished.stdout


def test_a_dry_run_prints_the_plan_and_no_counts(scoring):
    plan = {"columns": {"x": "x double -> double"}, "rows_to_read": 3_000}
    scoring.result_or_error = replace(RESULT, status="planned", plan=plan)
    finished = run("--dry-run")
    assert "Dry run: nothing was written" in finished.stdout
    assert "x: x double -> double" in finished.stdout
    assert "3,000" in finished.stdout
    assert "rows scored" not in finished.stdout


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ScoringError("table must be writable"), 1),
        (TooManyQuarantinedRowsError("quarantined rows must be at most 0"), 1),
        (ArgumentError("write_mode 'merge' must have key_columns"), 2),
    ],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(scoring, error, exit_code):
    scoring.result_or_error = error
    finished = run()
    assert finished.exit_code == exit_code
    assert str(error) in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""


def test_a_write_mode_that_does_not_exist_is_wrong_usage(scoring):
    finished = run("--write-mode", "upsert")
    assert finished.exit_code == 2
    assert "'upsert' is not one of 'append', 'incremental', 'merge', 'replace'" in finished.stderr
    assert scoring.calls == []


def test_a_config_that_does_not_exist_is_one_line(scoring):
    finished = run("--config", "/no/such/config.json")
    assert finished.exit_code == 1
    assert "config must be a config.json or a folder" in finished.stderr
    assert scoring.calls == []


def test_the_help_has_every_option_and_its_default():
    finished = CliRunner().invoke(main, ["score", "--help"])
    assert finished.exit_code == 0
    for option in score.params:
        assert option.opts[0] in finished.output
    assert "[default: 1%]" in finished.output


@pytest.mark.spark
@pytest.mark.slow
def test_the_installed_command_scores_in_a_process_of_its_own(spark, tmp_path):
    frame = spark.createDataFrame([(1.0, 2.0), (2.0, 3.0), (-1.0, 0.0)], "x double, y double")
    frame.write.format("delta").save(f"{tmp_path}/in")
    command = [sys.executable, "-m", "dbx_aml.cli", "score", "--json"]
    command += ["--model-uri", save_model(tmp_path, choosy_sum, XY)]
    command += ["--input-table", f"delta.`{tmp_path}/in`"]
    command += ["--output-table", f"delta.`{tmp_path}/out`", "--max-quarantined-rows", "50%"]
    environment = {**os.environ, "DBX_AML_LOCAL_ROOT": str(tmp_path / "root")}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert (result["rows_scored"], result["rows_quarantined"]) == (2, 1)
    assert "scoring ..." in finished.stderr
    assert not re.search("WARN|INFO", finished.stderr)
