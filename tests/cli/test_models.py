"""`dbx-aml models`: tables for people, JSON for programs, one line for an error."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from dbx_aml.cli.main import main
from dbx_aml.link.link import Link
from tests.models.conftest import aml_registry, linked, saved_model, uc_registry, uc_version
from tests.support.azureml.workspace import TENANT_ID, Workspace

__all__ = ["aml_registry", "linked", "saved_model", "uc_registry", "uc_version"]

pytestmark = pytest.mark.azureml


@pytest.fixture
def config(linked: Link, uc_version: str, tmp_path: Path) -> str:
    """A `config.json` of a link to both stand-ins; Unity Catalog has a version."""
    return str(linked.save(tmp_path / "config.json"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def read_json(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_versions_of_both_registries_are_listed_with_the_place_of_the_copy(config: str) -> None:
    copy = read_json("copy", "models:/main.ml.delay/1", "--config", config)
    assert (copy["model_uri"], copy["is_new"]) == ("models:/main-ml-delay/1", True)

    rows = read_json("--config", config)
    assert [(row["registry"], row["name"], row["version"]) for row in rows] == [
        ("databricks-uc", "main.ml.delay", "1"),
        ("aml", "main-ml-delay", "1"),
    ]
    source, copied = rows
    assert source["aliases"] == ["champion"]
    assert source["copies"] == [f"models:/main-ml-delay/1 in {copy['registry']}"]
    assert copied["copied_from"] == f"models:/main.ml.delay/1 in {copy['source_registry']}"
    text = run("list", "--config", config).output
    assert "main.ml.delay" in text
    assert f"to models:/main-ml-delay/1 in {copy['registry']}" in text
    only = read_json("list", "main-ml-delay", "--registry", "aml", "--config", config)
    assert [row["name"] for row in only] == ["main-ml-delay"]


def test_a_version_is_shown_with_its_lineage_and_its_files(config: str) -> None:
    run("copy", "models:/main.ml.delay@champion", "delay", "--config", config)
    shown = read_json("show", "models:/delay/1", "--config", config)
    assert shown["version"]["registry"] == "aml"
    assert shown["lineage"]["dbx_aml.source_model_uri"] == "models:/main.ml.delay/1"
    assert shown["tags"] == {"stage": "test", "team": "größe"}
    assert {"path": "weights/größe.bin", "bytes": 1_048_576} in shown["files"]
    text = run("show", "models:/delay/1", "--config", config).output
    assert "weights/größe.bin" in text
    assert "models:/main.ml.delay/1 in databricks-uc://127.0.0.1:" in text


def test_an_alias_is_set_and_deleted(config: str) -> None:
    row = read_json("alias", "models:/main.ml.delay/1", "best", "--config", config)
    assert (row["registry"], row["aliases"]) == ("databricks-uc", ["best", "champion"])
    assert run("alias", "main.ml.delay", "best", "--delete", "--config", config).exit_code == 0
    (row,) = read_json("list", "main.ml.delay", "--config", config)
    assert row["aliases"] == ["champion"]


def test_a_refused_name_is_one_line_and_exit_code_2(config: str) -> None:
    result = run("copy", "models:/main.ml.delay/1", "delay.x", "--config", config)
    assert result.exit_code == 2
    assert result.stderr.startswith("dbx-aml: name of a registered model in Azure ML must")
    assert result.stderr.count("\n") == 1


def test_a_version_that_is_nowhere_is_one_line_and_exit_code_1(config: str) -> None:
    result = run("show", "models:/main.ml.none/1", "--config", config)
    assert result.exit_code == 1
    assert "'models:/main.ml.none/1', which is not in Unity Catalog in Databricks" in result.stderr


def test_each_version_and_run_has_its_page_also_where_mlflow_gives_no_link(
    config: str, aml_registry: MlflowClient
) -> None:
    experiment_id = aml_registry.create_experiment("pages")
    run_id = aml_registry.create_run(experiment_id).info.run_id
    aml_registry.log_text(run_id, "model", "model/MLmodel")
    aml_registry.create_registered_model("logged")
    source = f"{aml_registry.get_run(run_id).info.artifact_uri}/model"
    assert not aml_registry.create_model_version("logged", source, run_id).run_link

    (row,) = read_json("list", "logged", "--config", config)

    workspace = f"wsid={Workspace().scope}&tid={TENANT_ID}"
    assert row["url"] == f"https://ml.azure.com/model/logged:1/details?{workspace}"
    assert row["run_url"] == f"https://ml.azure.com/runs/{run_id}?{workspace}"
    head, line = run("list", "logged", "--config", config).output.splitlines()[-2:]
    assert head.split()[-4:] == ["version", "page", "run", "page"]
    assert line.split()[-2:] == [row["url"], row["run_url"]]
    (row,) = read_json("list", "main.ml.delay", "--config", config)
    assert row["url"].endswith("/explore/data/models/main/ml/delay/version/1")
    text = run("show", "models:/main.ml.delay/1", "--config", config).output
    assert row["url"] in text.split()
