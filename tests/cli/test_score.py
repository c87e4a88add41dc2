"""The command as a person uses it: what it prints, on which stream, and its exit code."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dbx_aml import score_table
from dbx_aml.cli.main import main
from dbx_aml.cli.score import score
from tests.support.models import XY, choosy_sum, save_model

pytestmark = pytest.mark.spark


@pytest.fixture
def run(spark):
    def invoke(*arguments):
        return CliRunner().invoke(main, [str(one) for one in arguments])

    return invoke


@pytest.fixture
def ready(spark, tmp_path):
    """Options of a job that works: a model, an input of three rows, an output that is not yet."""
    frame = spark.createDataFrame([(1.0, 2.0), (2.0, 3.0), (-1.0, 0.0)], "x double, y double")
    frame.write.format("delta").save(f"{tmp_path}/in")
    return {
        "--model-uri": save_model(tmp_path, choosy_sum, XY),
        "--input-table": f"delta.`{tmp_path}/in`",
        "--output-table": f"delta.`{tmp_path}/out`",
        "--max-quarantined-rows": "50%",
    }


def flat(options):
    return [one for pair in options.items() for one in pair]


def test_options_are_the_arguments_of_score_table():
    # Which servers are meant is for `connect` to say in Python.
    options = {option.name for option in score.params} - {"as_json", "config"}
    arguments = set(score_table.__kwdefaults__) | set(score_table.__annotations__)
    assert options == arguments - {"spark", "progress", "return"}


def test_the_result_is_one_json_object_on_stdout(run, ready):
    done = run("score", *flat(ready), "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["rows_read"], result["rows_scored"], result["rows_quarantined"]) == (3, 2, 1)
    assert result["output_version"] == 0
    again = json.loads(run("score", *flat(ready), "--json").stdout)
    assert again["status"] == "already_scored"


def test_the_table_at_the_end_has_every_number(run, ready):
    done = run("score", *flat(ready))
    assert done.exit_code == 0, done.output
    for name in (
        "rows read", "rows scored", "rows quarantined", "seconds", "rows a second",
        "model", "batch id", "output",
    ):  # fmt: skip
        assert name in done.stdout
    assert "at version 0" in done.stdout.replace("\n", " ")


def test_a_dry_run_shows_the_plan_and_writes_nothing(run, ready, tmp_path):
    done = run("score", *flat(ready), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "Dry run: nothing was written" in done.stdout
    assert "x: x double -> double" in done.stdout
    assert "rows to read" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        ({"--input-table": "no_such"}, 1, "input table must exist and be readable: got 'no_such'"),
        ({"--row-filter": "x >>> 'a"}, 1, "row_filter must be an SQL predicate on the input"),
        ({"--row-filter": "nope > 1"}, 1, "row_filter must be an SQL predicate on the input"),
        ({"--config": "/no/such/config.json"}, 1, "config must be a config.json or a folder"),
        ({"--model-uri": "models:/no_such/1"}, 1, "registered model and version must exist"),
        ({"--model-uri": "models:/no_such@a"}, 1, "registered model and alias must exist"),
        ({"--model-uri": "runs:/0123456789abcdef0123456789abcdef/m"}, 1, "must exist: got 'runs:/"),
        ({"--model-uri": "/no/such/model"}, 1, "'/no/such/model'"),
        ({"--output-table": "delta.`/proc/dbx/out`"}, 1, "table must be writable"),
        ({"--output-table": "no_schema.out"}, 1, "table must be writable"),
        ({"--tracking-uri": "http://127.0.0.1:9", "--model-uri": "models:/m/1"}, 1,
         "MLflow server must answer: got 'http://127.0.0.1:9'"),
        ({"--max-quarantined-rows": "0"}, 1, "quarantined rows must be at most 0: got 1 of 3"),
        ({"--output-columns": "z"}, 1, "output_columns must be input columns: got ['z']"),
        ({"--max-quarantined-rows": "lots"}, 2, "max_quarantined_rows must be a count"),
        ({"--write-mode": "merge"}, 2, "write_mode 'merge' must have key_columns"),
        ({"--model-uri": "models:/iris"}, 2, "model URI must name a version or an alias"),
        ({"--write-mode": "upsert"}, 2, "'upsert' is not one of"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_on_stderr(
    run, ready, mlflow_store, tmp_path, changed, code, message
):
    done = run("score", *flat({**ready, **changed}))
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if code == 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("dbx-aml: ")]
        assert len(said) == 1, done.stderr
    if "--max-quarantined-rows" not in changed:
        assert not (tmp_path / "out").exists()


def test_a_model_whose_library_is_missing_is_said_with_what_to_install(run, ready, tmp_path):
    from pathlib import Path

    mlmodel = Path(ready["--model-uri"]) / "MLmodel"
    text = mlmodel.read_text().replace("mlflow.pyfunc.model", "mlflow.catboost")
    mlmodel.write_text(text.replace("flavors:", "flavors:\n  catboost: {}"))
    done = run("score", *flat(ready))
    assert done.exit_code == 1
    assert "model flavor must be installed on this machine: got 'catboost'" in done.stderr
    assert "pip install catboost" in done.stderr


def test_differences_to_the_models_requirements_are_listed_once(run, ready, caplog):
    from pathlib import Path

    (Path(ready["--model-uri"]) / "requirements.txt").write_text("pandas==0.1\nnosuch==3\n")
    done = run("score", *flat(ready))
    assert done.exit_code == 0, done.output
    listed = [r.getMessage() for r in caplog.records if "requirements differ" in r.getMessage()]
    assert len(listed) == 1
    assert "pandas==0.1: " in listed[0]
    assert "nosuch==3: not installed here" in listed[0]


@pytest.mark.slow
def test_the_installed_command_works_in_a_process_of_its_own(ready, tmp_path):
    command = [sys.executable, "-m", "dbx_aml.cli", "score", *flat(ready), "--json"]
    environment = {**os.environ, "DBX_AML_LOCAL_ROOT": str(tmp_path / "root")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows_scored"] == 2
    noise = [line for line in done.stderr.splitlines() if "WARN" in line or "INFO" in line]
    assert noise == []


def test_help_names_every_option_with_its_default(run):
    done = run("score", "--help")
    assert done.exit_code == 0
    for option in ("--model-uri", "--write-mode", "--max-quarantined-rows", "--dry-run", "--json"):
        assert option in done.output
    assert "[default: 1%]" in done.output
