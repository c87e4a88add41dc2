"""The doctor finds retired features of Microsoft, Databricks and MLflow in notebooks and code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dbx_aml._common.errors import ArgumentError
from dbx_aml.cli.main import main
from dbx_aml.doctor.retired import RETIRED_THINGS, find_files, find_retired

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, arguments)])


def names_in(path: Path, text: str) -> list[tuple[int, str]]:
    """Write a file and return line and name of each retired use in it."""
    path.write_text(text, encoding="utf-8")
    return [(use.line, use.retired.partition(": ")[0]) for use in find_retired(path)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from azureml.core import Workspace", "Azure ML SDK v1"),
        ("    import azureml.train.automl as automl", "Azure ML SDK v1"),
        ("from azureml import core", "Azure ML SDK v1"),
        ("import os, azureml.core", "Azure ML SDK v1"),
        ("from azureml.exceptions import UserErrorException", "Azure ML SDK v1"),
        ("# MAGIC %pip install azureml-core==1.58", "Azure ML SDK v1"),
        ("  - azureml-train-automl-client", "Azure ML SDK v1"),
        ('uri = "adbazureml://westeurope.api.azureml.ms/history"', "adbazureml://"),
        ("dbutils.fs.put('dbfs:/databricks/init/aml.sh', x)", "global init scripts of DBFS"),
        ('{"dbfs": {"destination": "dbfs:/databricks/scripts/aml.sh"}}', "scripts on DBFS"),
        ("cp aml.sh /dbfs/init/aml.sh", "scripts on DBFS"),
        ('mlflow.projects.run(".", backend="azureml")', "MLproject on Azure ML"),
        ("mlflow run . --backend azureml -P a=1", "MLproject on Azure ML"),
        ('mlflow.sklearn.log_model(model, artifact_path="model")', "log_model(artifact_path=)"),
        ('model = load_model("models:/delay/Production")', "stages of models"),
        ('load_model(f"models:/{name}/staging")', "stages of models"),
        ("client.transition_model_version_stage(name, 1, 'Staging')", "stages of models"),
    ],
)
def test_a_retired_thing_is_found_at_its_line(tmp_path: Path, text: str, name: str) -> None:
    assert names_in(tmp_path / "file.py", f"x = 1\n\n{text}\n") == [(3, name)]


@pytest.mark.parametrize(
    "text",
    [
        "import azureml.mlflow",
        "import azureml",
        "from azureml.ai.monitoring import Collector",
        "pip install azureml-mlflow azureml-inference-server-http",
        "# from azureml.core import Workspace",
        "    # load_model('models:/delay/Production')",
        "dbfs:/Volumes/main/ml/files/aml.csv",
        "/Volumes/main/ml/files/init.sh",
        'mlflow.projects.run(".", backend="databricks")',
        'mlflow.sklearn.log_model(model, name="model")',
        'log_artifact(path, artifact_path="plots")',
        "mlflow.log_model(model, name=f(1))\nlog_artifact(x, artifact_path='plots')",
        'load_model("models:/delay/3")',
        'load_model("models:/delay@Production")',
        'load_model("models:/production/ProductionLine")',
    ],
)
def test_what_is_current_or_commented_out_is_not_found(tmp_path: Path, text: str) -> None:
    assert names_in(tmp_path / "file.py", f"{text}\n") == []


def test_a_commented_line_of_a_call_hides_no_line_after_it(tmp_path: Path) -> None:
    text = "log_model(\n  model,  \n  # ( artifact_path='a'\n  artifact_path='b')\n"
    assert names_in(tmp_path / "file.py", text) == [(4, "log_model(artifact_path=)")]


def test_a_long_line_takes_no_longer_than_short_lines(tmp_path: Path) -> None:
    text = "\n".join(("import " + "a, " * 50_000, "import" + " \t" * 50_000, "log_model(" * 9_000))
    assert names_in(tmp_path / "file.py", text) == []


def test_each_retired_thing_has_a_date_and_a_replacement() -> None:
    assert len(RETIRED_THINGS) == 7
    assert all(thing.since and thing.replacement for thing in RETIRED_THINGS)


def test_a_call_over_several_lines_is_found_at_the_line_of_its_argument(tmp_path: Path) -> None:
    text = "log_model(\n    fit(x(1), (2)),\n    artifact_path = 'model',\n)\n"
    assert names_in(tmp_path / "a.py", text) == [(3, "log_model(artifact_path=)")]


def test_in_a_jupyter_notebook_the_place_is_a_line_of_a_code_cell(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["from azureml.core import Run"]},
        {"cell_type": "code", "source": ["x = 1\n", "from azureml.core import Run\n"]},
    ]
    path = tmp_path / "train.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")

    (use,) = find_retired(path)

    assert use.location == f"{path}:cell 2:2"
    assert use.text == "from azureml.core import Run"


def test_hidden_folders_and_environments_are_not_searched(tmp_path: Path) -> None:
    for name in (".git/a.py", "env/pyvenv.cfg", "env/lib/a.py", "build/a.py", "b/x.yml", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert find_files(tmp_path) == [tmp_path / "b" / "x.yml"]


def test_a_folder_without_code_is_refused_so_that_a_wrong_path_is_not_all_right(
    tmp_path: Path,
) -> None:
    with pytest.raises(ArgumentError, match=r"must have notebooks or code \(\.py, "):
        find_files(tmp_path)
    assert run("--path", tmp_path, "--strict").exit_code == 2


def test_the_command_lists_places_and_exits_with_1_only_when_strict(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text("from azureml.core import Run\n")

    result = run("--path", tmp_path)

    assert result.exit_code == 0, result.output
    assert f"{file}:1" in result.stdout
    assert "dbx-aml job submit" in result.stdout
    assert result.stdout.endswith("1 retired use in 1 file\n")
    strict = run("--path", tmp_path, "--strict", "--json")
    assert strict.exit_code == 1
    assert json.loads(strict.stdout) == {
        "files": 1,
        "retired": [
            {
                "file": str(file),
                "cell": None,
                "line": 1,
                "text": "from azureml.core import Run",
                "retired": "Azure ML SDK v1: without support since 2026-06-30",
                "replacement": "MLflow after dbx_aml.connect(); dbx-aml job submit; "
                "dbx-aml endpoint deploy",
            }
        ],
    }
    assert file.read_text() == "from azureml.core import Run\n"


@pytest.mark.parametrize("arguments", [["--strict"], ["--path", ".", "--volume", "/Volumes/a/b/c"]])
def test_options_of_the_other_checks_do_not_go_with_a_path(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("folder", ["notebooks", "resources", "init_scripts", "benchmarks"])
def test_this_project_uses_nothing_retired(folder: str) -> None:
    assert [use.location for file in find_files(ROOT / folder) for use in find_retired(file)] == []
