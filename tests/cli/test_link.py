"""`dbx-aml link`: a file is written, and each setting is shown with its origin."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dbx_aml import AmlWorkspace, Link
from dbx_aml.cli.main import main
from tests.support.azureml import AzureMl, Workspace
from tests.support.isolation import isolate_from_machine

Run = Callable[..., Result]
WORKSPACE = Workspace()


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate_from_machine(monkeypatch, tmp_path)


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["link", *arguments])

    return invoke


@pytest.fixture
def linked(azureml: AzureMl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AzureMl:
    """Write a link to the stand-in, and set the variables of a service principal."""
    for variable, value in azureml.environment().items():
        monkeypatch.setenv(variable, value)
    workspace = AmlWorkspace.from_tracking_uri(azureml.tracking_uri)
    Link(mode="aml", aml_workspace=workspace).save(tmp_path)
    return azureml


def test_set_writes_a_file_and_show_has_the_origin_of_each_setting(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(
        "set", "--mode", "dual", "--aml-workspace", WORKSPACE.scope, "--region", "westeurope",
        "--client-secret", "ml/aml-secret", "--retry-timeout-s", "0",
    )  # fmt: skip
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "config.json: mode dual, registry databricks-uc\n"
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "subscription_id": WORKSPACE.subscription_id,
        "resource_group": "rg-ml",
        "workspace_name": "mlw-team",
        "dbx_aml": {
            "mode": "dual",
            "registry": "databricks-uc",
            "region": "westeurope",
            "client_secret": {"scope": "ml", "key": "aml-secret"},
            "retry_timeout_s": 0.0,
        },
    }
    assert run("set", "--experiment", "iris").exit_code == 0
    monkeypatch.setenv("DBX_AML_MODE", "aml")
    done = run("show", "--json")
    values = json.loads(done.stdout)["values"]
    file = str(tmp_path / "config.json")
    assert values["mode"] == {"value": "aml", "origin": "DBX_AML_MODE"}
    assert values["experiment"] == {"value": "iris", "origin": file}
    assert values["client_secret"] == {"value": "ml/aml-secret", "origin": file}
    assert values["retry_timeout_s"] == {"value": 0.0, "origin": file}
    assert values["tenant_id"] == {"value": None, "origin": "default"}
    assert values["aml_tracking_uri"]["value"] == WORKSPACE.tracking_uri
    table = run("show").stdout
    for text in ("mode", "DBX_AML_MODE", file, "mlw-team", "→", "the link's service principal"):
        assert text in table


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["set"], 2, "Give at least one value, for example --mode aml."),
        (["set", "--mode", "both"], 2, "'both' is not one of 'databricks', 'aml', 'dual'"),
        (["set", "--client-secret", "Xyz8Q~text"], 2, "secret must be a reference, not its text"),
        (["set", "--cloud", "Azure", "--aml-workspace", WORKSPACE.scope], 2, "cloud must be one"),
        (["set", "--aml-workspace", "mlw-team"], 2, "ARM id must be a workspace's: got 'mlw-team'"),
        (["set", "--mode", "aml"], 1, "link must name an Azure ML workspace"),
        (["show", "--config", "/no/such"], 1, "config must be a config.json or a folder with one"),
        (["check", "--mode", "aml"], 2, "No such option '--mode'"),
    ],
)
def test_wrong_usage_and_wrong_settings_have_their_exit_codes(
    run: Run, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = run(*arguments)
    assert done.exit_code == code
    assert message in " ".join(done.stderr.split())
    assert "Xyz8Q" not in done.output
    assert done.stdout == ""
    assert not (tmp_path / "config.json").exists()


@pytest.mark.azureml
def test_no_output_or_file_of_the_command_has_a_secret(
    run: Run, linked: AzureMl, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    written = [run(*arguments).output for arguments in (["show"], ["check"], ["show", "--json"])]
    run("set", "--experiment", "iris")
    written += [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    output_text = "\n".join([*written, caplog.text])
    assert "mlw-team" in output_text
    assert linked.environment()["AZURE_CLIENT_SECRET"] not in output_text
    assert "eyJ" not in output_text


def test_a_uri_with_a_password_is_never_shown_and_not_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "https://ana:pa/s3cret@mlflow.example"
    done = run("set", "--mode", "databricks", "--databricks-tracking-uri", uri)
    assert done.exit_code == 1
    assert "config.json must hold no secret: got one in 'databricks_tracking_uri'" in done.stderr
    assert "s3cret" not in done.output
    assert not (tmp_path / "config.json").exists()
    monkeypatch.setenv("DBX_AML_MODE", "databricks")
    monkeypatch.setenv("DBX_AML_DATABRICKS_TRACKING_URI", uri)
    for arguments in (["show"], ["show", "--json"], ["check"]):
        output = run(*arguments).output
        assert "mlflow.example" in output
        assert "s3cret" not in output


@pytest.mark.parametrize("experiment", ["/Users/[/red]", "[bold]x[/bold][link=https://a.b]y"])
def test_brackets_of_a_setting_are_shown_as_they_are(
    run: Run, monkeypatch: pytest.MonkeyPatch, experiment: str
) -> None:
    monkeypatch.setenv("DBX_AML_EXPERIMENT", experiment)
    monkeypatch.setenv("DBX_AML_MODE", "databricks")
    done = run("show")
    assert done.exit_code == 0
    assert experiment in done.stdout
