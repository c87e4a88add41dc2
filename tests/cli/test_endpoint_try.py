"""`dbx-aml endpoint try`: its output, its errors and the end of its server."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3
from click.testing import CliRunner, Result

from dbx_aml.cli.main import main
from tests.support.child_process import clean_environment
from tests.support.isolation import isolate_from_machine
from tests.support.served_models import FLIGHTS, save_served_model


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["endpoint", "try", *map(str, arguments)])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_served_model(
        tmp_path_factory.mktemp("models") / "model",
        lambda rows: rows["distance"] / rows["hour"],
        FLIGHTS,
        input_example=FLIGHTS,
    )


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch) -> None:
    isolate_from_machine(monkeypatch, tmp_path)


@pytest.mark.slow
def test_answers_times_and_the_request_are_printed_and_the_server_ends(model, tmp_path) -> None:
    (tmp_path / "rows.json").write_text('{"columns": ["hour", "distance"], "data": [[7, 200.0]]}')

    result = run("--model-uri", model, "--input", "rows.json")

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    fields = dict(line.split("  ", 1) for line in lines)
    assert fields["model"].strip() == model
    assert fields["ready after"].endswith(" s")
    assert "3 rows" in fields["input example"]
    assert fields["input example"].endswith("equal to pyfunc.predict")
    assert "1 row, " in fields["rows.json"]
    assert fields["rows.json"].endswith("equal to pyfunc.predict")
    command = shlex.split(fields["request"])
    assert command[:2] == ["curl", "-H"]
    assert json.loads(command[4])["input_data"]["data"] == [[200.0, 7]]
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.PoolManager(retries=False).request("GET", command[-1])


@pytest.mark.slow
def test_rows_that_the_model_refuses_end_with_its_reason_after_the_log(model, tmp_path) -> None:
    (tmp_path / "rows.json").write_text('{"columns": ["hour"], "data": [[7]]}')

    result = run("--model-uri", model, "--input", "rows.json")

    assert result.exit_code == 1
    *log, error = result.stderr.splitlines()
    assert "500; mlflow.exceptions.MlflowException: " in error
    assert "distance" in error
    assert any("POST /score 500" in line for line in log)


@pytest.mark.slow
def test_another_answer_than_that_of_predict_is_an_error(model, monkeypatch) -> None:
    from dbx_aml.serving.local_server import LocalEndpoint

    monkeypatch.setattr(LocalEndpoint, "predict", lambda self, inputs: [[1.0, 2.0, 3.0]])

    result = run("--model-uri", model, "--json")

    assert result.exit_code == 1
    (trial,) = json.loads(result.stdout)["inputs"]
    first = FLIGHTS["distance"][0] / FLIGHTS["hour"][0]
    assert trial["difference"] == (
        f"row 1: the endpoint answers {json.dumps({'0': first})}, pyfunc.predict returns 1.0"
    )
    assert result.stderr.splitlines()[-1].startswith(
        "dbx-aml: endpoint must answer as pyfunc.predict: got another answer for input example"
    )


@pytest.mark.slow
def test_a_model_without_an_example_is_served_and_the_output_says_what_is_missing(tmp_path) -> None:
    model = save_served_model(tmp_path / "model", lambda rows: rows)
    result = run("--model-uri", model)
    assert result.exit_code == 0, result.output
    assert "none: the model has no input example; pass rows with --input" in result.stdout
    assert "curl" not in result.stdout


@pytest.mark.slow
def test_keep_serves_until_ctrl_c(model) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dbx_aml.cli", "endpoint", "try", "--model-uri", model, "--keep"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**clean_environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    with process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("serving at "))
        url = line.split()[2]
        body = json.dumps({"input_data": FLIGHTS[:1].to_dict(orient="split")})
        answer = urllib3.request(
            "POST", url, body=body, headers={"Content-Type": "application/json"}
        )
        process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
        assert (process.wait(30), stderr) == (0, "")
    assert [list(record.values()) for record in answer.json()] == [[FLIGHTS.iloc[0, 0] / 7]]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--model-uri", "models:/delay"], 2, "must name a version or an alias"),
        (["--model-uri", "absent"], 1, "got 'absent'"),
        (["--model-uri", "absent", "--input", "rows.json"], 2, "rows must be JSON: got '{oops'"),
        (["--model-uri", "absent", "--port", "70000"], 2, "70000 is not in the range"),
        ([], 2, "Missing option '--model-uri'"),
    ],
)
def test_wrong_usage_is_one_line(arguments, exit_code, message) -> None:
    Path("rows.json").write_text("{oops")
    result = run(*arguments)
    assert result.exit_code == exit_code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
