"""`dbx-aml endpoint`: one model from the registry to an endpoint and away again, as typed."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dbx_aml._common.errors import ArgumentError, ServingError
from dbx_aml.cli.main import main
from tests.serving.conftest import (
    RegisterFunction,
    config_folder,
    link,
    register,
    resolved_requirements,
)

__all__ = ["config_folder", "link", "register", "resolved_requirements"]

pytestmark = pytest.mark.azureml


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["endpoint", *arguments], input=stdin)


@pytest.mark.slow
def test_a_model_is_deployed_scored_moved_and_deleted_by_the_command(
    register: RegisterFunction, config_folder: Path
) -> None:
    config = ("--config", str(config_folder))
    file = config_folder / "deployment.yml"
    register(10)
    file.write_text("name: blue\nendpoint_name: delay-ep\nmodel: azureml:delay:1\n")
    deployed = run("deploy", "delay-ep", "--file", str(file), "--json", *config)
    assert deployed.exit_code == 0, deployed.output
    content = json.loads(deployed.stdout)
    assert (content["name"], content["traffic"]) == ("delay-ep", {"blue": 100})
    assert content["deployments"][0]["model"] == "delay:1"

    rows = '{"columns": ["x", "y"], "data": [[1, 3]]}'
    scored = run("score", "delay-ep", "--input", "-", *config, stdin=rows)
    assert json.loads(scored.stdout) == [13.0]
    refused = run("score", "delay-ep", "--input", "-", *config, stdin=rows.replace("1,", "-1,"))
    assert refused.exit_code == 1
    assert "ValueError: x is negative" in refused.output
    assert "x is negative" in run("logs", "delay-ep", *config).output

    listed = run("list", *config).output
    assert listed.split("\n")[1].split()[:6] == [
        "delay-ep",
        "blue",
        "Succeeded",
        "100",
        "%",
        "delay:1",
    ]
    stopped = run("traffic", "delay-ep", "blue=0", "--json", *config)
    assert json.loads(stopped.stdout)["traffic"] == {"blue": 0}
    assert "no traffic" not in run("show", "delay-ep", *config).output

    kept = run("delete", "delay-ep", *config, stdin="n\n")
    assert "nothing was deleted" in kept.output
    deleted = run("delete", "delay-ep", "--yes", *config)
    assert "endpoint delay-ep (blue) is deleted" in deleted.output
    assert "no endpoints" in run("list", *config).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("traffic", "delay-ep", "blue"), "traffic must be DEPLOYMENT=PERCENT: got 'blue'"),
        (("traffic", "delay-ep", "blue=x"), "traffic must be DEPLOYMENT=PERCENT: got 'blue=x'"),
        (("deploy", "delay-ep"), "model_uri must be given: got none"),
    ],
)
def test_wrong_usage_ends_with_2_and_the_right_form(
    arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"model_uri": "models:/delay/3", "registry": "aml"}),
        # The model of the option may be in any registry.
        (("--model-uri", "models:/main.ml.delay/1"), {"model_uri": "models:/main.ml.delay/1"}),
    ],
)
def test_each_option_and_field_is_an_argument_and_one_that_is_not_given_is_none(
    options: tuple[str, ...],
    expected: dict[str, Any],
    config_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[dict[str, Any]] = []

    def stop(name: str, **arguments: Any) -> None:
        calls.append(arguments)
        raise ArgumentError("enough")

    monkeypatch.setattr("dbx_aml.serving.deploy.deploy_model", stop)
    file = config_folder / "deployment.yml"
    file.write_text("model: azureml:delay:3\n")
    run("deploy", "delay-ep", "--file", str(file), "--config", str(config_folder), *options)
    (arguments,) = calls
    for name in ("link", "report", "timeout_s", "environment_variables", "tags"):
        del arguments[name]
    assert arguments == expected


def test_an_endpoint_that_does_not_exist_is_one_line(
    config_folder: Path, azureml_client: object
) -> None:
    result = run("show", "nothing", "--config", str(config_folder))
    assert result.exit_code == 1
    assert "endpoint must exist in workspace 'mlw-team': got 'nothing'" in result.output


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (("--traffic", "0", "--no-code"), {"traffic": 0, "no_code": True}),
        (("--deployment=", "--instance-type="), {}),
    ],
)
def test_a_share_of_0_reaches_the_deployment_and_an_empty_option_does_not(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: tuple[str, ...],
    arguments: dict[str, object],
) -> None:
    calls: list[dict[str, object]] = []

    def deploy_model(name: str, **values: object) -> None:
        calls.append({key: values[key] for key in values.keys() - {"link", "report"}})
        raise ServingError("no answer")

    monkeypatch.setattr("dbx_aml.serving.deploy.deploy_model", deploy_model)
    (tmp_path / "config.json").write_text('{"dbx_aml": {"mode": "databricks"}}')
    config = ("--config", str(tmp_path), "--timeout-s", "60")
    result = run("deploy", "delay-ep", "--model-uri", "models:/delay/1", *options, *config)
    assert result.stderr == "dbx-aml: no answer\n"
    assert calls == [{"model_uri": "models:/delay/1", "timeout_s": 60.0, **arguments}]
