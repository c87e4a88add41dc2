"""`dbx-aml runs`: a table for people, JSON for programs, one line for an error."""

import json
from inspect import signature

import mlflow
import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from dbx_aml.cli.main import main
from dbx_aml.tracking.runs import list_runs


@pytest.fixture
def run_id(mlflow_store):
    with mlflow.start_run(run_name="a[b]") as run:
        mlflow.log_params({"alpha": 0.5, "text": "[bold]x"})
        mlflow.log_metrics({f"m{i}": i / 4 for i in range(6)})
        for step in range(3):
            mlflow.log_metric("loss", 3 - step, step=step)
        mlflow.log_text("hello", "a/b.txt")
    return run.info.run_id


def dbx_aml(*arguments: str):
    return CliRunner().invoke(main, arguments)


def test_a_table_has_each_run_with_its_first_metrics(run_id):
    done = dbx_aml("runs", "--experiment", "tests")
    assert done.exit_code == 0, done.output
    assert run_id in done.output
    assert "a[b]" in done.output
    assert "FINISHED" in done.output
    assert "loss=1" in done.output
    assert "and 3 more" in done.output


def test_json_has_every_metric(run_id):
    (row,) = json.loads(dbx_aml("runs", "--experiment", "tests", "--json").stdout)
    assert row["run_id"] == run_id
    assert row["metrics"] == {
        "loss": 1,
        "m0": 0,
        "m1": 0.25,
        "m2": 0.5,
        "m3": 0.75,
        "m4": 1,
        "m5": 1.25,
    }
    assert row["started"].endswith("+00:00")


def test_a_run_is_shown_in_full(run_id):
    text = dbx_aml("runs", "show", run_id).output
    assert "█▅▁" in text
    assert "[bold]x" in text, "a value is text, no markup"
    assert "a/b.txt" in text
    assert "5 bytes" in text
    run = json.loads(dbx_aml("runs", "show", run_id, "--json").stdout)
    assert run["metrics"]["loss"]["points"] == 3
    assert run["artifacts"] == [{"path": "a/b.txt", "bytes": 5}]


def test_an_experiment_without_runs_says_so(mlflow_store):
    output = dbx_aml("runs", "--experiment", "tests").output
    assert "no runs in 'tests'" in output
    assert "--experiment" in output


@pytest.mark.parametrize(
    ("value", "text"),
    [(281373.0, "rows=281373"), (61728.44, "rows=61728.4"), (1e300, "rows=1e+300")],
)
def test_a_whole_number_among_the_metrics_keeps_its_digits(mlflow_store, value, text):
    with mlflow.start_run():
        mlflow.log_metric("rows", value)
    assert text in dbx_aml("runs", "--experiment", "tests").output


def test_a_missing_experiment_is_one_line_and_exit_code_1(mlflow_store):
    done = dbx_aml("runs", "--experiment", "nope")
    assert done.exit_code == 1
    assert done.output.startswith("dbx-aml: experiment must exist: got 'nope'")
    assert dbx_aml("runs", "--max-results", "0").exit_code == 2


def test_options_have_the_names_of_the_python_arguments():
    options = {parameter.name: parameter.opts for parameter in main.commands["runs"].params}
    del options["as_json"]
    assert set(options) == set(signature(list_runs).parameters)
    assert options["max_results"] == ["--max-results"]


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        ("get_metric_history", "metric must be readable: got 'loss'; no answer"),
        ("list_artifacts", "artifacts must be readable: got '"),
    ],
)
def test_a_part_of_a_run_that_cannot_be_read_is_one_line(run_id, monkeypatch, call, rule):
    def raise_error(*arguments, **options):
        raise MlflowException("no answer")

    owner = SqlAlchemyStore if call == "get_metric_history" else mlflow.MlflowClient
    monkeypatch.setattr(owner, call, raise_error)
    done = dbx_aml("runs", "show", run_id)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"dbx-aml: {rule}")
    assert done.stderr.endswith("; no answer\n")


def test_a_server_without_its_scheme_is_one_line(monkeypatch):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    done = dbx_aml("runs", "--tracking-uri", "mlflow.contoso.com")
    assert done.exit_code == 1
    assert done.stderr.startswith("dbx-aml: tracking URI must be one of MLflow's: got 'mlflow")


def test_the_active_experiment_of_one_server_is_not_asked_by_its_id_on_another(
    run_id, tmp_path, monkeypatch
):
    other_uri = f"sqlite:///{tmp_path}/other.db"
    other = mlflow.MlflowClient(other_uri, other_uri)
    other.create_run(other.create_experiment("another experiment with the same id"))
    other.create_run("0", run_name="of the default experiment")
    for variable, name in ((None, "of the default experiment"), ("named", "of the named one")):
        if variable:
            other.create_run(other.create_experiment(variable), run_name=name)
            monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", variable)
        assert [row.name for row in list_runs(tracking_uri=other_uri)] == [name]


def test_an_active_experiment_that_is_gone_is_one_line(mlflow_store, monkeypatch):
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "999")
    done = dbx_aml("runs", "--tracking-uri", mlflow_store)
    assert done.exit_code == 1
    assert done.stderr.startswith("dbx-aml: experiment must exist: got '999';")
    assert "MLFLOW_EXPERIMENT_ID" in done.stderr
